"""The corpus format `votes`: votes of raters on the face alone, on the voice alone, and on both.

Belongs here: reading the file into distributions, with errors that name the row. Does not belong here: training and
scores (`fusion.train.data`, `reproduce.crema_d_votes`).

A corpus of votes trains the fusion without media: the vote distributions of face and voice are the probabilities of two
branches, the votes on both together are the label. CREMA-D (Cao et al. 2014) has votes for six emotions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.corpora.csv_rows import number_in, read_rows
from cer_pipeline.corpora.scan import Scan
from cer_pipeline.errors import CerError

Array = NDArray[np.float64]

BRANCHES: Final = ("voice", "face")
TARGET: Final = "both"
CLASSES: Final = {"A": "Anger", "D": "Disgust", "F": "Fear", "H": "Happiness", "N": "Neutral", "S": "Sadness"}

NAME: Final = "fileName"
MODALITY: Final = "modality"
ACTOR_DIGITS: Final = 4


@dataclass(frozen=True)
class Votes:
    """Votes on clips.

    Args:
        clips: n names.
        actors: actor of each clip [n].
        probabilities: vote distributions of voice and face [n, 2, 6].
        targets: vote distributions of both together [n, 6].
    """

    clips: tuple[str, ...]
    actors: NDArray[np.int64]
    probabilities: Array
    targets: Array

    @property
    def labels(self) -> NDArray[np.int64]:
        """Position of the class with most votes on both together [n]; the first one of a tie."""
        return self.targets.argmax(axis=1)

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Whether several classes have most votes on both together [n]."""
        return (self.targets == self.targets.max(axis=1, keepdims=True)).sum(axis=1) > 1

    def part(self, chosen: NDArray[np.bool_]) -> Votes:
        """Return the votes on the clips of a mask [n]."""
        names = tuple(c for c, keep in zip(self.clips, chosen, strict=True) if keep)
        return Votes(names, self.actors[chosen], self.probabilities[chosen], self.targets[chosen])


def read_votes(path: Path) -> Votes:
    """Read a CSV file of votes.

    Args:
        path: file with the columns fileName (its first four digits are the actor), modality, and one for each class.

    Raises:
        CerError: the file or a column is missing, another encoding, a number of votes is not valid, a repeated row, or
            a clip without votes on a modality.
    """
    if not path.is_file():
        raise CerError("the votes file does not exist", str(path), "give the CSV file of votes")
    counts_of: dict[str, dict[str, list[float]]] = {}
    for where, row in read_rows(path, (NAME, MODALITY, *CLASSES), numbers=CLASSES):
        clip, modality = row[NAME], row[MODALITY]
        if modality not in (*BRANCHES, TARGET):
            raise CerError(f"unknown modality {modality!r}", where, f"use {', '.join((*BRANCHES, TARGET))}")
        if modality in counts_of.setdefault(clip, {}):
            raise CerError(f"the votes on {clip} by {modality} occur twice", where, "keep one row")
        counts_of[clip][modality] = [_count(row[c], CLASSES[c], where) for c in CLASSES]
    if not counts_of:
        raise CerError("there are no votes", str(path), "give a file with a row for each clip and modality")
    clips = sorted(counts_of)
    for clip in clips:
        for modality in (*BRANCHES, TARGET):
            if sum(counts_of[clip].get(modality, [])) <= 0:
                raise CerError(f"a clip has no votes for {modality}", f"{clip} in {path}", "remove the clip")
        if not clip[:ACTOR_DIGITS].isdigit():
            raise CerError("a name does not begin with the four digits of its actor", f"{clip} in {path}")
    counts = np.array([[counts_of[c][m] for m in (*BRANCHES, TARGET)] for c in clips])
    shares = counts / counts.sum(axis=2, keepdims=True)
    return Votes(tuple(clips), np.array([int(c[:ACTOR_DIGITS]) for c in clips]), shares[:, :2], shares[:, 2])


def _count(text: str, emotion: str, where: str) -> float:
    value = number_in(text, 0)
    if value is None:
        raise CerError(f"a number of votes is no number: {text!r} for {emotion}", where, "give counts from 0 up")
    return value


def scan(path: Path, options: Mapping[str, Any]) -> Scan:  # noqa: ARG001
    """Read a file of votes; the corpus has no videos.

    Raises:
        CerError: see `read_votes`.
    """
    votes = read_votes(path)
    actors = len(set(votes.actors.tolist()))
    summary = f"{len(votes.clips)} clips of {actors} actors with votes for {', '.join((*BRANCHES, TARGET))}"
    return Scan([], messages=[summary], content=hashlib.sha256(path.read_bytes()).hexdigest())
