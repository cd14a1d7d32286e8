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

from cer_pipeline.errors import CerError

FORMATS: Final[Mapping[str, str]] = {
    "folder": "cer_pipeline.corpora.folder:scan",
}
"""Format -> import path of its `scan(root, options) -> Scan`."""


@dataclass(frozen=True)
class Found:
    """One media file of a corpus.

    Args:
        path: POSIX path below the root, as text (`names.to_text`).
        video_id: see `names.video_ids`.
        split: split of the corpus that it belongs to, where the format knows one.
    """

    path: str
    video_id: str
    split: str | None = None


@dataclass(frozen=True)
class Scan:
    """What a format finds below a root.

    Args:
        files: the media files.
        ignored: one line for everything that was left out and that a user may miss.
    """

    files: list[Found]
    ignored: list[str] = field(default_factory=list)


def scan(format_: str, root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the media files of a corpus.

    Raises:
        CerError: unknown format, or the root does not hold what the format expects.
    """
    if format_ not in FORMATS:
        raise CerError("unknown corpus format", format_, f"choose one of: {', '.join(sorted(FORMATS))}")
    module, _, name = FORMATS[format_].partition(":")
    reader = cast("Callable[[Path, Mapping[str, Any]], Scan]", getattr(importlib.import_module(module), name))
    return reader(root, options)
