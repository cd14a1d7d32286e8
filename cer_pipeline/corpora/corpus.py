"""The types of a registered corpus, and the names of its shards.

Belongs here: what a registration holds. Does not belong here: reading, writing or refreshing one (`registry`), or the
tables of a shard (`shards`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora.formats.names import from_text
from cer_pipeline.corpora.formats.registry import format_of
from cer_pipeline.errors import CerError

_KEY: Final = re.compile(r"([a-z0-9_]{1,40})-(s\d{3,})")

Stamp = tuple[int, int, int, int]
"""Size, time of change, inode and ctime of a file: content is read again unless all of them stay."""


@dataclass(frozen=True)
class File:
    """One registered video.

    Args:
        path: POSIX path of its file below the root, as text (`names.to_text`).
        video_id: its id in every table.
        bytes: size.
        mtime_ns: time of change.
        inode: number of the file on its disk.
        ctime_ns: time at which its content or its properties changed, which no tool can set back; 0 where an older
            version registered it, which counts as changed.
        frames: number of its frames, where its annotation was compared with it (`fit`).
        duration_s: its duration, s, likewise.
        sha256: of the content.
        shard: label of its shard, such as "s000".
        split: train, dev or test; None where it belongs to none, or was left out of it.
        source: the clip that it was cut from or shows.
        excluded: why it, or its annotation, was left out; empty where it was not.
        labels: digest of its labels; empty without any.
        captions: digest of its imported texts; empty without any.
        windows: window indices of a video without a media file.
    """

    path: str
    video_id: str
    bytes: int
    mtime_ns: int
    inode: int
    sha256: str
    shard: str
    split: str | None = None
    source: str = ""
    excluded: str = ""
    labels: str = ""
    captions: str = ""
    windows: tuple[int, ...] = ()
    ctime_ns: int = 0
    frames: int | None = None
    duration_s: float | None = None

    @property
    def stamp(self) -> Stamp:
        """What tells whether the file may have changed."""
        return self.bytes, self.mtime_ns, self.inode, self.ctime_ns


@dataclass(frozen=True)
class Corpus:
    """A registered corpus.

    Args:
        name: its name in partitions and tables.
        format: a key of `formats.FORMATS`.
        root: the folder.
        shards: number of shards.
        files: registered files, by video_id.
        options: what else the format was told, as text.
        annotations: the file of `notes`; None where nothing was written about the videos.
    """

    name: str
    format: str
    root: Path
    shards: int
    files: tuple[File, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    annotations: Path | None = None

    @property
    def has_media(self) -> bool:
        """Whether there is a media file behind every video."""
        return format_of(self.format).media

    @property
    def trains(self) -> str:
        """What the corpus can train where it holds no videos at all; empty where it holds some."""
        return format_of(self.format).trains

    @property
    def splits(self) -> list[str]:
        """Its splits, sorted."""
        return sorted({file.split for file in self.files if file.split})

    @property
    def has_labels(self) -> bool:
        """Whether any of its videos has labels."""
        return any(file.labels for file in self.files)

    def shard_labels(self) -> list[str]:
        """The labels of all shards, also of those that hold no file."""
        return [shard_label(i) for i in range(self.shards)]

    def files_of(self, shard: str) -> list[File]:
        """The files of a shard, by video_id."""
        return [file for file in self.files if file.shard == shard]

    def source(self, video_id: str) -> Path:
        """The media file behind a video_id.

        Raises:
            CerError: the corpus has no such video, or no media at all.
        """
        if not self.has_media:
            raise CerError("a corpus of captions has no media", self.name, "register the folder of its videos")
        file = self._by_id.get(video_id)
        if file is None:
            raise CerError("no such video", f"{video_id} in {self.name}", f"run `cer corpus add {self.name} …` again")
        return self.root / from_text(file.path)

    @cached_property
    def _by_id(self) -> dict[str, File]:
        return {file.video_id: file for file in self.files}


def shard_label(index: int) -> str:
    """0 -> "s000"."""
    return f"s{index:03d}"


def shard_of(video_id: str, shards: int) -> str:
    """Label of the shard that a video belongs to."""
    return shard_label(int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest(), "big") % shards)


def shard_key(name: str, shard: str) -> str:
    """The Dagster partition of a shard: ("media", "s000") -> "media-s000"."""
    return f"{name}-{shard}"


def parse_shard_key(key: str) -> tuple[str, str]:
    """The corpus and shard of a Dagster partition: "media-s000" -> ("media", "s000").

    Raises:
        CerError: it is no such key.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise CerError("not a corpus shard", key, "a shard reads NAME-s000")
    return match[1], match[2]
