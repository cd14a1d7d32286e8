"""Comparison of fusions on the votes of CREMA-D.

Belongs here: the comparison. Does not belong here: reading votes (`corpora.formats.votes`) or the fusions (`fusion`).

Votes are a fusion corpus without media: the vote distributions of people who saw only the face, and of people who heard
only the voice, are taken as the probabilities of two branches; the label is the majority vote of people who saw and
heard both. CREMA-D (Cao et al. 2014) has them for 5,721 clips of 70 actors with six emotions. Nothing is chosen on the
test actors: settings are compared on folds of the training actors. The fusion is trained over all eight basic emotions,
so that it can be applied to any corpus of the same two branches; Surprise and Other have no vote, and are fused with
equal weights.

    python -m cer_pipeline.reproduce.crema_d_votes crema_d_votes.csv

It takes about three minutes of one core, most of it choosing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.corpora.formats.votes import BRANCHES, CLASSES, Votes, read_votes
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array
from cer_pipeline.fusion.mhpf import DYNAMIC, MHPF, STATIC
from cer_pipeline.fusion.train.fit import LIKELIHOOD, PUBLISHED, Settings, train_mhpf
from cer_pipeline.labels import BASIC
from cer_pipeline.metrics import Score, bootstrap, confusion, macro_f1, paired_bootstrap
from cer_pipeline.training.folds import random_group_folds

PLACES: Final = [BASIC.index(label) for label in CLASSES.values()]
LAST_TRAINING_ACTOR: Final = 1050

PUBLISHED_STATIC: Final = Settings(STATIC, PUBLISHED, heads=3, balance=1.0, dropout=0.0)
"""The published form, heads, loss and class weights, without dropout, fitted until the loss is least."""
STATIC_CANDIDATES: Final = tuple(Settings(STATIC, LIKELIHOOD, heads=3, balance=b, dropout=0.0) for b in (0.0, 0.5, 1.0))
DYNAMIC_CANDIDATES: Final = tuple(
    Settings(DYNAMIC, balance=b, sharpness=s) for b in (0.0, 0.5) for s in (1.0, 2.0, 4.0, 8.0)
)
STATIC_CHOSEN: Final = STATIC_CANDIDATES[0]
DYNAMIC_CHOSEN: Final = DYNAMIC_CANDIDATES[7]
"""The candidates that `choose` returns on the training actors."""
REPEATS: Final = 3  # sets of folds that a candidate is scored on; its macro-F1 differs by 0.3 points between them
PRODUCT_FLOOR: Final = 1e-3  # added before the logarithm, so that a class without a vote can still win


@dataclass(frozen=True)
class Result:
    """One system on the test clips; differences are paired, in macro-F1."""

    system: str
    score: Score
    against_face: Score | None
    against_published: Score | None


def train(votes: Votes, settings: Settings) -> Callable[[Array], Array]:
    """Train a fusion on votes and return it as a function from vote distributions to fused ones."""
    fusion = fit(votes, settings)
    return lambda values: fusion.fuse(widened(values), np.ones(values.shape[:2], dtype=bool))[0][:, PLACES]


def fit(votes: Votes, settings: Settings) -> MHPF:
    """Train a fusion over all basic emotions on votes for six of them."""
    present = np.ones(votes.probabilities.shape[:2], dtype=bool)
    p, t = widened(votes.probabilities), widened(votes.targets)
    return train_mhpf(p, present, t, votes.actors, BRANCHES, BASIC, settings)


def widened(values: Array) -> Array:
    """Return distributions over the six classes of votes [..., 6] as distributions over the basic emotions [..., 8]."""
    wide = np.zeros((*values.shape[:-1], len(BASIC)))
    wide[..., PLACES] = values
    return wide


def choose(votes: Votes, candidates: Sequence[Settings], folds: int = 5) -> tuple[Settings, tuple[float, ...]]:
    """Choose the candidate of highest macro-F1 over folds by actor, averaged over `REPEATS` sets of folds.

    Returns:
        The chosen settings, and the macro-F1 of every candidate.
    """
    scores = [float(np.mean([_held_out(votes, c, folds, seed) for seed in range(REPEATS)])) for c in candidates]
    return candidates[int(np.argmax(scores))], tuple(scores)


def _held_out(votes: Votes, settings: Settings, folds: int, seed: int) -> float:
    fold = random_group_folds(votes.actors, folds, seed)
    predicted = np.empty(len(votes.clips), dtype=np.int64)
    for i in range(folds):
        fitted = train(votes.part(fold != i), settings)
        predicted[fold == i] = fitted(votes.probabilities[fold == i]).argmax(axis=1)
    return _macro(votes.labels, predicted)


def evaluate(votes: Votes, published: Settings, static: Settings, dynamic: Settings) -> list[Result]:
    """Compare face alone, voice alone, mean, product and three fusions on the test actors.

    Intervals resample whole actors, because the clips of one actor are not independent.
    """
    training, test = votes.part(votes.actors <= LAST_TRAINING_ACTOR), votes.part(votes.actors > LAST_TRAINING_ACTOR)
    p = test.probabilities
    systems = {
        "face alone": p[:, 1],
        "voice alone": p[:, 0],
        "mean": p.mean(axis=1),
        "product": np.log(p + PRODUCT_FLOOR).sum(axis=1),
        "MHPF static, published loss": train(training, published)(p),
        "MHPF static, likelihood": train(training, static)(p),
        "MHPF dynamic": train(training, dynamic)(p),
    }
    predicted = {name: values.argmax(axis=1) for name, values in systems.items()}
    face, first = predicted["face alone"], predicted["MHPF static, published loss"]
    over, size = range(len(CLASSES)), len(CLASSES)
    results = []
    for name, classes in predicted.items():
        scored = bootstrap(macro_f1, test.labels, classes, test.actors, over, size=size)
        pairs = [
            None
            if classes is other
            else paired_bootstrap(macro_f1, test.labels, classes, other, test.actors, over, size=size)
            for other in (face, first)
        ]
        results.append(Result(name, scored, pairs[0], pairs[1]))
    return results


def _macro(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    size = len(CLASSES)
    return float(macro_f1(confusion(labels, predicted, size), range(size)))


def write(line: str) -> None:
    """Write a line and flush: choosing takes minutes."""
    sys.stdout.write(line)
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Print the comparison on a votes file."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cer_pipeline.reproduce.crema_d_votes VOTES.csv\n")
        return 2
    try:
        votes = read_votes(Path(arguments[0]))
    except CerError as error:
        sys.stderr.write(error.line() + "\n")
        return 2
    training, test = votes.part(votes.actors <= LAST_TRAINING_ACTOR), votes.part(votes.actors > LAST_TRAINING_ACTOR)
    write(f"{len(training.clips)} training and {len(test.clips)} test clips ({test.tied.sum()} tied)\n")
    chosen = []
    for name, candidates in (("static, likelihood", STATIC_CANDIDATES), ("dynamic", DYNAMIC_CANDIDATES)):
        best, scores = choose(training, candidates)
        chosen.append(best)
        for candidate, score in zip(candidates, scores, strict=True):
            mark = "*" if candidate is best else " "
            setting = f"balance {candidate.balance}"
            setting += f", sharpness {candidate.sharpness}" if candidate.method == DYNAMIC else ""
            write(f"{mark} {name}, {setting}: {100 * score:.2f} on training folds\n")
    write(f"{'system':30} {'macro-F1 [95 %]':24} {'- face alone':24} - static, published loss\n")
    for r in evaluate(votes, PUBLISHED_STATIC, *chosen):
        write(f"{r.system:30} {r.score!s:24} {r.against_face or '-'!s:24} {r.against_published or '-'!s}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
