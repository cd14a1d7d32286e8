"""Names of splits, and the option that sets them.

Belongs here: words for train, dev and test, and reading `--split NAME|FILE`. Does not belong here: videos in two splits
(`corpora.leaks`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cer_pipeline.corpora.csv_rows import read_rows
from cer_pipeline.corpora.lookup import Lookup
from cer_pipeline.corpora.scan import ScannedVideo
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
"""Words in names of folders and files of the corpora: Train_AFEW, Val_AFEW, Train_Set, Validation_Set, dev, test."""

VIDEO: Final = "video"
SPLIT: Final = "split"


def split_of(word: str) -> str | None:
    """Return the split that a folder or file name contains: "Val_AFEW" -> "dev"; None for none or several."""
    splits = {WORDS[part] for part in re.split(r"[^a-z]+", word.lower()) if part in WORDS}
    return splits.pop() if len(splits) == 1 else None


def innermost_split(folders: Sequence[str]) -> str | None:
    """Return the split that the innermost of some folders names; None where none names one."""
    return next((split for folder in reversed(folders) if (split := split_of(folder))), None)


def apply_split(videos: Sequence[ScannedVideo], option: str | None) -> list[ScannedVideo]:
    """Set the splits of the videos of a corpus.

    Args:
        videos: the videos.
        option: one of `SPLITS` for all of them, or a CSV file with the columns video and split; None changes nothing.

    Raises:
        CerError: an unknown split or video, a video with two splits or none, or a file that cannot be read.
    """
    if not option:
        return list(videos)
    if (name := split_of(option)) is not None and not Path(option).is_file():
        return [replace(video, split=name) for video in videos]
    if not Path(option).is_file():
        raise CerError("neither a split nor a file", option, f"give {', '.join(SPLITS)}, or a CSV file of video,split")
    splits = _read(Path(option), videos)
    if missing := [video.video_id for video in videos if video.video_id not in splits]:
        raise CerError(f"{len(missing)} videos have no split, first {missing[0]}", option, "add a row for each")
    return [replace(video, split=splits[video.video_id]) for video in videos]


def _read(path: Path, videos: Sequence[ScannedVideo]) -> dict[str, str]:
    splits: dict[str, str] = {}
    by_name = Lookup(videos)
    for where, row in read_rows(path, (VIDEO, SPLIT)):
        split = split_of(row[SPLIT])
        if split is None:
            raise CerError(f"unknown split {row[SPLIT]!r}", where, f"use {', '.join(SPLITS)}")
        video = by_name.find_one(row[VIDEO].strip(), where).video_id
        if splits.setdefault(video, split) != split:
            raise CerError(f"the video {video} has the splits {splits[video]} and {split}", where, "keep one row")
    return splits
