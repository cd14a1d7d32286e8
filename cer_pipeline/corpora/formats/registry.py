"""The corpus formats, by name.

Belongs here: one entry for every format, and the shape of what a format finds. Does not belong here: how one is read
(a module of its own, with a function `scan`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from cer_pipeline.corpora.annotations import Notes
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

LABELS: Final = "labels"
SPLIT: Final = "split"
CAPTIONS: Final = "captions"


@dataclass(frozen=True)
class Format:
    """One corpus format.

    Args:
        scan: import path of its `scan(root, options) -> Scan`.
        meaning: one clause for people.
        media: whether there is a media file behind every video.
        takes: options beside the path that it understands.
        spans: whether `--labels` is a table of stretches of time (`cexpr.attach_spans`); else the format reads it.
        trains: what a corpus of this format can train where it holds no videos at all; empty where it holds some.
        classes: basic emotions that the format annotates; empty where the annotation tells.
    """

    scan: str
    meaning: str
    media: bool = True
    takes: tuple[str, ...] = (SPLIT, CAPTIONS)
    spans: bool = False
    trains: str = ""
    classes: tuple[str, ...] = ()


FORMATS: Final[Mapping[str, Format]] = {
    "folder": Format(
        "cer_pipeline.corpora.formats.folder:scan",
        "every video below a folder",
        takes=(LABELS, SPLIT, CAPTIONS),
        spans=True,
    ),
    "afew": Format(
        "cer_pipeline.corpora.formats.afew:scan", "clips in class folders below split folders", classes=BASIC[:-1]
    ),
    "affwild2": Format(
        "cer_pipeline.corpora.formats.affwild2:scan",
        "videos with a class for every frame",
        takes=(LABELS, SPLIT, CAPTIONS),
        classes=BASIC,
    ),
    "cexpr": Format(
        "cer_pipeline.corpora.formats.cexpr:scan",
        "videos, with or without stretches of compound expressions",
        takes=(LABELS, SPLIT, CAPTIONS),
        spans=True,
    ),
    "captions": Format(
        "cer_pipeline.corpora.formats.captions:scan",
        "CSV files of texts by vision-language models, without video",
        media=False,
        takes=(LABELS, SPLIT),
        spans=True,
    ),
    "ravdess": Format(
        "cer_pipeline.corpora.formats.ravdess:scan",
        "spoken clips whose names tell the emotion",
        takes=(SPLIT,),
        classes=BASIC[:-1],
    ),
    "votes": Format(
        "cer_pipeline.corpora.formats.votes:scan",
        "votes on face, voice and both, without media",
        media=False,
        takes=(),
        trains="mhpf",
    ),
    "utterances": Format(
        "cer_pipeline.corpora.formats.utterances:scan",
        "labelled sentences: GoEmotions or MELD",
        media=False,
        takes=(),
        trains="text_minilm",
    ),
}


@dataclass(frozen=True)
class Found:
    """One video of a corpus.

    Args:
        path: POSIX path of its file below the root, as text (`names.to_text`).
        video_id: see `names.video_ids`.
        split: train, dev or test, where the format knows one.
        source: the clip that it was cut from or shows; what may not stand in two splits. The video_id unless given.
        notes: labels and captions.
        windows: window indices of a video without a media file.
        content: SHA-256 and bytes of what stands for the file of such a video.
    """

    path: str
    video_id: str
    split: str | None = None
    source: str = ""
    notes: Notes = field(default_factory=Notes)
    windows: tuple[int, ...] = ()
    content: tuple[str, int] | None = None


@dataclass(frozen=True)
class Scan:
    """What a format finds below a root.

    Args:
        files: the videos.
        ignored: one line for everything that was left out and that a user may miss.
        told: one line for everything else that a user may want to know.
        content: digest of a corpus without videos.
    """

    files: list[Found]
    ignored: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    content: str = ""


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        CerError: there is none of that name.
    """
    if name not in FORMATS:
        raise CerError("unknown corpus format", name, f"choose one of: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def scan(format_: str, root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the videos of a corpus.

    Raises:
        CerError: unknown format or an option that it does not take, or the root does not hold what the format expects.
    """
    known = format_of(format_)
    if foreign := [name for name in (LABELS, SPLIT, CAPTIONS) if options.get(name) and name not in known.takes]:
        takes = ", ".join(f"--{name}" for name in known.takes) or "none"
        raise CerError(f"the format {format_} takes no --{foreign[0]}", str(options[foreign[0]]), f"it takes: {takes}")
    module, _, name = known.scan.partition(":")
    reader = cast("Callable[[Path, Mapping[str, Any]], Scan]", getattr(importlib.import_module(module), name))
    return reader(root, options)
