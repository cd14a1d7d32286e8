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

from cer_pipeline.corpora.formats.registry import format_of
from cer_pipeline.corpora.names import from_text
from cer_pipeline.errors import CerError

_KEY: Final = re.compile(r"([a-z0-9_]{1,40})-(s\d{3,})")

Stamp = tuple[int, int, int, int]
"""Size, modification time, inode and ctime of a file; its content is read again unless all are unchanged."""


@dataclass(frozen=True)
class File:
    """One registered video.

    Args:
        path: POSIX path of its file below the root, as text (`names.to_text`).
        video_id: its id in every table.
        bytes: size.
        mtime_ns: modification time.
        inode: number of the file on its disk.
        sha256: of the content.
        shard: label of its shard, such as "s000".
        split: train, dev or test; None where it belongs to none, or was removed from it.
        source: the clip that it was cut from or shows.
        excluded: why it, or its annotation, was left out; empty where it was not.
        labels: digest of its labels; empty without any.
        captions: digest of its imported captions; empty without any.
        windows: window indices of a video without a media file.
        ctime_ns: time of the last change of content or attributes, which no tool can set back; 0 where an older version
            registered the file, which counts as changed.
        frames: number of its frames, where its annotation was compared with it (`annotation_fit`).
        duration_s: its duration, s, where its annotation was compared with it.
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
        """The attributes that show whether the file may have changed."""
        return self.bytes, self.mtime_ns, self.inode, self.ctime_ns


@dataclass(frozen=True)
class Corpus:
    """A registered corpus.

    Args:
        name: its name in partitions and tables.
        format: name of its format (`formats.registry`).
        root: the folder.
        shards: number of shards.
        files: registered files, by video_id.
        options: options of the format.
        annotations: the file with its annotations (`annotations.write`); None without any.
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
        """Whether every video has a media file."""
        return format_of(self.format).media

    @property
    def trains(self) -> str:
        """What the corpus trains where it holds no videos at all; empty where it holds some."""
        return "" if self.files else format_of(self.format).trains

    @property
    def format_classes(self) -> tuple[str, ...]:
        """Basic emotions that its format annotates; empty where the annotations decide."""
        return format_of(self.format).classes

    @property
    def splits(self) -> list[str]:
        """Its splits, sorted."""
        return sorted({file.split for file in self.files if file.split})

    @property
    def has_labels(self) -> bool:
        """Whether any of its videos has labels."""
        return any(file.labels for file in self.files)

    def shard_labels(self) -> list[str]:
        """Return the labels of all shards, including empty ones."""
        return [shard_label(i) for i in range(self.shards)]

    def files_of(self, shard: str) -> list[File]:
        """Return the files of a shard, by video_id."""
        return [file for file in self.files if file.shard == shard]

    def source(self, video_id: str) -> Path:
        """Return the media file of a video.

        Raises:
            CerError: the corpus has no such video, or no media at all.
        """
        if not self.has_media:
            raise CerError("the corpus has no media files", self.name, "register the folder of its videos")
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
    """Return the label of the shard of a video: a stable hash of its id modulo the number of shards."""
    return shard_label(int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest(), "big") % shards)


def shard_key(name: str, shard: str) -> str:
    """Return the Dagster partition of a shard: ("media", "s000") -> "media-s000"."""
    return f"{name}-{shard}"


def parse_shard_key(key: str) -> tuple[str, str]:
    """Return corpus and shard of a Dagster partition: "media-s000" -> ("media", "s000").

    Raises:
        CerError: it is no such key.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise CerError("not a corpus shard", key, "a shard is written NAME-s000")
    return match[1], match[2]
