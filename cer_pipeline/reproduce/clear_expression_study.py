"""The two thresholds of the section [report] of the profile, from which on an expression is named.

Belongs here: their choice, on labelled data. Does not belong here: the rule that applies them (`compound.clear`).

An expression is named where naming it is right more often than wrong:

* `least_expressed`: CREMA-D votes. The votes of people who saw only the face and of people who heard only the voice are
  taken as two branches, fused with equal weights; naming an expression is right where most of those who saw and heard
  both voted for one, and not for Neutral. Actors that the fusion is tested on are left out.
* `least_confidence`: GoEmotions sentences with exactly the two labels of one compound, classified as in
  `compound_mapping_study` by a classifier that was trained without compounds; naming the first compound of PPA is right
  where it is the labelled one.

The share of right answers is fitted as a non-decreasing function of the measure (isotonic regression: Barlow et al.
1972), and the threshold is the least value at which it reaches 1/2, so neither bins nor the form of a curve are chosen.
The interval resamples actors and sentences.

    python -m cer_pipeline.reproduce.clear_expression_study GOEMOTIONS VOTES.csv OUT

It takes some twenty minutes of one core, most of it MiniLM over 13,600 sentences, whose states are kept in OUT.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.compound.ppa import ppa
from cer_pipeline.corpora.formats.utterances import read_goemotions
from cer_pipeline.corpora.formats.votes import Votes, read_votes
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask, combine, equal_weights
from cer_pipeline.fusion.uncertainty import confidence, expressed
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.reproduce.compound_mapping_study import classify, encoded, rows_of
from cer_pipeline.reproduce.crema_d_votes import LAST_TRAINING_ACTOR, widened

HALF: Final = 0.5  # right more often than wrong
RESAMPLES: Final = 200  # enough for two digits of an interval
SEED: Final = 0


@dataclass(frozen=True)
class Threshold:
    """A threshold, and the units on each side of it.

    Args:
        value: least value of the measure at which the fitted share reaches 1/2; NaN where it never does.
        low: lower end of its 95 % interval.
        high: upper end.
        below: number of units below it, share of them with a right answer, and share for which the best constant answer
            is right (NaN where there is no other answer).
        above: the same for the units at or above it.
    """

    value: float
    low: float
    high: float
    below: tuple[int, float, float]
    above: tuple[int, float, float]


def crossing(measure: Array, right: Mask) -> float:
    """Return the least value of a measure at which the isotonic fit of the share of right answers reaches 1/2.

    Args:
        measure: of every unit [n].
        right: whether the answer is right [n].

    Returns:
        A value of the measure; NaN where the share is below 1/2 throughout.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(measure, right.astype(np.float64)).predict(measure)
    return float(measure[fitted >= HALF].min(initial=np.inf)) if (fitted >= HALF).any() else float("nan")


def choose(measure: Array, right: Mask, constant: Mask | None, groups: Sequence[int] | NDArray[np.int64]) -> Threshold:
    """Choose the threshold of a measure.

    Args:
        measure: of every unit [n].
        right: whether the answer is right [n].
        constant: whether the best constant answer is right [n]; None where there is no other answer.
        groups: group that is resampled as a whole [n].
    """
    value = crossing(measure, right)
    rng = np.random.default_rng(SEED)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(member == i) for i in range(len(names))]
    resampled = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        resampled.append(crossing(measure[drawn], right[drawn]))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    other = np.full(len(measure), np.nan) if constant is None else constant.astype(np.float64)
    sides = [
        (int(s.sum()), float(right[s].mean()), float(other[s].mean())) for s in (measure < value, measure >= value)
    ]
    return Threshold(value, float(low), float(high), sides[0], sides[1])


def least_expressed(votes: Votes) -> Threshold:
    """Choose the threshold on `expressed`, from votes on the clips of the training actors."""
    training = votes.part(votes.actors <= LAST_TRAINING_ACTOR)
    branches = widened(training.probabilities)
    present = np.ones(branches.shape[:2], dtype=bool)
    fused, _ = combine(equal_weights(present, len(BASIC)), branches, present)
    right: Mask = expressed(widened(training.targets)) > HALF
    return choose(expressed(fused), right, None, training.actors)


def least_confidence(compound: Array, truth: NDArray[np.int64]) -> Threshold:
    """Choose the threshold on the margin between compounds.

    Args:
        compound: distributions [n, 7].
        truth: the labelled compound [n].
    """
    most_frequent = int(np.bincount(truth, minlength=len(COMPOUND)).argmax())
    right: Mask = compound.argmax(axis=1) == truth
    return choose(confidence(compound), right, truth == most_frequent, range(len(truth)))


def _on_goemotions(folder: Path, out: Path) -> Threshold:
    from cer_pipeline.zoo import open_zoo

    rows = [row for split in ("train", "dev") for row in read_goemotions(folder, split)]
    train, test = rows_of(rows)
    train_states, test_states = encoded([train, [row for row, _ in test]], open_zoo().path("minilm"), out)
    basic = classify(train_states, np.array([row.labels[0] for row in train]), test_states)
    return least_confidence(ppa(basic), np.array([k for _, k in test]))


def main(arguments: Sequence[str]) -> int:
    """Print both thresholds."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m cer_pipeline.reproduce.clear_expression_study GOEMOTIONS VOTES.csv OUT\n")
        return 2
    goemotions, votes, out = map(Path, arguments)
    try:
        _print("least_expressed", least_expressed(read_votes(votes)))
        _print("least_confidence", _on_goemotions(goemotions, out))
    except CerError as error:
        sys.stderr.write(error.line() + "\n")
        return 2
    return 0


def _print(name: str, threshold: Threshold) -> None:
    lines = [f"{name} {threshold.value:.3f} [{threshold.low:.3f}, {threshold.high:.3f}]"]
    for side, (n, share, constant) in (("below", threshold.below), ("at or above", threshold.above)):
        against = "" if np.isnan(constant) else f"; the best constant answer: {constant:.3f}"
        lines.append(f"  {side}: {n} units, {share:.3f} right{against}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
