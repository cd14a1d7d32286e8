"""The protocols: the units and classes that count, and the scores of one system under each protocol.

Belongs here: computing rows of the table `metrics` from the labels and predictions of one split. Does not belong here:
the formulas (`metrics`) or reading tables (`read`).

A *task* is a set of labelled units, segments or frames, with one vocabulary: 8 basic emotions or 7 compounds. A system
*serves* a unit where it has a prediction. The protocols:

* `segment`, `frame`: over the served units, with fixed classes: those that the corpus annotates anywhere
  (7 on AFEW, 8 on AffWild2). `segment` is the paper's (argmax of the soft label); `frame` is that of the ABAW
  challenge: macro-F1 over the frames with a valid label (Kollias 2022, "ABAW: Valence-arousal estimation, ...").
* `segment_union`, `frame_union`: the same with the class rule of the paper: classes labelled or predicted.
* `segment_all`, `frame_all`: over all labelled units; a unit that is not served counts as wrong, as the challenge
  counts a frame without a prediction. Only this protocol compares systems of different coverage.
* `segment_paired`, `frame_paired`: differences A - B over the units that both serve. A is better than B where the
  interval lies above 0.

Scores are in percent, except the log loss (nats) and the coverage (0..1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline import metrics
from cer_pipeline.metrics import Metric, Score
from cer_pipeline.status import Status

NONE: Final = -1  # the prediction of a unit that is not served
SEGMENT: Final = "segment"
FRAME: Final = "frame"
UNION: Final = "_union"
ALL: Final = "_all"
PAIRED: Final = "_paired"

MEANS: Final[Mapping[str, Metric]] = {
    "macro_f1": metrics.macro_f1,
    "uar": metrics.uar,
    "average": metrics.average,
}
"""Scores that are means over classes; `average` is the mean of the other two, as in the paper's Table 1."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """Labelled units of one split.

    Args:
        split: the split.
        level: SEGMENT or FRAME.
        names: the vocabulary.
        classes: indices into the vocabulary that a mean is taken over.
        truth: class of every unit [n].
        videos: source video of every unit [n]; the bootstrap resamples videos.
    """

    split: str
    level: str
    names: tuple[str, ...]
    classes: tuple[int, ...]
    truth: Ints
    videos: NDArray[np.object_]


@dataclass(frozen=True)
class System:
    """The predictions of one system for the units of a task.

    Args:
        name: name in the table.
        predicted: class of every unit [n]; NONE without a prediction.
        probabilities: distributions [n, classes], NaN without a prediction; None where only classes are known.
        status: the most frequent status of units without a prediction; ok where all units are served.
        reason: the reason of a unit with that status.
    """

    name: str
    predicted: Ints
    probabilities: Floats | None = None
    status: str = str(Status.OK)
    reason: str | None = None

    @classmethod
    def of(cls, name: str, probabilities: Floats, status: str = str(Status.OK), reason: str | None = None) -> System:
        """A system that predicts the most probable class of its distributions, the first of a tie."""
        return cls(name, top(probabilities), probabilities, status, reason)


@dataclass(frozen=True)
class MetricRow:
    """One row of the table `metrics`."""

    split: str
    protocol: str
    system: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    coverage: float
    status: str = str(Status.OK)
    reason: str | None = None


def top(probabilities: Floats) -> Ints:
    """The most probable class of every row [n], the first of a tie; NONE for rows with a NaN."""
    known: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
    return np.where(known, np.where(known[:, None], probabilities, 0.0).argmax(axis=1), NONE)


def annotated_classes(shares: Floats) -> tuple[int, ...]:
    """The annotated classes: columns of label distributions [n, classes] that are not all 0."""
    return tuple(int(c) for c in np.flatnonzero((shares > 0).any(axis=0)))


def score(task: Task, system: System, resamples: int = metrics.RESAMPLES) -> list[MetricRow]:
    """All rows of one system except comparisons.

    Args:
        task: labelled units.
        system: predictions for these units.
        resamples: number of resamples of every interval.

    Raises:
        ValueError: the task has no units, or lengths differ.
    """
    served = system.predicted != NONE
    if not len(task.truth):
        raise ValueError("a task without units cannot be scored")
    if served.any():
        rows = _served(task, system, served, resamples) + _union(task, system, served, resamples)
    else:
        rows = [_row(task, "", system, name, None, 0, 0.0) for name in MEANS]
    return rows + _all(task, system, served, resamples)


def compare(task: Task, first: System, second: System, resamples: int = metrics.RESAMPLES) -> list[MetricRow]:
    """Rows of the differences `first` - `second` over the units that both serve; none without such a unit."""
    both = (first.predicted != NONE) & (second.predicted != NONE)
    if not both.any():
        return []
    scores = metrics.paired_bootstraps(
        _over(MEANS, task.classes),
        task.truth[both],
        first.predicted[both],
        second.predicted[both],
        task.videos[both],
        size=len(task.names),
        resamples=resamples,
    )
    pair = System(f"{first.name} - {second.name}", first.predicted)
    share = float(both.mean())
    return [_row(task, PAIRED, pair, name, s, int(both.sum()), share) for name, s in scores.items()]


def confusion(task: Task, system: System) -> Ints:
    """Confusion matrix [classes, classes] of the served units over the whole vocabulary; rows are labels."""
    served = system.predicted != NONE
    return metrics.confusion(task.truth[served], system.predicted[served], len(task.names))


def calibration(task: Task, system: System) -> metrics.Reliability | None:
    """Reliability of the confidence of a system; None without probabilities."""
    rows = system.predicted != NONE
    if system.probabilities is None or not rows.any():
        return None
    return metrics.reliability(system.probabilities[rows], task.truth[rows])


def _served(task: Task, system: System, served: NDArray[np.bool_], resamples: int) -> list[MetricRow]:
    wanted: dict[str, tuple[Metric, Sequence[int]]] = dict(_over(MEANS, task.classes))
    wanted["accuracy"] = (metrics.accuracy, ())
    for c in task.classes:  # the mean over one class is the score of that class
        wanted[f"f1/{task.names[c]}"] = (metrics.macro_f1, (c,))
        wanted[f"recall/{task.names[c]}"] = (metrics.uar, (c,))
    n, share = int(served.sum()), float(served.mean())
    scores = _bootstraps(task, system, served, wanted, resamples)
    rows = [_row(task, "", system, name, s, n, share) for name, s in scores.items()]
    if system.probabilities is not None:
        p, truth = system.probabilities[served], task.truth[served]
        ece = 100 * metrics.expected_calibration_error(p, truth)
        for name, value in (("ece", ece), ("log_loss", metrics.log_loss(p, truth))):
            rows.append(MetricRow(task.split, task.level, system.name, name, value, None, None, n, share))
    return rows


def _union(task: Task, system: System, served: NDArray[np.bool_], resamples: int) -> list[MetricRow]:
    classes = metrics.union_classes(task.truth[served], system.predicted[served])
    n, share = int(served.sum()), float(served.mean())
    scores = _bootstraps(task, system, served, _over(MEANS, classes), resamples)
    return [_row(task, UNION, system, name, s, n, share) for name, s in scores.items()]


def _all(task: Task, system: System, served: NDArray[np.bool_], resamples: int) -> list[MetricRow]:
    """Scores over all units, where a unit that is not served is predicted as a class that no label has."""
    size = len(task.names)
    predicted = np.where(served, system.predicted, size)
    scores = metrics.bootstraps(
        _over(MEANS, task.classes), task.truth, predicted, task.videos, size=size + 1, resamples=resamples
    )
    share = float(served.mean())
    return [_row(task, ALL, system, name, s, len(predicted), share) for name, s in scores.items()]


def _bootstraps(
    task: Task,
    system: System,
    rows: NDArray[np.bool_],
    wanted: Mapping[str, tuple[Metric, Sequence[int]]],
    resamples: int,
) -> dict[str, Score]:
    return metrics.bootstraps(
        wanted,
        task.truth[rows],
        system.predicted[rows],
        task.videos[rows],
        size=len(task.names),
        resamples=resamples,
    )


def _over(means: Mapping[str, Metric], classes: Sequence[int]) -> dict[str, tuple[Metric, Sequence[int]]]:
    return {name: (metric, classes) for name, metric in means.items()}


def _row(task: Task, kind: str, system: System, name: str, s: Score | None, n: int, coverage: float) -> MetricRow:
    protocol = f"{task.level}{kind}"
    if s is None:
        status, reason = system.status, system.reason
        if status == Status.OK:  # every window has a value, and no labelled unit lies in a window
            status, reason = str(Status.NO_LABEL), f"no labelled {task.level} is one that was analysed"
        return MetricRow(task.split, protocol, system.name, name, None, None, None, n, coverage, status, reason)
    value, low, high = (100 * v for v in (s.value, s.low, s.high))
    return MetricRow(task.split, protocol, system.name, name, value, low, high, n, coverage)
