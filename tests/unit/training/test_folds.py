"""Folds keep groups whole, cover every row once, and refuse data that they cannot split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.errors import CerError
from cer_pipeline.training.folds import Fold, check_classes, grouped_folds, out_of_fold


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_every_row_is_predicted_once_by_a_model_that_saw_nothing_of_its_group(folds, seed):
    rng = np.random.default_rng(seed)
    groups = [f"v{i}" for i in rng.integers(0, 20, 120)]
    targets = rng.integers(0, 3, 120)
    made = grouped_folds(targets, groups, folds, seed)
    assert len(made) == folds
    assert sorted(np.concatenate([f.test for f in made])) == list(range(120))
    for fold in made:
        assert not {groups[i] for i in fold.train} & {groups[i] for i in fold.test}
        assert sorted([*fold.train, *fold.test]) == list(range(120))


def test_the_same_seed_gives_the_same_folds_and_another_seed_others():
    targets, groups = np.arange(60) % 3, [str(i // 2) for i in range(60)]
    one, same, other = (grouped_folds(targets, groups, 5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a.test, b.test) for a, b in zip(one, other, strict=True))


def test_out_of_fold_values_come_back_in_the_order_of_the_rows():
    targets, groups = np.arange(30) % 2, [str(i) for i in range(30)]
    values = out_of_fold(lambda _, test: np.stack([test, test * 10], 1), grouped_folds(targets, groups, 3))
    np.testing.assert_array_equal(values, np.stack([np.arange(30), np.arange(30) * 10], 1))


def test_a_model_that_remembers_its_groups_gains_nothing_out_of_fold():
    rng = np.random.default_rng(0)
    groups = [str(i // 4) for i in range(200)]
    label_of = {g: int(rng.integers(0, 2)) for g in sorted(set(groups))}
    targets = np.array([label_of[g] for g in groups])

    def remember(train, test):
        known = {groups[i]: targets[i] for i in train}
        return np.array([known.get(groups[i], -1) for i in test])

    assert (out_of_fold(remember, grouped_folds(targets, groups)) == -1).all()


def test_folds_that_miss_or_repeat_rows_are_refused():
    a, b = np.array([0, 1]), np.array([2])
    for wrong in ((Fold(b, a),), (Fold(b, a), Fold(b, a)), (Fold(a, b),)):
        with pytest.raises(ValueError, match="cover every row once"):
            out_of_fold(lambda _, test: test, wrong)


@pytest.mark.parametrize(
    ("targets", "groups", "says"),
    [
        ([0, 1, 0], ["a", "a", "a"], "1 source videos for 5 folds"),
        ([0, 0, 0, 0, 1, 1], ["a", "b", "c", "d", "e", "e"], "class Anger are from one source video"),
    ],
)
def test_data_that_cannot_be_split_is_named(targets, groups, says):
    with pytest.raises(CerError, match=says):
        grouped_folds(targets, groups, where="clips")


def test_a_class_without_rows_is_named():
    check_classes([0, 1, 1], [0, 1], "clips")
    with pytest.raises(CerError, match=r"0 rows of the class Disgust.*clips"):
        check_classes([0, 1, 1], [0, 1, 2], "clips")
    with pytest.raises(CerError, match="no rows"):
        check_classes([], [0], "clips")
