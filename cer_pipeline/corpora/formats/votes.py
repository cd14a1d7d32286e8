"""Reader of votes: people who saw only the face, or heard only the voice, and people who saw and heard both.

Belongs here: the file, turned into distributions, and errors that name the row. Does not belong here: what is learned
from them (`reproduce.crema_d_votes`).

Votes are a corpus for fusion without media: the vote distributions of face and voice stand for the probabilities of two
branches, the votes for both together are the label. CREMA-D (Cao et al. 2014) holds them for six emotions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.corpora.formats.csv_rows import read_sheet
from cer_pipeline.corpora.formats.registry import Scan
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
        """The majority of the votes for both together; of equal ones the first class."""
        return self.targets.argmax(axis=1)

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Clips whose votes for both have no single majority."""
        return (self.targets == self.targets.max(axis=1, keepdims=True)).sum(axis=1) > 1

    def part(self, chosen: NDArray[np.bool_]) -> Votes:
        """Some of the clips."""
        names = tuple(c for c, keep in zip(self.clips, chosen, strict=True) if keep)
        return Votes(names, self.actors[chosen], self.probabilities[chosen], self.targets[chosen])


def read_votes(path: Path) -> Votes:
    """Read votes: columns fileName (it begins with the four digits of the actor), modality, and one per class.

    Raises:
        CerError: the file or a column is missing, it is not UTF-8, a number of votes is none, a row stands twice, or a
            clip lacks a modality or any vote.
    """
    if not path.is_file():
        raise CerError("the votes file does not exist", str(path), "give the CSV file of votes")
    found: dict[str, dict[str, list[float]]] = {}
    for where, row in read_sheet(path, (NAME, MODALITY, *CLASSES), numbers=CLASSES):
        clip, modality = row[NAME], row[MODALITY]
        if modality not in (*BRANCHES, TARGET):
            raise CerError(f"unknown modality {modality!r}", where, f"use {', '.join((*BRANCHES, TARGET))}")
        if modality in found.setdefault(clip, {}):
            raise CerError(f"the votes on {clip} by {modality} stand twice", where, "keep one row")
        found[clip][modality] = [_count(row[c], CLASSES[c], where) for c in CLASSES]
    if not found:
        raise CerError("there are no votes", str(path), "give a file with a row for each clip and modality")
    clips = sorted(found)
    for clip in clips:
        for modality in (*BRANCHES, TARGET):
            if sum(found[clip].get(modality, [])) <= 0:
                raise CerError(f"a clip has no votes for {modality}", f"{clip} in {path}", "remove the clip")
        if not clip[:ACTOR_DIGITS].isdigit():
            raise CerError("a name does not begin with the four digits of its actor", f"{clip} in {path}")
    counts = np.array([[found[c][m] for m in (*BRANCHES, TARGET)] for c in clips])
    shares = counts / counts.sum(axis=2, keepdims=True)
    return Votes(tuple(clips), np.array([int(c[:ACTOR_DIGITS]) for c in clips]), shares[:, :2], shares[:, 2])


def _count(text: str, emotion: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise CerError(f"a number of votes is no number: {text!r} for {emotion}", where, "give counts from 0 up")
    return value


def scan(path: Path, options: Mapping[str, Any]) -> Scan:  # noqa: ARG001
    """Check a file of votes; it holds no videos.

    Raises:
        CerError: see `read_votes`.
    """
    votes = read_votes(path)
    actors = len(set(votes.actors.tolist()))
    told = f"{len(votes.clips)} clips of {actors} actors with votes for {', '.join((*BRANCHES, TARGET))}"
    return Scan([], told=[told], content=hashlib.sha256(path.read_bytes()).hexdigest())
