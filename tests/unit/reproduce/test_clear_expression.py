"""The thresholds of the report: the least value from which naming an expression is right more often than wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.corpora.formats.votes import Votes
from cer_pipeline.labels import COMPOUND
from cer_pipeline.reproduce.clear_expression_study import choose, crossing, least_confidence, least_expressed, main


def naive_crossing(measure, right):
    """The fit that never falls at x is the least, over right ends, of the greatest mean over left ends (min-max)."""
    order = np.argsort(measure, kind="stable")
    x, y = measure[order], right[order].astype(float)
    n = len(x)
    for i in range(n):
        fit = max(min(y[a : b + 1].mean() for b in range(i, n)) for a in range(i + 1))
        if fit >= 0.5 - 1e-12:
            return x[i]
    return np.nan


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_crossing_is_that_of_the_naive_monotone_fit(seed):
    rng = np.random.default_rng(seed)
    measure = rng.permutation(30) / 30
    right = rng.random(30) < measure
    np.testing.assert_allclose(crossing(measure, right), naive_crossing(measure, right))


def test_a_known_crossing_is_found_with_the_units_on_each_side():
    rng = np.random.default_rng(0)
    measure = rng.random(4000)
    right = rng.random(4000) < 0.1 + measure  # right in half of the cases at 0.4
    found = choose(measure, right, np.arange(4000) % 4 == 0, np.arange(4000) % 50)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(0.4, abs=0.08)
    assert found.below[0] + found.above[0] == 4000
    assert found.below[1] < 0.5 < found.above[1]
    assert found.below[1] == pytest.approx(right[measure < found.value].mean())
    assert found.above[2] == pytest.approx(0.25, abs=0.03)
    assert np.isnan(choose(measure[:400], right[:400], None, np.arange(400) % 50).above[2])


def test_an_answer_that_is_never_right_has_no_threshold():
    assert np.isnan(crossing(np.linspace(0, 1, 20), np.zeros(20, bool)))


def test_the_threshold_of_expressed_is_chosen_on_votes_of_both_without_the_test_actors():
    """Two branches of votes over six classes: from half of the votes on an expression on, most voters saw one."""
    share = np.tile(np.linspace(0, 1, 21), 40)
    one = np.zeros((len(share), 6))
    neutral = 4  # A D F H N S
    one[:, neutral], one[:, 0] = 1 - share, share
    both = np.stack([one, one], axis=1)
    actors = np.where(np.arange(len(share)) < len(share) // 2, 1001 + np.arange(len(share)) % 7, 1060)
    held = actors == 1060
    targets = np.where(held[:, None], one[:, ::-1], one)  # the votes on the test actors differ
    names = tuple(str(i) for i in range(len(share)))
    found = least_expressed(Votes(names, actors, both, targets))
    assert found.value == pytest.approx(0.55)
    assert found.below[0] + found.above[0] == (~held).sum()


def test_the_threshold_of_confidence_is_chosen_by_the_labelled_compound():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, len(COMPOUND), 900)
    margin = rng.random(900) * 0.5
    values = np.full((900, 7), (1 - 0.2 - margin[:, None]) / 7) + 0.0
    first = np.where(rng.random(900) < 0.2 + 1.5 * margin, truth, (truth + 1) % 7)
    values[np.arange(900), first] += 0.2 + margin
    values[np.arange(900), (first + 2) % 7] += 0.2
    values /= values.sum(axis=1, keepdims=True)
    found = least_confidence(values, truth)
    assert found.below[1] < 0.5 < found.above[1]
    assert 0 < found.value < 0.5


def test_the_command_takes_three_arguments(capsys):
    assert main(["one"]) == 2
    assert "usage:" in capsys.readouterr().err
    assert main(["no", "such.csv", "out"]) == 2
    assert "the votes file does not exist" in capsys.readouterr().err
