"""Reader of caption files: CSV files of captions by a vision-language model, with or without labels.

Belongs here: the layout, the names of segments, and the checks for labels that leak or are not valid. Does not belong
here: training (`branches.scene.train`) or prediction from captions (`branches.scene.caption_head`).

Layout: `<folder>/<vlm>_<prompt>_<split>.csv`, one file for each model and prompt, with the columns `video_name`, `text`
and the 8 basic emotions; label columns may be empty. Every (vlm, prompt) is one *view* of the same segments. The three
corpora name their segments differently, all as `<video>___<rest>_<index>`:

* `01___0003.mp4` (C-EXPR-DB): video 01, segment 3;
* `117___2038_2158_0034.avi` (AffWild2): video 117, source frames 2038 to 2158, segment 34;
* `000149120___Angry_0000.avi` (AFEW): video 000149120, segment 0, and the label, spelled out. It is removed from
  the id here, compared with the label columns, and not stored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from cer_pipeline.corpora.annotations import plain
from cer_pipeline.corpora.csv_rows import read_rows
from cer_pipeline.corpora.leaks import class_word
from cer_pipeline.corpora.names import nfc
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.sums import plain_sum

SUM_TOLERANCE: Final = 1e-3  # labels are written with few decimals

NAME: Final = "video_name"
TEXT: Final = "text"

FOLDERS: Final[dict[str, str]] = {
    "Neutral": "Neutral",
    "Angry": "Anger",
    "Disgust": "Disgust",
    "Fear": "Fear",
    "Happy": "Happiness",
    "Sad": "Sadness",
    "Surprise": "Surprise",
}
"""Class folder of AFEW, as in segment names -> basic emotion."""

_FILE: Final = re.compile(r"(?P<vlm>.+)_(?P<prompt>[^_]+)_(?P<split>[^_]+)\.csv")
_SEGMENT: Final = re.compile(
    r"(?P<video>.+)___(?:(?P<folder>[A-Za-z]+)_|(?P<first>\d+)_(?P<last>\d+)_)?(?P<index>\d{4,})(?:\.[A-Za-z0-9]+)?"
)


@dataclass(frozen=True, order=True)
class SegmentName:
    """The parsed name of a segment, without its label.

    Args:
        video_id: the source clip, which groups segments and separates splits.
        segment: window index i.
        frames: first and last source frame where the name has them.
    """

    video_id: str
    segment: int
    frames: tuple[int, int] | None = None

    @property
    def segment_id(self) -> str:
        """`video_id/index`, as in every table."""
        return f"{self.video_id}/{self.segment:04d}"


def parse_name(name: str) -> tuple[SegmentName, str | None]:
    """Parse the name of a segment.

    Args:
        name: such as `000149120___Angry_0000.avi`.

    Returns:
        The name without its label, and the basic emotion of its class folder; None without one.

    Raises:
        CerError: the name has another form, an unknown class folder, or a class word in the part of the video.
    """
    match = _SEGMENT.fullmatch(name)
    if match is None:
        raise CerError("the name of a segment has another form", name, "name segments as VIDEO___0000.mp4")
    folder = match["folder"]
    if folder is not None and folder not in FOLDERS:
        raise CerError(f"unknown class {folder!r} in the name of a segment", name, f"known: {', '.join(FOLDERS)}")
    if word := class_word(match["video"]):
        raise CerError(f"the name of a video contains the class word {word!r}", name, "rename the video")
    frames = (int(match["first"]), int(match["last"])) if match["first"] else None
    return SegmentName(nfc(match["video"]), int(match["index"]), frames), FOLDERS[folder] if folder else None


@dataclass(frozen=True)
class CaptionSplit:
    """The captions of one split, aligned over all views.

    Args:
        corpus: name of the folder.
        split: train, dev or test.
        segments: segments of any view, in order of video and index.
        texts: view -> one caption for each segment; None where the view lacks the segment or its caption is empty.
        labels: distribution over the 8 basic emotions [n, 8]; None for a split without labels.
        digests: file name -> SHA-256 of every file read.
    """

    corpus: str
    split: str
    segments: tuple[SegmentName, ...]
    texts: Mapping[str, tuple[str | None, ...]]
    labels: np.ndarray | None
    digests: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def videos(self) -> tuple[str, ...]:
        """The video of every segment, its group in cross-validation."""
        return tuple(s.video_id for s in self.segments)

    @property
    def targets(self) -> np.ndarray:
        """Index of the most probable label of every segment [n]; the first one of a tie.

        Raises:
            CerError: the split has no labels.
        """
        if self.labels is None:
            raise CerError("the label columns are all empty", f"{self.corpus} {self.split}", "choose a labelled split")
        return self.labels.argmax(1)

    def keep(self, rows: Sequence[int] | np.ndarray) -> CaptionSplit:
        """Return the split with only the given rows, in the given order."""
        index = [int(i) for i in rows]
        return replace(
            self,
            segments=tuple(self.segments[i] for i in index),
            texts={view: tuple(texts[i] for i in index) for view, texts in self.texts.items()},
            labels=None if self.labels is None else self.labels[index],
        )


def splits(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the files of a caption corpus: split -> view -> file, views in order of their names.

    Raises:
        CerError: the folder does not exist or contains no caption file.
    """
    if not folder.is_dir():
        raise CerError("the caption folder does not exist", str(folder))
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.csv")):
        if match := _FILE.fullmatch(path.name):
            files.setdefault(match["split"], {})[f"{match['vlm']}_{match['prompt']}"] = path
    if not files:
        raise CerError("no caption file in the folder", str(folder), "name files as VLM_PROMPT_SPLIT.csv")
    return files


def read_split(folder: Path, split: str, *, labelled: bool, views: Sequence[str] | None = None) -> CaptionSplit:
    """Read and align the views of one split.

    Args:
        folder: folder of the corpus.
        split: train, dev or test.
        labelled: whether every row must have a label; if not, labels are dropped.
        views: views to read, `VLM_PROMPT`; all of the split by default.

    Raises:
        CerError: a file, row or label that is not valid; the error names it.
    """
    chosen = _chosen(folder, split, views)
    return _aligned(
        folder, split, {view: _read_file(path, labelled=labelled) for view, path in chosen.items()}, labelled
    )


def read_as_is(folder: Path, split: str) -> CaptionSplit:
    """Read and align all views of one split, with labels where its files have them.

    Raises:
        CerError: a file, row or label that is not valid, or only some of the files have labels.
    """
    chosen = _chosen(folder, split, None)
    rows = {view: _read_file(path, labelled=None) for view, path in chosen.items()}
    empty = [view for view, table in rows.items() if next(iter(table.values())).label is None]
    if empty and len(empty) < len(rows):
        where = str(chosen[empty[0]])
        then = f"fill them as in the other files of {split}, or empty them in all"
        raise CerError("the label columns are all empty", where, then)
    return _aligned(folder, split, rows, labelled=not empty)


def _chosen(folder: Path, split: str, views: Sequence[str] | None) -> dict[str, Path]:
    files = splits(folder)
    if split not in files:
        raise CerError(f"no caption file of the split {split!r}", str(folder), f"it has: {', '.join(sorted(files))}")
    unknown = sorted(set(views or ()) - set(files[split]))
    if unknown:
        raise CerError(f"unknown view {unknown[0]}", f"{folder} {split}", f"it has: {', '.join(files[split])}")
    return {view: files[split][view] for view in (views or files[split])}


def _aligned(folder: Path, split: str, rows: Mapping[str, Mapping[SegmentName, _Row]], labelled: bool) -> CaptionSplit:
    segments = tuple(sorted({segment for table in rows.values() for segment in table}))
    paths = _chosen(folder, split, list(rows)).values()
    return CaptionSplit(
        corpus=folder.name,
        split=split,
        segments=segments,
        texts={view: tuple(table[s].text if s in table else None for s in segments) for view, table in rows.items()},
        labels=_merge_labels(segments, rows) if labelled else None,
        digests={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
    )


@dataclass(frozen=True)
class Overlap:
    """What two splits share, as rows of the first one.

    Args:
        videos: source clips in both splits.
        texts: segments of the first split with a caption that is also in the second, in any view.
        rows: rows of the first split with such a clip or caption.
    """

    videos: tuple[str, ...]
    texts: tuple[str, ...]
    rows: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.rows)


def overlap(train: CaptionSplit, other: CaptionSplit) -> Overlap:
    """Return source clips and captions (case and blanks aside) of `train` that are also in `other`."""
    videos = set(train.videos) & set(other.videos)
    known = {plain(text) for texts in other.texts.values() for text in texts if text}
    copied = [
        any(text is not None and plain(text) in known for text in texts)
        for texts in zip(*train.texts.values(), strict=True)
    ]
    rows = [i for i, s in enumerate(train.segments) if s.video_id in videos or copied[i]]
    return Overlap(
        videos=tuple(sorted(videos)),
        texts=tuple(train.segments[i].segment_id for i in rows if copied[i]),
        rows=tuple(rows),
    )


def separate(train: CaptionSplit, other: CaptionSplit) -> tuple[CaptionSplit, Overlap]:
    """Return `train` without the rows that it shares with `other`, and the overlap."""
    shared = overlap(train, other)
    dropped = set(shared.rows)
    return train.keep([i for i in range(len(train)) if i not in dropped]), shared


def check_separate(train: CaptionSplit, other: CaptionSplit) -> None:
    """Refuse two splits that share a source clip or a caption.

    Raises:
        CerError: they do; the error names the first one.
    """
    shared = overlap(train, other)
    where = f"{train.corpus} {train.split} and {other.corpus} {other.split}"
    then = "leave these rows out of training"
    if shared.videos:
        raise CerError(f"{len(shared.videos)} source clips are in both splits, first {shared.videos[0]}", where, then)
    if shared.texts:
        raise CerError(f"{len(shared.texts)} texts are in both splits, first that of {shared.texts[0]}", where, then)


@dataclass(frozen=True)
class _Row:
    text: str | None
    label: tuple[float, ...] | None
    where: str


def _read_file(path: Path, *, labelled: bool | None) -> dict[SegmentName, _Row]:
    """Return segment -> row. Every row must have a label if `labelled`; if None, either all rows have one or none."""
    rows: dict[SegmentName, _Row] = {}
    row_of: dict[str, str] = {}
    for where, record in read_rows(path, (NAME, TEXT, *BASIC), (), BASIC):
        try:
            segment, spelled = parse_name(record[NAME] or "")
        except CerError as error:
            raise CerError(error.what, f"{error.where!r} in {where}", error.then) from None
        if segment.segment_id in row_of:
            raise CerError(
                f"the segment {segment.segment_id} occurs twice", f"{where} and {row_of[segment.segment_id]}"
            )
        row_of[segment.segment_id] = where.partition(" of ")[0]
        text = (record[TEXT] or "").strip()
        if Path(record[NAME] or "").stem in text:
            raise CerError("the text contains the name of its segment", where, "take the name out of the text")
        label = _label(record, where)
        if (
            labelled is not False
            and label is not None
            and spelled is not None
            and label[BASIC.index(spelled)] != max(label)
        ):
            raise CerError(f"the name says {spelled}, the label columns {BASIC[label.index(max(label))]}", where)
        rows[segment] = _Row(text or None, label, where)
    if not rows:
        raise CerError("the caption file has no rows", str(path))
    unlabelled = [row.where for row in rows.values() if row.label is None]
    if labelled is None:
        labelled = len(unlabelled) < len(rows)
    if labelled and len(unlabelled) == len(rows):
        raise CerError(
            "the label columns are all empty", str(path), "choose a labelled split, or read it as unlabelled"
        )
    if labelled and unlabelled:
        raise CerError("a row without a label in a labelled file", unlabelled[0], "fill its label columns or remove it")
    return rows


def _label(record: Mapping[str, str], where: str) -> tuple[float, ...] | None:
    """Return the label distribution of a row; None where all its label columns are empty."""
    cells = {name: record[name].strip() for name in BASIC}
    if not any(cells.values()):
        return None
    values = []
    for name, cell in cells.items():
        try:
            value = float(cell)
        except ValueError:
            what = "is empty" if not cell else f"is no number ({cell!r})"
            raise CerError(f"the label of {name} {what}", where, "give all 8 label columns or none") from None
        if not 0 <= value <= 1:  # refuses -1, the sentinel of frames without annotation, and nan
            raise CerError(
                f"the label of {name} is {cell}, outside 0..1", where, "leave unannotated frames out of means"
            )
        values.append(value)
    total = plain_sum(values)
    if abs(total - 1) > SUM_TOLERANCE:
        raise CerError(f"the labels sum to {total:g}, not to 1", where)
    return tuple(values)


def _merge_labels(segments: Sequence[SegmentName], rows: Mapping[str, Mapping[SegmentName, _Row]]) -> np.ndarray:
    merged = np.zeros((len(segments), len(BASIC)))
    for i, segment in enumerate(segments):
        first, *others = [table[segment] for table in rows.values() if segment in table]
        for row in others:
            if row.label != first.label:
                raise CerError(f"two views label {segment.segment_id} differently", f"{first.where} and {row.where}")
        merged[i] = first.label
    return merged
