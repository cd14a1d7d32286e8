"""The protocols: which units and classes count, and the scores of one system under each of them.

Belongs here: from labels and predictions of one split to cells of the table `metrics`. Does not belong here: the
formulas (`metrics`) or reading tables (`read`).

A *task* is a set of labelled units, segments or frames, with one vocabulary: 8 basic emotions or 7 compounds. The
protocols:

* `segment`, `frame`: over the units that the system serves, classes fixed: those that the corpus annotates anywhere
  (7 on AFEW, 8 on AffWild2). `segment` is the paper's (argmax of the soft label); `frame` is that of the ABAW
  challenge: macro-F1 over the frames with a valid label (Kollias 2022, "ABAW: Valence-arousal estimation, ...").
* `segment_union`, `frame_union`: the same with the paper's rule for classes: those labelled or predicted.
* `segment_all`, `frame_all`: over all labelled units; a unit that the system could not serve counts as wrong, as the
  challenge counts a frame without an answer. Systems of unlike coverage are comparable here alone.
* `segment_paired`, `frame_paired`: differences A - B over the units that both serve. A beats B where the interval lies
  above 0.

Percent everywhere but for the log loss (nats) and the coverage (0..1).
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

NONE: Final = -1  # the prediction of a unit that the system could not serve
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
        classes: positions in it that a mean goes over.
        truth: class of every unit [n].
        videos: source video of every unit [n]: what is resampled.
    """

    split: str
    level: str
    names: tuple[str, ...]
    classes: tuple[int, ...]
    truth: Ints
    videos: NDArray[np.object_]


@dataclass(frozen=True)
class System:
    """What one system says about the units of a task.

    Args:
        name: its name in the table.
        predicted: class of every unit [n]; NONE where it has no value.
        probabilities: distributions [n, classes], NaN where it has no value; None where only the classes are known.
        status: why units have no value: the most frequent status among them; ok where it serves all.
        reason: the reason of one of these.
    """

    name: str
    predicted: Ints
    probabilities: Floats | None = None
    status: str = str(Status.OK)
    reason: str | None = None

    @classmethod
    def of(cls, name: str, probabilities: Floats, status: str = str(Status.OK), reason: str | None = None) -> System:
        """A system from its distributions: the most probable class, the first one of a tie."""
        return cls(name, top(probabilities), probabilities, status, reason)


@dataclass(frozen=True)
class MetricRow:
    """One number of an evaluation; fields as in the table `metrics`."""

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
    """The most probable class of every row [n], the first one of a tie; NONE for rows with a NaN."""
    known: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
    return np.where(known, np.where(known[:, None], probabilities, 0.0).argmax(axis=1), NONE)


def annotated_classes(shares: Floats) -> tuple[int, ...]:
    """The classes that anyone annotated: columns of label distributions [n, classes] that are not all 0."""
    return tuple(int(c) for c in np.flatnonzero((shares > 0).any(axis=0)))


def score(task: Task, system: System, resamples: int = metrics.RESAMPLES) -> list[MetricRow]:
    """All cells of one system but the paired ones.

    Args:
        task: labelled units.
        system: what the system says about them.
        resamples: number of resamples behind every interval.

    Raises:
        ValueError: the task has no units, or lengths differ.
    """
    served = system.predicted != NONE
    if not len(task.truth):
        raise ValueError("a task without units cannot be scored")
    cells = []
    if served.any():
        cells += _served(task, system, served, resamples)
        cells += _union(task, system, served, resamples)
    else:
        cells += [_cell(task, "", system, name, None, 0, 0.0) for name in MEANS]
    return cells + _all(task, system, served, resamples)


def compare(task: Task, first: System, second: System, resamples: int = metrics.RESAMPLES) -> list[MetricRow]:
    """The differences `first` - `second` over the units that both serve; none where there is no such unit."""
    both = (first.predicted != NONE) & (second.predicted != NONE)
    if not both.any():
        return []
    found = metrics.paired_bootstraps(
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
    return [_cell(task, PAIRED, pair, name, s, int(both.sum()), share) for name, s in found.items()]


def confusion(task: Task, system: System) -> Ints:
    """Counts [classes, classes] over the whole vocabulary of the units served: rows are labels."""
    served = system.predicted != NONE
    return metrics.confusion(task.truth[served], system.predicted[served], len(task.names))


def calibration(task: Task, system: System) -> metrics.Reliability | None:
    """The reliability of a system's confidence; None where it has no probabilities."""
    rows = system.predicted != NONE
    if system.probabilities is None or not rows.any():
        return None
    return metrics.reliability(system.probabilities[rows], task.truth[rows])


def _served(task: Task, system: System, served: NDArray[np.bool_], resamples: int) -> list[MetricRow]:
    wanted: dict[str, tuple[Metric, Sequence[int]]] = dict(_over(MEANS, task.classes))
    wanted["accuracy"] = (metrics.accuracy, ())
    for c in task.classes:  # the mean over one class is that class's own score
        wanted[f"f1/{task.names[c]}"] = (metrics.macro_f1, (c,))
        wanted[f"recall/{task.names[c]}"] = (metrics.uar, (c,))
    n, share = int(served.sum()), float(served.mean())
    cells = [
        _cell(task, "", system, name, s, n, share) for name, s in _bootstraps(task, system, served, wanted, resamples)
    ]
    if system.probabilities is not None:
        p, truth = system.probabilities[served], task.truth[served]
        ece = 100 * metrics.expected_calibration_error(p, truth)
        for name, value in (("ece", ece), ("log_loss", metrics.log_loss(p, truth))):
            cells.append(MetricRow(task.split, task.level, system.name, name, value, None, None, n, share))
    return cells


def _union(task: Task, system: System, served: NDArray[np.bool_], resamples: int) -> list[MetricRow]:
    classes = metrics.union_classes(task.truth[served], system.predicted[served])
    n, share = int(served.sum()), float(served.mean())
    found = _bootstraps(task, system, served, _over(MEANS, classes), resamples)
    return [_cell(task, UNION, system, name, s, n, share) for name, s in found]


def _all(task: Task, system: System, served: NDArray[np.bool_], resamples: int) -> list[MetricRow]:
    """With one more class, which nobody is labelled with and which stands for no answer."""
    size = len(task.names)
    guess = np.where(served, system.predicted, size)
    found = metrics.bootstraps(
        _over(MEANS, task.classes), task.truth, guess, task.videos, size=size + 1, resamples=resamples
    )
    share = float(served.mean())
    return [_cell(task, ALL, system, name, s, len(guess), share) for name, s in found.items()]


def _bootstraps(
    task: Task,
    system: System,
    rows: NDArray[np.bool_],
    wanted: Mapping[str, tuple[Metric, Sequence[int]]],
    resamples: int,
) -> list[tuple[str, Score]]:
    found = metrics.bootstraps(
        wanted,
        task.truth[rows],
        system.predicted[rows],
        task.videos[rows],
        size=len(task.names),
        resamples=resamples,
    )
    return list(found.items())


def _over(means: Mapping[str, Metric], classes: Sequence[int]) -> dict[str, tuple[Metric, Sequence[int]]]:
    return {name: (metric, classes) for name, metric in means.items()}


def _cell(task: Task, kind: str, system: System, name: str, s: Score | None, n: int, coverage: float) -> MetricRow:
    protocol = f"{task.level}{kind}"
    if s is None:
        status, reason = system.status, system.reason
        if status == Status.OK:  # every window has a value, and no labelled unit lies in one
            status, reason = str(Status.NO_LABEL), f"no labelled {task.level} is one that was analysed"
        return MetricRow(task.split, protocol, system.name, name, None, None, None, n, coverage, status, reason)
    value, low, high = (100 * v for v in (s.value, s.low, s.high))
    return MetricRow(task.split, protocol, system.name, name, value, low, high, n, coverage)
