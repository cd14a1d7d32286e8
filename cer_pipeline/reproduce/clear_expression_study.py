"""From which numbers on a compound may be shown as a finding: the two thresholds of the profile's [report].

Belongs here: that one choice, on labelled data. Does not belong here: the rule that applies it (`compound.clear`).

An expression is shown where naming it is right more often than wrong:

* `least_expressed`: CREMA-D votes. People who saw only the face and people who heard only the voice stand for two
  branches, fused with equal weights; naming an expression is right where most of those who saw and heard both voted for
  one, and not for Neutral. Actors that the fusion is tested on are left out.
* `least_confidence`: GoEmotions sentences with exactly the two labels of one compound, judged as in
  `compound_mapping_study` by a classifier that never saw a compound; naming the first compound of PPA is right where it
  is the labelled one.

The share that is right is fitted as a function that never falls (isotonic regression: Barlow et al. 1972), and the
threshold is the least value at which it reaches 1/2. So no width of a bin and no curve has to be chosen. The interval
resamples actors and sentences.

    python -m cer_pipeline.reproduce.clear_expression_study GOEMOTIONS VOTES.csv OUT

Some twenty minutes of one core, most of it MiniLM over 13,600 sentences; their states are kept in the folder OUT.
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
    """A threshold and what lies on each side of it.

    Args:
        value: least value of the measure at which the fitted share reaches 1/2; NaN where it never does.
        low: lower end of its 95 % interval.
        high: upper end.
        below: units below it, share of them that is right, and share that the best constant answer has right; NaN
            where there is no other answer.
        above: the same at or above it.
    """

    value: float
    low: float
    high: float
    below: tuple[int, float, float]
    above: tuple[int, float, float]


def crossing(measure: Array, right: Mask) -> float:
    """The least value of a measure at which the share of right answers, fitted to never fall, reaches 1/2.

    Args:
        measure: of every unit [n].
        right: whether the answer was right [n].

    Returns:
        A value of the measure; NaN where the share stays below 1/2.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(measure, right.astype(np.float64)).predict(measure)
    return float(measure[fitted >= HALF].min(initial=np.inf)) if (fitted >= HALF).any() else float("nan")


def choose(measure: Array, right: Mask, constant: Mask | None, groups: Sequence[int] | NDArray[np.int64]) -> Threshold:
    """The threshold of a measure.

    Args:
        measure: of every unit [n].
        right: whether the answer was right [n].
        constant: whether the best constant answer would be right [n]; None where there is no other answer.
        groups: what is resampled together [n].
    """
    value = crossing(measure, right)
    rng = np.random.default_rng(SEED)
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(of == i) for i in range(len(names))]
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        found.append(crossing(measure[drawn], right[drawn]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    other = np.full(len(measure), np.nan) if constant is None else constant.astype(np.float64)
    sides = [
        (int(s.sum()), float(right[s].mean()), float(other[s].mean())) for s in (measure < value, measure >= value)
    ]
    return Threshold(value, float(low), float(high), sides[0], sides[1])


def least_expressed(votes: Votes) -> Threshold:
    """The threshold on `expressed`, from votes on the clips of the training actors."""
    mine: NDArray[np.bool_] = votes.actors <= LAST_TRAINING_ACTOR
    said, heard = widened(votes.probabilities)[mine], widened(votes.targets)[mine]
    present = np.ones(said.shape[:2], dtype=bool)
    fused, _ = combine(equal_weights(present, len(BASIC)), said, present)
    right: Mask = expressed(heard) > HALF
    return choose(expressed(fused), right, None, votes.actors[mine])


def least_confidence(compound: Array, truth: NDArray[np.int64]) -> Threshold:
    """The threshold on the margin between compounds.

    Args:
        compound: distributions [n, 7].
        truth: the labelled compound [n].
    """
    often = int(np.bincount(truth, minlength=len(COMPOUND)).argmax())
    right: Mask = compound.argmax(axis=1) == truth
    return choose(confidence(compound), right, truth == often, range(len(truth)))


def _on_goemotions(folder: Path, out: Path) -> Threshold:
    from cer_pipeline.zoo import open_zoo

    rows = [row for split in ("train", "dev") for row in read_goemotions(folder, split)]
    train, test = rows_of(rows)
    known, asked = encoded([train, [row for row, _ in test]], open_zoo().path("minilm"), out)
    basic = classify(known, np.array([row.labels[0] for row in train]), asked)
    return least_confidence(ppa(basic), np.array([k for _, k in test]))


def main(arguments: Sequence[str]) -> int:
    """Print both thresholds."""
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m cer_pipeline.reproduce.clear_expression_study GOEMOTIONS VOTES.csv OUT\n")
        return 2
    goemotions, votes, out = map(Path, arguments)
    try:
        _say("least_expressed", least_expressed(read_votes(votes)))
        _say("least_confidence", _on_goemotions(goemotions, out))
    except CerError as error:
        sys.stderr.write(error.line() + "\n")
        return 2
    return 0


def _say(name: str, found: Threshold) -> None:
    lines = [f"{name} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"]
    for side, (n, share, constant) in (("below", found.below), ("from there on", found.above)):
        against = "" if np.isnan(constant) else f"; the best constant answer: {constant:.3f}"
        lines.append(f"  {side}: {n} units, {share:.3f} right{against}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
