"""Annotations of videos, in the same types for every corpus format: labels and imported captions.

Belongs here: these types, and the file that holds them, one row a video: `$CER_HOME/corpora/NAME.DIGEST.parquet`.
Annotation files are read when a corpus is registered and never again, so that tables follow the registration even where
the files change later. Does not belong here: reading a format (a module each) or making tables (`corpora.labels`).

Of all this only captions are inputs of a model. This module imports no Arrow library until a file is read, because the
command line loads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cer_pipeline.labels import BASIC
from cer_pipeline.store.files import commit

Distribution = tuple[float, ...]

NOT_ANNOTATED: Final = -1
"""Sentinel in `Annotation.frames` for a frame without a class. It enters no mean."""


@dataclass(frozen=True)
class Span:
    """A time span [begin_s, end_s) with one annotation.

    Args:
        begin_s: start, s.
        end_s: end, s; exclusive.
        basic: distribution over `labels.BASIC`; None without one.
        compound: distribution over `labels.COMPOUND`; None without one.
    """

    begin_s: float
    end_s: float
    basic: Distribution | None = None
    compound: Distribution | None = None


@dataclass(frozen=True)
class Annotation:
    """The labels of one video: of the clip, its windows, its frames or time spans, never two of these.

    Args:
        clip: distribution over `labels.BASIC` for the whole video.
        windows: window index -> distribution over `labels.BASIC`.
        frames: position in `labels.BASIC` of every frame in order of presentation, or `NOT_ANNOTATED`.
        spans: time spans, by start.
    """

    clip: Distribution | None = None
    windows: Mapping[int, Distribution] = field(default_factory=dict)
    frames: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.clip or self.windows or self.frames or self.spans)

    @property
    def classes(self) -> frozenset[int]:
        """Positions in `labels.BASIC` that occur."""
        distributions = [self.clip, *self.windows.values(), *(span.basic for span in self.spans)]
        positive = {i for values in distributions if values for i, share in enumerate(values) if share > 0}
        return frozenset(positive | {i for i in self.frames if i != NOT_ANNOTATED})

    def to_json(self) -> str:
        """Return the annotation as JSON; equal annotations give equal texts."""
        windows = {str(i): self.windows[i] for i in sorted(self.windows)}
        spans = [[s.begin_s, s.end_s, s.basic, s.compound] for s in self.spans]
        return json.dumps({"clip": self.clip, "windows": windows, "frames": self.frames, "spans": spans})

    @classmethod
    def from_json(cls, text: str) -> Annotation:
        """Return the annotation of a text that `to_json` returned."""
        data = json.loads(text)
        return cls(
            clip=_distribution(data["clip"]),
            windows={int(i): tuple(values) for i, values in data["windows"].items()},
            frames=tuple(data["frames"]),
            spans=tuple(Span(b, e, _distribution(basic), _distribution(c)) for b, e, basic, c in data["spans"]),
        )


def one_hot(label: str) -> Distribution:
    """Return the distribution over `labels.BASIC` that is 1 for one basic emotion."""
    return tuple(1.0 if name == label else 0.0 for name in BASIC)


def _distribution(values: Sequence[float] | None) -> Distribution | None:
    return None if values is None else tuple(values)


@dataclass(frozen=True, order=True)
class Caption:
    """One imported caption of a window.

    Args:
        segment: window index.
        view: which of the captions of the window it is: MODEL_PROMPT.
        text: None where the view has no caption of the window.
    """

    segment: int
    view: str
    text: str | None

    @property
    def model(self) -> str:
        """The model that wrote it."""
        return self.view.rpartition("_")[0]

    @property
    def prompt(self) -> str:
        """The prompt that the model was given."""
        return self.view.rpartition("_")[2]


@dataclass(frozen=True)
class VideoAnnotations:
    """Everything that was annotated about one video.

    Args:
        labels: its labels; None without any.
        captions: its imported captions, ascending.
    """

    labels: Annotation | None = None
    captions: tuple[Caption, ...] = ()

    @property
    def labels_json(self) -> str | None:
        """The labels as they are stored; None without any."""
        return self.labels.to_json() if self.labels else None

    @property
    def captions_json(self) -> str | None:
        """The captions as they are stored; None without any."""
        rows = [[c.segment, c.view, c.text] for c in self.captions]
        return json.dumps(rows, ensure_ascii=False) if rows else None

    @property
    def text_digests(self) -> list[str]:
        """Sorted `text_digest`s of all captions, for finding copies."""
        return sorted({text_digest(c.text) for c in self.captions if c.text})


def plain(text: str) -> str:
    """Return a text case-folded and with single blanks, for comparison."""
    return " ".join(text.casefold().split())


def text_digest(text: str) -> str:
    """Return the digest of a text, independent of case and blanks."""
    return digest(plain(text))


def digest(text: str | None) -> str:
    """Return the digest of a stored text; empty for None."""
    return "" if text is None else hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def write(folder: Path, name: str, rows: Iterable[tuple[str, str, VideoAnnotations]]) -> str | None:
    """Store the annotations of a corpus.

    Args:
        folder: `$CER_HOME/corpora`.
        name: of the corpus.
        rows: shard, video_id and annotations of every video.

    Returns:
        Name of the file, with a digest of its content; None where no video has annotations.
    """
    records: list[dict[str, Any]] = [
        {
            "shard": shard,
            "video_id": video_id,
            "labels": annotations.labels_json,
            "captions": annotations.captions_json,
            "texts": annotations.text_digests,
        }
        for shard, video_id, annotations in sorted(rows, key=lambda row: row[:2])
        if annotations.labels or annotations.captions
    ]
    if not records:
        return None
    content = digest(json.dumps(records))
    file = f"{name}.{content}.parquet"
    if not (folder / file).is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [(column, pa.string()) for column in ("shard", "video_id", "labels", "captions")]
        table = pa.Table.from_pylist(records, schema=pa.schema([*fields, ("texts", pa.list_(pa.string()))]))
        commit(folder / file, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    return file


def read_labels(path: Path | None, shard: str) -> dict[str, Annotation]:
    """Return video_id -> labels of a shard, for the videos that have labels."""
    return {video: Annotation.from_json(text) for video, text in _column(path, shard, "labels") if text}


def read_captions(path: Path | None, shard: str) -> dict[str, tuple[Caption, ...]]:
    """Return video_id -> imported captions of a shard, for the videos that have captions."""
    texts = _column(path, shard, "captions")
    return {video: tuple(Caption(*row) for row in json.loads(text)) for video, text in texts if text}


def read_text_digests(path: Path | None) -> dict[str, list[str]]:
    """Return video_id -> `VideoAnnotations.text_digests` of a corpus."""
    return dict(_column(path, None, "texts"))


def _column(path: Path | None, shard: str | None, name: str) -> list[tuple[str, Any]]:
    """Return video_id and value of a column, of one shard or of all."""
    if path is None:
        return []
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(columns=["shard", "video_id", name])
    rows = zip(*(table.column(n).to_pylist() for n in ("shard", "video_id", name)), strict=True)
    return [(video, value) for of_shard, video, value in rows if shard in (None, of_shard)]
