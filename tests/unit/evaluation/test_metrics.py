"""Every score equals an independent naive version, and intervals follow the groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline import metrics as m

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=60)
CLASSES = st.sets(st.integers(0, 7), min_size=1).map(sorted)


def naive_scores(pairs, classes):
    """Recall and F1 per class by counting, 0 where a ratio has no denominator."""
    rows = []
    for c in classes:
        tp = sum(1 for t, p in pairs if t == c and p == c)
        fp = sum(1 for t, p in pairs if t != c and p == c)
        fn = sum(1 for t, p in pairs if t == c and p != c)
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn) if tp + fn else 0.0
        rows.append((recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0))
    return np.array(rows)


@settings(max_examples=150, deadline=None)
@given(PAIRS, CLASSES)
def test_scores_of_hard_predictions_equal_counting(pairs, classes):
    truth, predicted = zip(*pairs, strict=True)
    matrix = m.confusion(truth, predicted)
    naive = naive_scores(pairs, classes)
    np.testing.assert_allclose(m.recall(matrix, classes), naive[:, 0], atol=1e-12)
    np.testing.assert_allclose(m.f1(matrix, classes), naive[:, 1], atol=1e-12)
    assert m.macro_f1(matrix, classes) == pytest.approx(naive[:, 1].mean(), abs=1e-12)
    assert m.uar(matrix, classes) == pytest.approx(naive[:, 0].mean(), abs=1e-12)
    assert m.accuracy(matrix, classes) == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))


def test_the_union_rule_is_scikit_learns_default():
    from sklearn.metrics import f1_score, recall_score

    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 6, 50), rng.integers(2, 8, 50)
    over = m.union_classes(truth, predicted)
    matrix = m.confusion(truth, predicted)
    assert m.macro_f1(matrix, over) == pytest.approx(f1_score(truth, predicted, average="macro"))
    labelled = recall_score(truth, predicted, average="macro", labels=list(over), zero_division="warn")
    assert m.uar(matrix, over) == pytest.approx(labelled)


def test_a_class_outside_the_fixed_ones_costs_recall_but_is_not_averaged():
    truth, predicted = [0, 1, 1], [0, 1, 7]
    matrix = m.confusion(truth, predicted)
    assert m.uar(matrix, [0, 1]) == pytest.approx((1 + 0.5) / 2)
    assert m.uar(matrix, m.union_classes(truth, predicted)) == pytest.approx((1 + 0.5 + 0) / 3)


def naive_bootstrap(metric, truth, predicted, groups, classes, resamples, seed):
    """Rows are copied group by group and scored anew, with the same draws of groups."""
    names = sorted(set(groups))
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        row = generator.integers(0, len(names), size=len(names))
        rows = [i for g in row for i in range(len(groups)) if groups[i] == names[g]]
        draws.append(metric([(truth[i], predicted[i]) for i in rows], classes))
    return np.quantile(draws, [0.025, 0.975])


def test_bootstrap_equals_copying_whole_groups():
    rng = np.random.default_rng(1)
    truth, groups = rng.integers(0, 4, 40), [f"v{i}" for i in rng.integers(0, 9, 40)]
    predicted = np.where(rng.random(40) < 0.6, truth, rng.integers(0, 4, 40))
    score = m.bootstrap(m.macro_f1, truth, predicted, groups, range(4), resamples=100, seed=5)
    naive = naive_bootstrap(lambda p, c: naive_scores(p, c)[:, 1].mean(), truth, predicted, groups, range(4), 100, 5)
    np.testing.assert_allclose([score.low, score.high], naive, atol=1e-12)
    pairs = list(zip(truth, predicted, strict=True))
    assert score.value == pytest.approx(naive_scores(pairs, range(4))[:, 1].mean())
    assert score.groups == len(set(groups))


def test_one_group_has_an_interval_of_no_width_and_more_groups_narrow_it():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 7, 400)
    predicted = np.where(rng.random(400) < 0.5, truth, rng.integers(0, 7, 400))
    widths = []
    for count in (1, 10, 400):
        s = m.bootstrap(m.uar, truth, predicted, np.arange(400) % count, range(7), resamples=300)
        widths.append(s.high - s.low)
        assert s.low <= s.value <= s.high
    assert widths[0] == 0
    assert widths[2] > 0


def test_a_paired_comparison_is_antisymmetric_and_sees_a_better_system():
    rng = np.random.default_rng(3)
    truth, groups = rng.integers(0, 7, 500), np.arange(500) // 5
    good = np.where(rng.random(500) < 0.8, truth, rng.integers(0, 7, 500))
    poor = np.where(rng.random(500) < 0.3, truth, rng.integers(0, 7, 500))
    ab = m.paired_bootstrap(m.macro_f1, truth, good, poor, groups, range(7), resamples=400)
    ba = m.paired_bootstrap(m.macro_f1, truth, poor, good, groups, range(7), resamples=400)
    assert ab.low > 0
    assert (ab.value, ab.low, ab.high) == pytest.approx((-ba.value, -ba.high, -ba.low))
    same = m.paired_bootstrap(m.macro_f1, truth, good, good, groups, range(7), resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    value = m.bootstrap(m.macro_f1, truth, good, groups, range(7), resamples=10).value
    assert ab.value == pytest.approx(value - m.bootstrap(m.macro_f1, truth, poor, groups, range(7), resamples=10).value)


def naive_ece(p, truth, bins):
    total = 0.0
    for k in range(bins):
        inside = [i for i in range(len(p)) if k / bins < p[i].max() <= (k + 1) / bins]
        if inside:
            confidence = sum(p[i].max() for i in inside) / len(inside)
            right = sum(p[i].argmax() == truth[i] for i in inside) / len(inside)
            total += len(inside) / len(p) * abs(right - confidence)
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.sampled_from([1, 7, 15]))
def test_calibration_error_and_log_loss_equal_the_sums_of_their_definition(seed, n, bins):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(8) * 0.4, n)
    truth = rng.integers(0, 8, n)
    assert m.expected_calibration_error(p, truth, bins) == pytest.approx(naive_ece(p, truth, bins), abs=1e-9)
    assert m.log_loss(p, truth) == pytest.approx(-sum(math.log(max(p[i, t], 1e-12)) for i, t in enumerate(truth)) / n)
    assert m.reliability(p, truth, bins).count.sum() == n


def test_a_sure_and_right_system_is_calibrated_and_a_sure_and_wrong_one_is_not():
    p = np.eye(8)[[0, 1, 2]]
    assert m.expected_calibration_error(p, [0, 1, 2]) == 0
    assert m.expected_calibration_error(p, [1, 2, 3]) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.confusion([0, 1], [0]),
        lambda: m.confusion([0, -1], [0, 0]),
        lambda: m.confusion([0, 8], [0, 0]),
        lambda: m.confusion([0.5], [0]),
        lambda: m.bootstrap(m.uar, [], [], [], range(7)),
        lambda: m.bootstrap(m.uar, [0, 1], [0, 1], ["a"], range(7)),
        lambda: m.reliability([[0.5, 1.5]], [0]),
        lambda: m.expected_calibration_error(np.empty((0, 8)), []),
    ],
)
def test_what_cannot_be_scored_is_refused(call):
    with pytest.raises(ValueError, match=r"labels|label|probab"):
        call()
