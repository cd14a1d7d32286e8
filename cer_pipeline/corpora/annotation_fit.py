"""Comparison of annotations with the length of their videos.

Belongs here: number of frames, last time, last window, the report of a difference, and dropping annotations. Does not
belong here: the labels of windows and frames (`corpora.labels.stages`), or opening files (`media`).

Annotations are made on a copy of a video that another program decoded, so correct ones may differ by a few frames
(AffWild2). A wrong file, another frame rate or times in milliseconds differ by much more. A small difference is
reported with both numbers, and annotations beyond the end are ignored. With a larger difference it is unknown which
frame an annotation means: the video stays, its annotation is dropped, and its rows of `labels` give the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cer_pipeline.corpora.annotations import Annotation, VideoAnnotations, digest
from cer_pipeline.errors import CerError
from cer_pipeline.media.windows import count_windows, listed_window

if TYPE_CHECKING:
    from cer_pipeline.corpora.corpus import File

MISMATCH_S: Final = 0.2
"""Largest difference between annotated and decoded frames, as time: one step of the 5 Hz grid. The place of the
difference is unknown; if it is at the start, 5 % of the frames of a 4 s window have the class of a neighbour."""

OVERSHOOT_S: Final = 1.0
"""How far a time span may end after its video: annotators round the end up to a whole second. Up to `MISMATCH_S`
nothing is reported."""

DECIMALS: Final = 6
"""Of differences: 6.2 s is not beyond 6 s + 0.2 s."""

EXTRA_WINDOWS: Final = 1
"""How many windows an annotation may have beyond the last one: a duration that was rounded up gives one more."""


@dataclass(frozen=True)
class Length:
    """The length of a video.

    Args:
        frames: number of its frames; 0 for a file without picture; None where unknown.
        duration_s: its duration, s; None where unknown.
    """

    frames: int | None
    duration_s: float | None


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Args:
        message: both numbers; empty where there is no difference to report.
        fits: whether the annotation can be used.
    """

    message: str = ""
    fits: bool = True


def compare_frames(annotated: int, length: Length) -> Comparison:
    """Compare a number of annotated frames with a video."""
    if length.frames is None or annotated == length.frames:
        return Comparison()
    message = f"{annotated} annotated frames, {length.frames} frames in the file"
    allowed = MISMATCH_S * length.frames / length.duration_s if length.duration_s else 0.0
    return Comparison(message, abs(annotated - length.frames) <= round(allowed, DECIMALS))


def compare_spans(annotation: Annotation, length: Length) -> Comparison:
    """Compare the end of the last time span with a video."""
    if length.duration_s is None or not annotation.spans:
        return Comparison()
    last = max(span.end_s for span in annotation.spans)
    beyond = round(last - length.duration_s, DECIMALS)
    if beyond <= MISMATCH_S:
        return Comparison()
    message = f"annotated up to {last:g} s, the video ends at {length.duration_s:.3f} s"
    return Comparison(message, beyond <= OVERSHOOT_S)


def compare_windows(annotations: VideoAnnotations, length: Length) -> Comparison:
    """Compare the last window with a label or caption with a video."""
    labels = annotations.labels.windows if annotations.labels else ()
    windows = {*labels, *(caption.segment for caption in annotations.captions)}
    if length.duration_s is None or not windows:
        return Comparison()
    count, last = count_windows(length.duration_s), max(windows)
    if last < count:
        return Comparison()
    message = f"annotated or captioned up to window {last}, the video has {count} windows (0 to {count - 1})"
    return Comparison(message, last < count + EXTRA_WINDOWS)


def needs_length(annotations: VideoAnnotations) -> bool:
    """Return whether there is anything to compare: labels of whole clips fit every video."""
    labels = annotations.labels
    return bool(annotations.captions or (labels and (labels.frames or labels.spans or labels.windows)))


def listed_length(windows: Sequence[int]) -> Length:
    """Return the length of a video without a media file, which ends with its last window at the latest."""
    return Length(None, listed_window(windows[-1], is_tail=True).end_s if windows else None)


def drop_misfits(
    files: Sequence[File], annotations: Mapping[str, VideoAnnotations], length_of: Callable[[File], Length]
) -> tuple[list[File], dict[str, VideoAnnotations], list[str]]:
    """Compare the annotations of a corpus with its videos and drop those that do not fit.

    Args:
        files: the videos.
        annotations: video_id -> its annotations.
        length_of: the length of a video; called for those that `needs_length` selects.

    Returns:
        Files, annotations, and one line for every video with a difference.

    Raises:
        CerError: no annotation fits: they belong to other videos, or count something else than frames or seconds.
    """
    compared_files, kept, lines, misfits = [], dict(annotations), [], []
    compared = 0
    for file in files:
        given = annotations[file.video_id]
        if not needs_length(given):
            compared_files.append(file)
            continue
        length = length_of(file)
        file = replace(file, frames=length.frames, duration_s=length.duration_s)  # noqa: PLW2901
        by_time, by_window = _compare_times(given, length), compare_windows(given, length)
        compared += 1
        lines += [f"{file.video_id}: {c.message}{_consequence(c)}" for c in (by_time, by_window) if c.message]
        reasons = [c.message for c in (by_time, by_window) if not c.fits]
        if reasons:
            misfits.append(f"{file.video_id}: {reasons[0]}")
            kept[file.video_id] = VideoAnnotations(None, given.captions if by_window.fits else ())
            file = _without_labels(file, kept[file.video_id], reasons[0])  # noqa: PLW2901
        compared_files.append(file)
    if misfits and len(misfits) == compared:
        then = "check that the annotations are of these videos, with a line for every frame and times in seconds"
        raise CerError(f"no annotation fits its video ({compared} compared)", misfits[0], then)
    return compared_files, kept, lines


def _compare_times(annotations: VideoAnnotations, length: Length) -> Comparison:
    if annotations.labels is None:
        return Comparison()
    if annotations.labels.frames:
        return compare_frames(len(annotations.labels.frames), length)
    return compare_spans(annotations.labels, length)


def _consequence(comparison: Comparison) -> str:
    if comparison.fits:
        return "; annotations beyond the end are ignored"
    return "; left out: it does not fit this video"


def _without_labels(file: File, annotations: VideoAnnotations, reason: str) -> File:
    return replace(
        file,
        labels=digest(annotations.labels_json),
        captions=digest(annotations.captions_json),
        excluded=f"the annotation does not fit the video: {reason}",
    )
