"""The classes behind `labels` and `frame_labels`: annotations put on windows and frames.

Belongs here: the arithmetic from annotated clips, windows, frames and stretches of time to rows. Does not belong here:
reading annotation files (the formats), or what is scored (`evaluation`).

A window's label is the mean over its annotated frames; the sentinel of frames without a class enters no mean, as in the
segment labels of AffWild2 that the paper's authors publish. A frame belongs to a window by its own
time stamp, so a variable frame rate shifts nothing; where no time stamp is known, by its number over the nominal rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.corpora.annotation_fit import Length, compare_frames
from cer_pipeline.corpora.annotations import NOT_ANNOTATED, Annotation, Span, read_labels
from cer_pipeline.corpora.labels.specs import ANNOTATED, EXCLUDED, FRAME_LABELS, LABELS, SPLIT
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.stage import UNIT, Inputs, StageContext, StageSpec, placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS

NOBODY: Final = "the video has no annotation"
Array = NDArray[np.float64]


def frame_shares(values: Sequence[int], times: Array, start_s: float, end_s: float) -> tuple[Array | None, float]:
    """A window's distribution over the frames of [start, end), and the share of these frames that is annotated.

    Args:
        values: class of every frame, or `NOT_ANNOTATED`.
        times: time of every frame, s; may be shorter or longer than `values`: frames without a partner count as not
            annotated, annotations without a frame lie in no window.
        start_s: start of the window, s.
        end_s: its end, s; not part of it.

    Returns:
        ([8], share), or (None, 0) where no frame of the window is annotated.
    """
    inside: list[int] = np.flatnonzero((times >= start_s) & (times < end_s)).tolist()
    if not inside:
        return None, 0.0
    named = np.array([values[i] for i in inside if i < len(values) and values[i] != NOT_ANNOTATED], np.int64)
    if not named.size:
        return None, 0.0
    return np.bincount(named, minlength=len(BASIC)) / named.size, named.size / len(inside)


def spans_at(spans: Sequence[Span], time_s: float) -> tuple[Array | None, Array | None]:
    """Mean distribution of the stretches that cover a time, for each of the two vocabularies that has any."""
    there = [span for span in spans if span.begin_s <= time_s < span.end_s]
    return _mean([s.basic for s in there]), _mean([s.compound for s in there])


def span_shares(spans: Sequence[Span], start_s: float, end_s: float) -> tuple[Array | None, Array | None, float]:
    """A window's distributions over the time that is annotated, and the share of the window that is.

    Time is cut where stretches begin and end; each piece counts by its length, with the mean of what covers it.
    """
    cuts = sorted({start_s, end_s, *(t for s in spans for t in (s.begin_s, s.end_s) if start_s < t < end_s)})
    basic, compound = np.zeros(len(BASIC)), np.zeros(len(COMPOUND))
    covered = 0.0
    for begin, end in pairwise(cuts):
        of_basic, of_compound = spans_at(spans, (begin + end) / 2)
        basic += 0 if of_basic is None else of_basic * (end - begin)
        compound += 0 if of_compound is None else of_compound * (end - begin)
        covered += 0 if of_basic is None and of_compound is None else end - begin
    return _normal(basic), _normal(compound), covered / (end_s - start_s) if end_s > start_s else 0.0


def span_frame_shares(
    spans: Sequence[Span], times: Array, start_s: float, end_s: float
) -> tuple[Array | None, Array | None, float]:
    """As `span_shares`, where the frames are known: the mean over the annotated frames of the window."""
    inside = times[(times >= start_s) & (times < end_s)]
    found = [spans_at(spans, float(time)) for time in inside]
    basic, compound = [b for b, _ in found if b is not None], [c for _, c in found if c is not None]
    covered = sum(b is not None or c is not None for b, c in found)
    return _mean(basic), _mean(compound), covered / len(found) if found else 0.0


def _mean(values: Sequence[Any]) -> Array | None:
    given = [np.asarray(v, np.float64) for v in values if v is not None]
    return _normal(np.sum(given, axis=0)) if given else None


def _normal(values: Array) -> Array | None:
    total = values.sum()
    return values / total if total > 0 else None


class _Annotated:
    """What both stages read of a shard."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.labels = read_labels(inputs.registered().annotations, inputs.shard)
        columns = ["video_id", "fps", "nominal_fps", "frames", "duration_s"]
        self.videos = {row["video_id"]: row for row in inputs.table("videos", columns).to_pylist()}

    def times(self, video: str, count: int = 0) -> Array:
        """Times of the video's frames, s: their own, else by the nominal rate; none where neither is known.

        Args:
            video: its id.
            count: frames that are annotated, where that is how many there are thought to be.
        """
        batches = self.inputs.batches("frames", video, ["frame_times"])
        lists = [times for batch in batches for times in batch.column("frame_times").to_pylist()]
        own = np.array([time for times in lists for time in times or ()], np.float64)
        if own.size:
            return own
        row = self.videos.get(video, {})
        rate = row.get("nominal_fps") or row.get("fps")
        return np.arange(row.get("frames") or count) / rate if rate else own

    def misfit(self, video: str, annotation: Annotation, times: Array) -> str:
        """Why a class for every frame is of other frames than these; empty where it fits, or nothing is known."""
        if not annotation.frames or not times.size:
            return ""
        length = Length(len(times), self.videos.get(video, {}).get("duration_s"))
        verdict = compare_frames(len(annotation.frames), length)
        return "" if verdict.fits else f"the annotation does not fit the video: {verdict.message}"


class SegmentLabels:
    """Units (videos) -> the label of every segment."""

    def __init__(self, context: StageContext) -> None:
        self.annotated = _Annotated(context.inputs)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of `labels` for videos of the plan."""
        rows = [row for unit in units.to_pylist() for row in self._rows(unit)]
        return pa.Table.from_pylist(rows, schema=LABELS.table.schema)

    def _rows(self, unit: dict[str, Any]) -> list[dict[str, Any]]:
        annotation = self.annotated.labels.get(unit[UNIT]) if unit[ANNOTATED] else None
        if annotation is None or unit[EXCLUDED]:
            rows = _blank(LABELS, unit, unit[EXCLUDED] or NOBODY)
            return [row | {"split": unit[SPLIT]} for row in rows]
        columns = ["segment_id", "video_id", "segment", "start_s", "end_s"]
        batches = self.annotated.inputs.batches("segments", unit[UNIT], columns)
        segments = sorted((row for batch in batches for row in batch.to_pylist()), key=lambda row: row["segment"])
        needs_times = bool(annotation.frames or annotation.spans)
        times = self.annotated.times(unit[UNIT], len(annotation.frames)) if needs_times else np.empty(0)
        if why := self.annotated.misfit(unit[UNIT], annotation, times):
            return [row | {"split": unit[SPLIT]} for row in _blank(LABELS, unit, why)]
        return [self._row(unit, segment, annotation, times) for segment in segments]

    def _row(
        self, unit: dict[str, Any], segment: dict[str, Any], annotation: Annotation, times: Array
    ) -> dict[str, Any]:
        basic, compound, share = shares(annotation, segment, times)
        row: dict[str, Any] = {name: segment[name] for name in ("segment_id", "video_id", "segment")}
        row |= {"split": unit[SPLIT], "annotated": share, "status": str(Status.OK), "reason": None}
        row |= dict.fromkeys((*LABEL_COLUMNS, *COMPOUND_LABEL_COLUMNS))
        if basic is not None:
            row |= dict(zip(LABEL_COLUMNS, basic.tolist(), strict=True))
        if compound is not None:
            row |= dict(zip(COMPOUND_LABEL_COLUMNS, compound.tolist(), strict=True))
        if basic is None and compound is None:
            row |= {"status": str(Status.NO_LABEL), "reason": _why(annotation, times)}
        return row


def shares(annotation: Annotation, segment: dict[str, Any], times: Array) -> tuple[Array | None, Array | None, float]:
    """The label of one segment: basic [8] or None, compound [7] or None, annotated share.

    Args:
        annotation: of the video.
        segment: its row of `segments`.
        times: of the video's frames, s.
    """
    whole = annotation.clip or annotation.windows.get(segment["segment"])
    if whole is not None:
        return _normal(np.asarray(whole, np.float64)), None, 1.0
    start, end = segment["start_s"], segment["end_s"]
    if annotation.frames:
        basic, share = frame_shares(annotation.frames, times, start, end)
        return basic, None, share
    if annotation.spans and times.size:
        return span_frame_shares(annotation.spans, times, start, end)
    if annotation.spans:
        return span_shares(annotation.spans, start, end)
    return None, None, 0.0


def _why(annotation: Annotation, times: Array) -> str:
    if annotation.frames and not times.size:
        return "the frames are annotated, and neither their times nor a frame rate are known"
    return "nothing in this window is annotated"


class FrameLabels:
    """Units (videos) -> the label of every annotated frame."""

    def __init__(self, context: StageContext) -> None:
        self.annotated = _Annotated(context.inputs)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of `frame_labels` for videos of the plan."""
        rows = [row for unit in units.to_pylist() for row in self._rows(unit)]
        return pa.Table.from_pylist(rows, schema=FRAME_LABELS.table.schema)

    def _rows(self, unit: dict[str, Any]) -> list[dict[str, Any]]:
        annotation = self.annotated.labels.get(unit[UNIT]) if unit[ANNOTATED] else None
        if annotation is None or unit[EXCLUDED]:
            return _blank(FRAME_LABELS, unit, unit[EXCLUDED] or NOBODY)
        times = self.annotated.times(unit[UNIT], len(annotation.frames))
        if why := self.annotated.misfit(unit[UNIT], annotation, times):
            return _blank(FRAME_LABELS, unit, why)
        rows = list(self._frames(unit[UNIT], annotation, times))
        if not any(row["status"] == Status.OK for row in rows):
            rows = []  # one row says it for all
        return rows or _blank(FRAME_LABELS, unit, "no single frame is annotated")

    def _frames(self, video: str, annotation: Annotation, times: Array) -> Iterator[dict[str, Any]]:
        if annotation.frames:
            # What is annotated beyond the last frame is no frame of this video.
            for frame, value in enumerate(annotation.frames[: len(times) or None]):
                yield _frame(video, frame, None if value == NOT_ANNOTATED else BASIC[value], None)
        elif annotation.spans:
            for frame, time in enumerate(times.tolist()):
                basic, compound = spans_at(annotation.spans, time)
                yield _frame(video, frame, _name(basic, BASIC), _name(compound, COMPOUND))


def _name(values: Array | None, names: Sequence[str]) -> str | None:
    """The class of the largest share; of equal ones the first, as `argmax` over segment labels takes it."""
    return None if values is None else names[int(values.argmax())]


def _frame(video: str, frame: int, basic: str | None, compound: str | None) -> dict[str, Any]:
    named = basic is not None or compound is not None
    return {
        "video_id": video,
        "frame": frame,
        "basic": basic,
        "compound": compound,
        "status": str(Status.OK if named else Status.NO_LABEL),
        "reason": None if named else "the frame is not annotated",
    }


def _blank(spec: StageSpec, unit: dict[str, Any], reason: str) -> list[dict[str, Any]]:
    return placeholder_rows(spec, unit, Status.NO_LABEL, reason)
