"""Scores of class predictions with their intervals: macro-F1, UAR, per class, calibration, bootstrap by group.

Belongs here: computation on integer labels and probabilities, with numpy only. Does not belong here: which classes,
groups and rows a corpus is scored on (`evaluation.protocols`) or reading tables.

Every score of hard predictions is computed from a confusion matrix, so a bootstrap over groups needs one matrix per
group and no pass over the rows. Labels are indices into a vocabulary of `size` classes (8 basic emotions by default).

There are two rules for the classes of a mean. *Fixed*: the classes that the corpus annotates (7 on AFEW, which has no
Other), whatever a system predicts. *Union*: the classes that occur in the labels or in the predictions, as in the
evaluation of the paper (the default of scikit-learn); it is lower by 1/8 for a system that predicts Other on AFEW. A
class without a label and without a prediction scores 0, as with `zero_division=0` of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cer_pipeline.labels import BASIC

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES: Final = 2000  # a 95 % limit then moves by about 0.1 points of macro-F1 between seeds
LEVEL: Final = 0.95
BINS: Final = 15  # bins of the reliability plot, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"
_CHUNK: Final = 64  # least number of resamples drawn at once: 100,000 groups then take less than 60 MB
_DRAWS: Final = 1_000_000  # groups drawn at once, so that few groups take all resamples in one step


class Metric(Protocol):
    """A score of confusion matrices [..., size, size] over some of their classes."""

    def __call__(self, matrix: NDArray[Any], over: Sequence[int], /) -> Floats:
        """The score of each matrix."""
        ...


def confusion(truth: ArrayLike, predicted: ArrayLike, size: int = len(BASIC)) -> Ints:
    """Counts [size, size]: rows are labels, columns are predictions.

    Raises:
        ValueError: lengths differ, or an index lies outside 0..size-1.
    """
    truth, predicted = _labels(truth, size), _labels(predicted, size)
    if truth.shape != predicted.shape:
        raise ValueError(f"{len(truth)} labels for {len(predicted)} predictions")
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def union_classes(truth: ArrayLike, predicted: ArrayLike) -> tuple[int, ...]:
    """Classes of the union rule: those that are labelled or predicted at least once, ascending."""
    return tuple(int(c) for c in np.union1d(np.asarray(truth), np.asarray(predicted)))


def f1(matrix: NDArray[Any], over: Sequence[int]) -> Floats:
    """F1 per class [..., len(over)]: 2 TP / (2 TP + FP + FN), 0 where the class does not occur."""
    return _ratio(2 * _diagonal(matrix), matrix.sum(-1) + matrix.sum(-2), over)


def recall(matrix: NDArray[Any], over: Sequence[int]) -> Floats:
    """Recall per class [..., len(over)]: TP / labelled, 0 where the class is not labelled."""
    return _ratio(_diagonal(matrix), matrix.sum(-1), over)


def macro_f1(matrix: NDArray[Any], over: Sequence[int]) -> Floats:
    """Mean F1 over the classes `over`, of one confusion matrix or of a stack of them."""
    return f1(matrix, over).mean(-1)


def uar(matrix: NDArray[Any], over: Sequence[int]) -> Floats:
    """Unweighted average recall over the classes `over`, of one confusion matrix or of a stack of them."""
    return recall(matrix, over).mean(-1)


def average(matrix: NDArray[Any], over: Sequence[int]) -> Floats:
    """Mean of macro-F1 and UAR: "Average" in the paper."""
    return (macro_f1(matrix, over) + uar(matrix, over)) / 2


def accuracy(matrix: NDArray[Any], _over: Sequence[int] = ()) -> Floats:
    """Share of correct predictions over all classes; the classes of the second argument are not used."""
    return _divide(np.asarray(_diagonal(matrix).sum(-1), np.float64), matrix.sum((-1, -2)))


@dataclass(frozen=True)
class Score:
    """A value with its interval; for a paired comparison, the difference A - B."""

    value: float
    low: float
    high: float
    level: float
    resamples: int
    groups: int

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"

    @property
    def percent(self) -> list[float]:
        """[value, low, high] in percent with two decimals, the form of scores in JSON."""
        return [round(100 * float(v), 2) for v in (self.value, self.low, self.high)]


def span(percent: Sequence[float]) -> str:
    """Format `Score.percent` for model cards: "43.84 [38.43, 48.84]"."""
    value, low, high = percent
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def bootstrap(
    metric: Metric,
    truth: ArrayLike,
    predicted: ArrayLike,
    groups: ArrayLike,
    over: Sequence[int],
    *,
    size: int = len(BASIC),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Score:
    """A score with its percentile interval over resampled groups.

    Whole groups (source videos, speakers) are drawn with replacement, because the segments of one video are not
    independent observations.

    Args:
        metric: `macro_f1`, `uar`, or another function of confusion matrices.
        truth: labels [n].
        predicted: predictions [n].
        groups: the group of each row [n], of any type.
        over: classes of the mean, the same in every resample.
        size: number of classes of the vocabulary.
        resamples: number of resamples.
        level: share of resamples inside the interval.
        seed: seed of the resampling.

    Raises:
        ValueError: no rows, lengths differ, or an index lies outside the vocabulary.
    """
    scores = bootstraps(
        {"": (metric, over)}, truth, predicted, groups, size=size, resamples=resamples, level=level, seed=seed
    )
    return scores[""]


def bootstraps(
    wanted: Mapping[str, tuple[Metric, Sequence[int]]],
    truth: ArrayLike,
    predicted: ArrayLike,
    groups: ArrayLike,
    *,
    size: int = len(BASIC),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Score]:
    """Several scores of the same rows with intervals over the same resampled groups.

    Args:
        wanted: name -> the score and the classes of its mean; a single class gives the score of that class.
        truth: labels [n].
        predicted: predictions [n].
        groups: the group of each row [n], of any type.
        size: number of classes of the vocabulary.
        resamples: number of resamples.
        level: share of resamples inside the interval.
        seed: seed of the resampling.

    Raises:
        ValueError: as in `bootstrap`.
    """
    matrices = _by_group(truth, predicted, groups, size)
    whole, draws = matrices.sum(0), {name: [] for name in wanted}
    for chunk in _resampled([matrices], resamples, seed):
        for name, (metric, over) in wanted.items():
            draws[name].append(metric(chunk, over))
    return {
        name: _score(float(metric(whole, over)), np.concatenate(draws[name]), level, len(matrices))
        for name, (metric, over) in wanted.items()
    }


def card_scores(
    truth: ArrayLike,
    predicted: ArrayLike,
    groups: ArrayLike,
    names: Mapping[int, str],
    *,
    size: int = len(BASIC),
) -> dict[str, Any]:
    """Macro-F1, UAR, and F1 and recall by class, as `Score.percent`: the form of `<branch>.scores.json`.

    Args:
        truth: labels [n].
        predicted: predictions [n].
        groups: the group of each row [n], which resamples draw as a whole.
        names: class of the means -> its name.
        size: number of classes of the vocabulary.

    Returns:
        `macro_f1` and `uar`, and `f1` and `recall`, each a mapping of class names.
    """
    by_class: dict[str, Metric] = {"f1": macro_f1, "recall": uar}
    wanted: dict[str, tuple[Metric, Sequence[int]]] = {"macro_f1": (macro_f1, list(names)), "uar": (uar, list(names))}
    wanted |= {f"{key}/{c}": (metric, [c]) for key, metric in by_class.items() for c in names}
    percent = {key: score.percent for key, score in bootstraps(wanted, truth, predicted, groups, size=size).items()}
    parts = {key: {name: percent[f"{key}/{c}"] for c, name in names.items()} for key in by_class}
    return {"macro_f1": percent["macro_f1"], "uar": percent["uar"], **parts}


def paired_bootstrap(
    metric: Metric,
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    over: Sequence[int],
    *,
    size: int = len(BASIC),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Score:
    """The difference `first` - `second` of a score, with its interval over the same resampled groups for both.

    `first` is better than `second` at the level where the interval lies above 0. Arguments and errors as in
    `bootstrap`.
    """
    scores = paired_bootstraps(
        {"": (metric, over)}, truth, first, second, groups, size=size, resamples=resamples, level=level, seed=seed
    )
    return scores[""]


def paired_bootstraps(
    wanted: Mapping[str, tuple[Metric, Sequence[int]]],
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    size: int = len(BASIC),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Score]:
    """Several differences `first` - `second` over the same resampled groups. Arguments as in `bootstraps`."""
    a, b = _by_group(truth, first, groups, size), _by_group(truth, second, groups, size)
    draws = {name: [] for name in wanted}
    for chunk in _resampled([a, b], resamples, seed):
        for name, (metric, over) in wanted.items():
            draws[name].append(metric(chunk[..., :size, :], over) - metric(chunk[..., size:, :], over))
    return {
        name: _score(float(metric(a.sum(0), over) - metric(b.sum(0), over)), np.concatenate(draws[name]), level, len(a))
        for name, (metric, over) in wanted.items()
    }


@dataclass(frozen=True)
class Reliability:
    """The bins of a reliability plot; empty bins are left out.

    Args:
        confidence: mean probability of the predicted class in each bin.
        accuracy: share of correct predictions in each bin.
        count: rows in each bin.
    """

    confidence: Floats
    accuracy: Floats
    count: Ints


def reliability(probabilities: ArrayLike, truth: ArrayLike, bins: int = BINS) -> Reliability:
    """Confidence against accuracy in bins of equal width (k/bins, (k+1)/bins] of the largest probability.

    Args:
        probabilities: [n, classes], rows sum to 1.
        truth: labels [n].
        bins: number of bins.

    Raises:
        ValueError: no rows, lengths differ, or a value outside 0..1.
    """
    p = np.asarray(probabilities, np.float64)
    labels = _labels(truth, p.shape[1])
    if not len(p) or len(p) != len(labels):
        raise ValueError(f"{len(labels)} labels for {len(p)} rows of probabilities")
    if not ((p >= 0) & (p <= 1 + 1e-9)).all():
        raise ValueError("a probability lies outside 0..1")
    confidence, correct = p.max(1), p.argmax(1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    used = count > 0
    return Reliability(
        np.bincount(bin_of, confidence, bins)[used] / count[used],
        np.bincount(bin_of, correct, bins)[used] / count[used],
        count[used],
    )


def expected_calibration_error(probabilities: ArrayLike, truth: ArrayLike, bins: int = BINS) -> float:
    """Mean over rows of |accuracy - confidence| of their bin (Guo et al. 2017, equation 5)."""
    r = reliability(probabilities, truth, bins)
    return float((r.count * np.abs(r.accuracy - r.confidence)).sum() / r.count.sum())


def log_loss(probabilities: ArrayLike, truth: ArrayLike, floor: float = 1e-12) -> float:
    """Mean negative log-probability of the label, nats; probabilities below `floor` count as `floor`."""
    p = np.asarray(probabilities, np.float64)
    labels = _labels(truth, p.shape[1])
    return float(-np.log(np.maximum(p[np.arange(len(labels)), labels], floor)).mean())


def _labels(values: ArrayLike, size: int) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
        raise ValueError("labels must be one row of integers")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise ValueError(f"a label lies outside 0..{size - 1}")
    return array.astype(np.int64)


def _diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(top: NDArray[Any], bottom: NDArray[Any], over: Sequence[int]) -> Floats:
    index = list(over)
    return _divide(np.asarray(top, np.float64)[..., index], bottom[..., index])


def _divide(top: Floats, bottom: NDArray[Any]) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _by_group(truth: ArrayLike, predicted: ArrayLike, groups: ArrayLike, size: int) -> Ints:
    """One confusion matrix per group: [groups, size, size]."""
    truth, predicted, names = _labels(truth, size), _labels(predicted, size), np.asarray(groups)
    if not len(truth) or not len(truth) == len(predicted) == len(names):
        raise ValueError(f"{len(truth)} labels, {len(predicted)} predictions, {len(names)} groups")
    unique, index = np.unique(names, return_inverse=True)
    cells = len(unique) * size * size
    return np.bincount((index * size + truth) * size + predicted, minlength=cells).reshape(-1, size, size)


def _resampled(systems: Sequence[Ints], resamples: int, seed: int) -> Iterator[Floats]:
    """Confusion matrices of resampled groups, a chunk at a time: [chunk, systems x size, size]."""
    generator = np.random.default_rng(seed)
    stacked = np.concatenate(systems, axis=1).astype(np.float64)
    n, rows, columns = stacked.shape
    flat = stacked.reshape(n, -1)
    step = max(_CHUNK, _DRAWS // n)  # the draws do not depend on the step
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(0, n, size=(count, n))
        offset = np.arange(count)[:, None] * n
        weights = np.bincount((drawn + offset).ravel(), minlength=count * n).reshape(count, n).astype(np.float64)
        yield (weights @ flat).reshape(count, rows, columns)


def _score(value: float, draws: Floats, level: float, groups: int) -> Score:
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Score(value, float(low), float(high), level, len(draws), groups)
