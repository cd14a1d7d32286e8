"""Splits: their names, and the option that gives them.

Belongs here: which words mean train, dev and test, and reading `--split NAME|FILE`. Does not belong here: what may not
stand in two splits (`corpora.leaks.find`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cer_pipeline.corpora.formats.csv_rows import read_sheet
from cer_pipeline.corpora.formats.registry import Found
from cer_pipeline.corpora.lookup import Lookup
from cer_pipeline.errors import CerError

TRAIN: Final = "train"
DEV: Final = "dev"
TEST: Final = "test"
SPLITS: Final = (TRAIN, DEV, TEST)

WORDS: Final[Mapping[str, str]] = {
    "train": TRAIN,
    "training": TRAIN,
    "dev": DEV,
    "val": DEV,
    "valid": DEV,
    "validation": DEV,
    "test": TEST,
}
"""Words that folders and files of the corpora use: Train_AFEW, Val_AFEW, Train_Set, Validation_Set, dev, test."""

VIDEO: Final = "video"
SPLIT: Final = "split"


def split_of(word: str) -> str | None:
    """The split that a folder or file name means by one of its words: "Val_AFEW" -> "dev"; None where it names none."""
    found = {WORDS[part] for part in re.split(r"[^a-z]+", word.lower()) if part in WORDS}
    return found.pop() if len(found) == 1 else None


def apply_split(files: Sequence[Found], option: str | None) -> list[Found]:
    """Give the videos of a corpus their splits.

    Args:
        files: the videos.
        option: one of `SPLITS` for all of them, or a CSV file with the columns video and split; None leaves them.

    Raises:
        CerError: an unknown split or video, a video that stands in two splits or in none, or a file that cannot be
            read.
    """
    if not option:
        return list(files)
    if (name := split_of(option)) is not None and not Path(option).is_file():
        return [replace(file, split=name) for file in files]
    if not Path(option).is_file():
        raise CerError("neither a split nor a file", option, f"give {', '.join(SPLITS)}, or a CSV file of video,split")
    given = _read(Path(option), files)
    if missing := [file.video_id for file in files if file.video_id not in given]:
        raise CerError(f"{len(missing)} videos have no split, first {missing[0]}", option, "add a row for each")
    return [replace(file, split=given[file.video_id]) for file in files]


def _read(path: Path, files: Sequence[Found]) -> dict[str, str]:
    out: dict[str, str] = {}
    by_name = Lookup(files)
    for where, row in read_sheet(path, (VIDEO, SPLIT)):
        name, split = row[VIDEO].strip(), split_of(row[SPLIT])
        if split is None:
            raise CerError(f"unknown split {row[SPLIT]!r}", where, f"use {', '.join(SPLITS)}")
        found = by_name.find(name)
        if len(found) != 1:
            what = "the corpus has no video" if not found else "several videos have the name"
            raise CerError(f"{what} {name!r}", where, "write the path below the folder, no ending")
        video = files[found[0]].video_id
        if out.setdefault(video, split) != split:
            raise CerError(f"the video {video} stands in {out[video]} and in {split}", where, "keep one row")
    return out
