"""The comparison that chooses the mapping to compounds: its training rows, its options, and its rule."""

from __future__ import annotations

import numpy as np
import pytest

from cer_pipeline.compound.ppa import PAIRS
from cer_pipeline.corpora.formats.utterances import Utterance
from cer_pipeline.errors import CerError
from cer_pipeline.labels import COMPOUND
from cer_pipeline.reproduce.compound_mapping_study import (
    CROSS_FITTED,
    PLAIN,
    STRENGTHS,
    compare,
    compound_of,
    decide,
    options,
    rows_of,
)


def sentences() -> list[Utterance]:
    one = [Utterance(f"a{i}", f"text {i}", (i % 7,)) for i in range(35)]
    two = [Utterance(f"b{k}", f"pair {k}", tuple(sorted(pair))) for k, pair in enumerate(PAIRS)]
    other = [Utterance("c", "three", (1, 5, 6)), Utterance("d", "no compound", (1, 2)), Utterance("e", "PAIR 0", (4,))]
    return [*one, *two, *other]


def test_a_compound_is_exactly_the_two_emotions_of_its_pair():
    for k, name in enumerate(COMPOUND):
        assert compound_of(PAIRS[k]) == compound_of(PAIRS[k][::-1]) == COMPOUND.index(name)
    assert compound_of((1, 5, 6)) is compound_of((1,)) is compound_of((1, 2)) is None


def test_training_rows_have_one_label_and_no_text_of_a_compound():
    train, test = rows_of(sentences())
    assert [row.id for row in train] == [f"a{i}" for i in range(35)]
    assert [(row.id, k) for row, k in test] == [(f"b{k}", k) for k in range(7)]
    assert len(rows_of(sentences(), limit=10)[0]) == 10


def test_a_compound_without_a_sentence_is_named():
    with pytest.raises(CerError, match="Sadly Fearful"):
        rows_of([row for row in sentences() if row.id != f"b{COMPOUND.index('Sadly Fearful')}"])


@pytest.fixture(scope="module")
def states():
    """Seven directions, one an emotion; a compound lies between its two."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(20, 20)))[0][:7]
    labels = np.arange(210) % 7
    train = axes[labels] + 0.3 * rng.normal(size=(210, 20))
    truth = np.arange(140) % 7
    sums = np.array([axes[i] + axes[j] for i, j in PAIRS])
    test = sums[truth] + 0.3 * rng.normal(size=(140, 20))
    return train, labels, [str(i) for i in range(210)], test, truth


def test_every_option_gives_distributions_and_predicts_compounds_without_training_on_them(states):
    found = options(*states)
    assert len(found) == 2 + len(STRENGTHS) + 2
    for name, values in found.items():
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-9)
        assert (values.argmax(axis=1) == states[-1]).mean() > 0.6, name


def test_the_strength_for_a_sentence_does_not_depend_on_the_labels_of_its_half(states):
    train, labels, groups, test, truth = states
    shuffled = truth.copy()
    shuffled[::2] = np.random.default_rng(1).permutation(truth[::2])
    one, two = (options(train, labels, groups, test, t) for t in (truth, shuffled))
    np.testing.assert_array_equal(one[CROSS_FITTED][::2], two[CROSS_FITTED][::2])
    for name in set(one) - {CROSS_FITTED}:
        np.testing.assert_array_equal(one[name], two[name])


def test_the_rule_takes_the_best_of_the_options_whose_interval_over_ppa_is_above_0():
    def scored(value: float, low: float) -> dict:
        return {"macro_f1": [value, 0, 0], "macro_f1_over_ppa": [0, low, 9]}

    table = {PLAIN: {"macro_f1": [30, 0, 0]}, "a": scored(33, 0.1), "b": scored(35, 0.2), "c": scored(40, -0.1)}
    assert decide(table) == "b"
    assert decide({PLAIN: table[PLAIN], "c": table["c"]}) == PLAIN


def test_an_option_equal_to_ppa_has_no_advantage():
    rng = np.random.default_rng(0)
    p, truth = rng.dirichlet(np.ones(7), 60), rng.integers(0, 7, 60)
    found = compare({PLAIN: p, "same": p.copy()}, truth)
    assert found["same"]["macro_f1_over_ppa"] == [0, 0, 0]
    assert found["same"]["macro_f1"] == found[PLAIN]["macro_f1"]
