"""The stages `labels` and `frame_labels`: labels of windows and frames from annotations.

Belongs here: the arithmetic from annotated clips, windows, frames and time spans to rows. Does not belong here: reading
annotation files (the formats), or scores (`evaluation`).

The label of a window is the mean over its annotated frames; the sentinel of frames without a class enters no mean, as
in the segment labels of AffWild2 that the authors of the paper publish. The time stamp of a frame decides which windows
it belongs to, so a variable frame rate causes no shift; without time stamps, its number over the nominal rate does.
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
from cer_pipeline.stage import UNIT, Inputs, StageContext, placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS

NO_ANNOTATION: Final = "the video has no annotation"
Array = NDArray[np.float64]


def frame_shares(values: Sequence[int], times: Array, start_s: float, end_s: float) -> tuple[Array | None, float]:
    """Return the class distribution over the frames of a window, and the share of these frames that is annotated.

    Args:
        values: class of every frame, or `NOT_ANNOTATED`.
        times: time of every frame, s. Frames beyond the end of `values` count as not annotated, values beyond the end
            of `times` are ignored.
        start_s: start of the window, s.
        end_s: end of the window, s; exclusive.

    Returns:
        ([8], share), or (None, 0) where no frame of the window is annotated.
    """
    inside: list[int] = np.flatnonzero((times >= start_s) & (times < end_s)).tolist()
    if not inside:
        return None, 0.0
    classes = np.array([values[i] for i in inside if i < len(values) and values[i] != NOT_ANNOTATED], np.int64)
    if not classes.size:
        return None, 0.0
    return np.bincount(classes, minlength=len(BASIC)) / classes.size, classes.size / len(inside)


def spans_at(spans: Sequence[Span], time_s: float) -> tuple[Array | None, Array | None]:
    """Return the mean distributions of the spans at a time, basic and compound; None without any."""
    covering = [span for span in spans if span.begin_s <= time_s < span.end_s]
    return _mean([s.basic for s in covering]), _mean([s.compound for s in covering])


def span_shares(spans: Sequence[Span], start_s: float, end_s: float) -> tuple[Array | None, Array | None, float]:
    """Return the basic and compound distribution over the annotated time of a window, and the share of that time.

    The window is cut where spans begin and end. Each piece has the mean distribution of the spans that cover it, and is
    weighted by its length.
    """
    cuts = sorted({start_s, end_s, *(t for s in spans for t in (s.begin_s, s.end_s) if start_s < t < end_s)})
    basic, compound = np.zeros(len(BASIC)), np.zeros(len(COMPOUND))
    covered = 0.0
    for begin, end in pairwise(cuts):
        of_basic, of_compound = spans_at(spans, (begin + end) / 2)
        basic += 0 if of_basic is None else of_basic * (end - begin)
        compound += 0 if of_compound is None else of_compound * (end - begin)
        covered += 0 if of_basic is None and of_compound is None else end - begin
    return _normalised(basic), _normalised(compound), covered / (end_s - start_s) if end_s > start_s else 0.0


def span_frame_shares(
    spans: Sequence[Span], times: Array, start_s: float, end_s: float
) -> tuple[Array | None, Array | None, float]:
    """As `span_shares`, but the mean over the annotated frames of the window; for videos with known frame times."""
    inside = times[(times >= start_s) & (times < end_s)]
    of_frames = [spans_at(spans, float(time)) for time in inside]
    basic, compound = [b for b, _ in of_frames if b is not None], [c for _, c in of_frames if c is not None]
    covered = sum(b is not None or c is not None for b, c in of_frames)
    return _mean(basic), _mean(compound), covered / len(of_frames) if of_frames else 0.0


def _mean(values: Sequence[Any]) -> Array | None:
    given = [np.asarray(v, np.float64) for v in values if v is not None]
    return _normalised(np.sum(given, axis=0)) if given else None


def _normalised(values: Array) -> Array | None:
    total = values.sum()
    return values / total if total > 0 else None


class _ShardAnnotations:
    """Labels, metadata and frame times of the videos of a shard, for both stages."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.labels = read_labels(inputs.registered().annotations, inputs.shard)
        columns = ["video_id", "fps", "nominal_fps", "frames", "duration_s"]
        self.videos = {row["video_id"]: row for row in inputs.table("videos", columns).to_pylist()}

    def times(self, video: str, count: int = 0) -> Array:
        """Return the times of the frames of a video, s: time stamps, else by the nominal rate; empty without either.

        Args:
            video: its id.
            count: number of frames where the number in the file is unknown.
        """
        batches = self.inputs.batches("frames", video, ["frame_times"])
        lists = [times for batch in batches for times in batch.column("frame_times").to_pylist()]
        stamps = np.array([time for times in lists for time in times or ()], np.float64)
        if stamps.size:
            return stamps
        row = self.videos.get(video, {})
        rate = row.get("nominal_fps") or row.get("fps")
        return np.arange(row.get("frames") or count) / rate if rate else stamps

    def misfit(self, video: str, annotation: Annotation, times: Array) -> str:
        """Return why annotated frames do not fit a video; empty where they fit, or no frame time is known."""
        if not annotation.frames or not times.size:
            return ""
        length = Length(len(times), self.videos.get(video, {}).get("duration_s"))
        comparison = compare_frames(len(annotation.frames), length)
        return "" if comparison.fits else f"the annotation does not fit the video: {comparison.message}"


class SegmentLabels:
    """Stage: the label of every segment of videos."""

    def __init__(self, context: StageContext) -> None:
        self.annotated = _ShardAnnotations(context.inputs)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return the rows of `labels` of some units of the plan."""
        rows = [row for unit in units.to_pylist() for row in self._rows(unit)]
        return pa.Table.from_pylist(rows, schema=LABELS.table.schema)

    def _rows(self, unit: dict[str, Any]) -> list[dict[str, Any]]:
        annotation = self.annotated.labels.get(unit[UNIT]) if unit[ANNOTATED] else None
        if annotation is None or unit[EXCLUDED]:
            return self._unlabelled(unit, unit[EXCLUDED] or NO_ANNOTATION)
        columns = ["segment_id", "video_id", "segment", "start_s", "end_s"]
        batches = self.annotated.inputs.batches("segments", unit[UNIT], columns)
        segments = sorted((row for batch in batches for row in batch.to_pylist()), key=lambda row: row["segment"])
        needs_times = bool(annotation.frames or annotation.spans)
        times = self.annotated.times(unit[UNIT], len(annotation.frames)) if needs_times else np.empty(0)
        if why := self.annotated.misfit(unit[UNIT], annotation, times):
            return self._unlabelled(unit, why)
        return [self._row(unit, segment, annotation, times) for segment in segments]

    def _unlabelled(self, unit: dict[str, Any], reason: str) -> list[dict[str, Any]]:
        rows = placeholder_rows(LABELS, unit, Status.NO_LABEL, reason)
        return [row | {"split": unit[SPLIT]} for row in rows]

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
    """Return the label of one segment: basic [8] or None, compound [7] or None, annotated share.

    Args:
        annotation: of the video.
        segment: its row of `segments`.
        times: of the video's frames, s.
    """
    whole = annotation.clip or annotation.windows.get(segment["segment"])
    if whole is not None:
        return _normalised(np.asarray(whole, np.float64)), None, 1.0
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
    """Stage: the label of every annotated frame of videos."""

    def __init__(self, context: StageContext) -> None:
        self.annotated = _ShardAnnotations(context.inputs)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return the rows of `frame_labels` of some units of the plan."""
        rows = [row for unit in units.to_pylist() for row in self._rows(unit)]
        return pa.Table.from_pylist(rows, schema=FRAME_LABELS.table.schema)

    def _rows(self, unit: dict[str, Any]) -> list[dict[str, Any]]:
        annotation = self.annotated.labels.get(unit[UNIT]) if unit[ANNOTATED] else None
        if annotation is None or unit[EXCLUDED]:
            return self._unlabelled(unit, unit[EXCLUDED] or NO_ANNOTATION)
        times = self.annotated.times(unit[UNIT], len(annotation.frames))
        if why := self.annotated.misfit(unit[UNIT], annotation, times):
            return self._unlabelled(unit, why)
        rows = list(self._frames(unit[UNIT], annotation, times))
        if not any(row["status"] == Status.OK for row in rows):
            return self._unlabelled(unit, "no single frame is annotated")
        return rows

    def _unlabelled(self, unit: dict[str, Any], reason: str) -> list[dict[str, Any]]:
        return placeholder_rows(FRAME_LABELS, unit, Status.NO_LABEL, reason)

    def _frames(self, video: str, annotation: Annotation, times: Array) -> Iterator[dict[str, Any]]:
        if annotation.frames:
            # Annotations beyond the last frame are ignored.
            for frame, value in enumerate(annotation.frames[: len(times) or None]):
                yield _frame(video, frame, None if value == NOT_ANNOTATED else BASIC[value], None)
        elif annotation.spans:
            for frame, time in enumerate(times.tolist()):
                basic, compound = spans_at(annotation.spans, time)
                yield _frame(video, frame, _name(basic, BASIC), _name(compound, COMPOUND))


def _name(values: Array | None, names: Sequence[str]) -> str | None:
    """Return the class with the largest share; the first one of a tie, as `argmax` over segment labels."""
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
