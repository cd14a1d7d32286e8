"""The corpus format `ravdess`: sound files of RAVDESS speech, with actor, emotion, statement and take in their names.

Belongs here: finding the files, parsing their names, and removing copies of a recording. Does not belong here: decoding
sound or training on it (`branches.audio.train`).

Source: Livingstone & Russo 2018, "The Ryerson Audio-Visual Database of Emotional Speech and Song", table 2: a name is
modality-channel-emotion-intensity-statement-repetition-actor.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cer_pipeline.corpora.annotations import Annotation, VideoAnnotations, one_hot
from cer_pipeline.corpora.formats.folder import find_files
from cer_pipeline.corpora.formats.registry import SPLIT
from cer_pipeline.corpora.names import nfc
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.corpora.splits import TRAIN
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

EMOTIONS: Final[dict[int, str]] = {
    1: "Neutral",
    2: "Neutral",  # "calm", which is no class of this project
    3: "Happiness",
    4: "Sadness",
    5: "Anger",
    6: "Fear",
    7: "Disgust",
    8: "Surprise",
}
"""Third number of a name -> basic emotion."""

_NAME: Final = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_SOUND: Final = frozenset({".flac", ".wav"})
EMOTION: Final = 3
ACTOR: Final = 7
"""Positions of emotion and actor among the numbers of a name, from 1."""


@dataclass(frozen=True)
class Clip:
    """One recording.

    Args:
        name: file name without its ending.
        path: the file.
        actor: number of the actor, the group of cross-validation.
        label: position in `BASIC`.
        calm: whether the recording is "calm", counted as Neutral.
        sha256: of the file.
    """

    name: str
    path: Path
    actor: int
    label: int
    calm: bool
    sha256: str


def read_ravdess(folder: Path) -> list[Clip]:
    """Return all spoken clips below a folder without copies, in order of actor and name.

    Args:
        folder: contains the folders `Actor_NN` with .flac or .wav files.

    Raises:
        CerError: no folder, no clip, a name of another form or with an unknown emotion, or one recording with two
            emotions or actors.
    """
    if not folder.is_dir():
        raise CerError("the folder does not exist", str(folder))
    clips: list[Clip] = []
    by_content: dict[str, Clip] = {}
    for path in sorted(p for p in folder.glob("Actor_*/*") if p.suffix.lower() in _SOUND):
        clip = _clip(path)
        first = by_content.setdefault(clip.sha256, clip)
        if first is clip:
            clips.append(clip)
        elif (first.label, first.actor) != (clip.label, clip.actor):
            where = f"{first.path.name} and {path.name} in {path.parent}"
            raise CerError("one recording has two labels or actors", where, "remove the wrong one")
    if not clips:
        raise CerError("no speech clip", str(folder), "expected Actor_NN/03-01-EE-II-SS-RR-NN.flac or .wav")
    return sorted(clips, key=lambda clip: (clip.actor, clip.name))


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the sound files with their labels; the actor is the source, so that no actor is in two splits.

    A name contains the emotion as a number, so the video_id leaves that number out and ends in a digest of the name
    instead: `Actor_01/03-01-01-02-01-01-1f2e3d4c`. Without `--split` all clips are in the split train.

    Raises:
        CerError: no folder or clip, or a name of another form or with an unknown emotion.
    """
    found = find_files(root, _SOUND, "sound")
    split = None if options.get(SPLIT) else TRAIN
    return replace(found, videos=[_labelled(video.path, split) for video in found.videos])


def _labelled(path: str, split: str | None) -> ScannedVideo:
    match = _match(Path(path))
    folder = str(PurePosixPath(path).parent)
    rest = "-".join(match[i] for i in range(1, 8) if i != EMOTION)
    token = hashlib.blake2b(PurePosixPath(path).stem.encode(), digest_size=4).hexdigest()
    labels = Annotation(clip=one_hot(EMOTIONS[int(match[EMOTION])]))
    return ScannedVideo(path, nfc(f"{folder}/{rest}-{token}"), split, f"Actor_{match[ACTOR]}", VideoAnnotations(labels))


def _match(path: Path) -> re.Match[str]:
    match = _NAME.fullmatch(path.stem)
    if not match:
        raise CerError("the name is not of the form of RAVDESS", str(path), "expected 03-01-EE-II-SS-RR-NN")
    if int(match[EMOTION]) not in EMOTIONS:
        raise CerError(f"unknown emotion {match[EMOTION]}", str(path), "use 01 to 08")
    if path.parent.name != f"Actor_{match[ACTOR]}":
        raise CerError("the folder and the name give different actors", str(path), "move or rename the file")
    return match


def _clip(path: Path) -> Clip:
    match = _match(path)
    emotion, actor = int(match[EMOTION]), int(match[ACTOR])
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Clip(path.stem, path, actor, BASIC.index(EMOTIONS[emotion]), emotion == 2, content)
