"""What people and models wrote about the videos of a corpus, in one shape for every format.

Belongs here: that shape, and the file beside the registration that holds it, one row a video:
`$CER_HOME/corpora/NAME.DIGEST.parquet`. It is
read when a corpus is registered and never again, so that rows answer what was registered, whatever happens to the files
in between. Does not belong here: reading a format (a module each) or making tables (`corpora.labels.specs`).

Nothing in here reaches a model but the captions. Loading this module is light, since the command line does it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cer_pipeline.store.files import commit

Distribution = tuple[float, ...]

NOT_ANNOTATED: Final = -1
"""In `Annotation.frames`: the sentinel of frames without a class. It is no class and enters no mean."""


@dataclass(frozen=True)
class Span:
    """A stretch of time with one annotation.

    Args:
        begin_s: start, s.
        end_s: end, s; not part of it.
        basic: distribution over `labels.BASIC`; None where the stretch has none.
        compound: distribution over `labels.COMPOUND`; None where the stretch has none.
    """

    begin_s: float
    end_s: float
    basic: Distribution | None = None
    compound: Distribution | None = None


@dataclass(frozen=True)
class Annotation:
    """The labels of one video. Corpora annotate clips, windows, frames or stretches of time, never two of these.

    Args:
        clip: distribution over `labels.BASIC` that holds for the whole video.
        windows: window index -> distribution over `labels.BASIC`.
        frames: position in `labels.BASIC` of every frame in order of presentation, or `NOT_ANNOTATED`.
        spans: stretches of time, by start.
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
        given = [self.clip, *self.windows.values(), *(span.basic for span in self.spans)]
        seen = {i for distribution in given if distribution for i, share in enumerate(distribution) if share > 0}
        return frozenset(seen | {i for i in self.frames if i != NOT_ANNOTATED})

    def to_json(self) -> str:
        """The annotation as text; equal annotations give equal texts."""
        windows = {str(i): self.windows[i] for i in sorted(self.windows)}
        spans = [[s.begin_s, s.end_s, s.basic, s.compound] for s in self.spans]
        return json.dumps({"clip": self.clip, "windows": windows, "frames": self.frames, "spans": spans})

    @classmethod
    def from_json(cls, text: str) -> Annotation:
        """The annotation behind a text of `to_json`."""
        data = json.loads(text)
        return cls(
            clip=_distribution(data["clip"]),
            windows={int(i): tuple(values) for i, values in data["windows"].items()},
            frames=tuple(data["frames"]),
            spans=tuple(Span(b, e, _distribution(basic), _distribution(c)) for b, e, basic, c in data["spans"]),
        )


def _distribution(values: Sequence[float] | None) -> Distribution | None:
    return None if values is None else tuple(values)


@dataclass(frozen=True, order=True)
class Caption:
    """One imported text of a window.

    Args:
        segment: window index.
        view: MODEL_PROMPT.
        text: None where the view has no text for the window.
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
        """The prompt that it answers."""
        return self.view.rpartition("_")[2]


@dataclass(frozen=True)
class Notes:
    """What is known about one video.

    Args:
        labels: its labels; None without any.
        captions: its imported texts, ascending.
    """

    labels: Annotation | None = None
    captions: tuple[Caption, ...] = ()

    @property
    def labels_text(self) -> str | None:
        """The labels as they are kept."""
        return self.labels.to_json() if self.labels else None

    @property
    def captions_text(self) -> str | None:
        """The captions as they are kept."""
        rows = [[c.segment, c.view, c.text] for c in self.captions]
        return json.dumps(rows, ensure_ascii=False) if rows else None

    @property
    def text_digests(self) -> list[str]:
        """One short digest for every different text, whatever its case and blanks; for finding copies."""
        return sorted({text_digest(c.text) for c in self.captions if c.text})


def plain(text: str) -> str:
    """A text without case and with single blanks, for comparing."""
    return " ".join(text.casefold().split())


def text_digest(text: str) -> str:
    """Short digest of a text, whatever its case and blanks."""
    return digest(plain(text))


def digest(text: str | None) -> str:
    """Digest of a kept text; empty for None."""
    return "" if text is None else hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def write(folder: Path, name: str, rows: Iterable[tuple[str, str, Notes]]) -> str | None:
    """Keep the notes of a corpus.

    Args:
        folder: `$CER_HOME/corpora`.
        name: of the corpus.
        rows: shard, video_id and notes of every video.

    Returns:
        Name of the file, which tells its content; None where there is nothing to keep.
    """
    found: list[dict[str, Any]] = [
        {
            "shard": shard,
            "video_id": video_id,
            "labels": notes.labels_text,
            "captions": notes.captions_text,
            "texts": notes.text_digests,
        }
        for shard, video_id, notes in sorted(rows, key=lambda row: row[:2])
        if notes.labels or notes.captions
    ]
    if not found:
        return None
    content = digest(json.dumps(found))
    file = f"{name}.{content}.parquet"
    if not (folder / file).is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = [(column, pa.string()) for column in ("shard", "video_id", "labels", "captions")]
        table = pa.Table.from_pylist(found, schema=pa.schema([*kinds, ("texts", pa.list_(pa.string()))]))
        commit(folder / file, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    return file


def read_labels(path: Path | None, shard: str) -> dict[str, Annotation]:
    """The labels of the videos of a shard; videos without any are not in it."""
    return {video: Annotation.from_json(text) for video, text in _column(path, shard, "labels") if text}


def read_captions(path: Path | None, shard: str) -> dict[str, tuple[Caption, ...]]:
    """The imported texts of the videos of a shard; videos without any are not in it."""
    found = _column(path, shard, "captions")
    return {video: tuple(Caption(*row) for row in json.loads(text)) for video, text in found if text}


def read_text_digests(path: Path | None) -> dict[str, list[str]]:
    """`Notes.text_digests` of all videos of a corpus."""
    return dict(_column(path, None, "texts"))


def _column(path: Path | None, shard: str | None, name: str) -> list[tuple[str, Any]]:
    if path is None:
        return []
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(columns=["shard", "video_id", name])
    rows = zip(*(table.column(n).to_pylist() for n in ("shard", "video_id", name)), strict=True)
    return [(video, value) for mine, video, value in rows if shard in (None, mine)]
