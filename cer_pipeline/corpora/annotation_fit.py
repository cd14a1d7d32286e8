"""Whether annotations fit the videos that they tell of: as many frames, no time and no window beyond the end.

Belongs here: the comparison, what is said about it, and what becomes of annotations that do not fit. Does not belong
here: putting annotations on windows and frames (`corpora.labels.stages`), or opening files (`media`).

Annotations are made on a copy of a video that another program decoded, so counts differ by a few frames even where all
is well (AffWild2); a wrong file, another frame rate or times in milliseconds differ by much more. A small difference is
told, with both numbers, and what lies beyond the end counts for nothing. Above that, nobody can say which frame an
annotation means: the video stays, its annotation is left out, and its rows of `labels` say why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cer_pipeline.corpora.annotations import Annotation, Notes, digest
from cer_pipeline.corpora.formats.caption_files import HOP_S, LENGTH_S
from cer_pipeline.errors import CerError
from cer_pipeline.media.windows import count_windows

if TYPE_CHECKING:
    from cer_pipeline.corpora.corpus import File

MISMATCH_S: Final = 0.2
"""Largest difference between annotated and real frames, as time: one step of the 5 Hz grid. Nobody knows where in the
video the difference lies; if all lies at the start, 5 % of the frames of a 4 s window have a neighbour's class."""

OVERSHOOT_S: Final = 1.0
"""How far a stretch of time may reach beyond the end of its video: people round the end up to a whole second. Up to
`MISMATCH_S` nothing is said."""

DECIMALS: Final = 6
"""Of differences: 6.2 s is not beyond 6 s + 0.2 s."""

EXTRA_WINDOWS: Final = 1
"""How many windows an annotation may have beyond the last one: whoever rounds the duration up has one more."""


@dataclass(frozen=True)
class Length:
    """How long a video is.

    Args:
        frames: number of its frames; 0 where it has no picture; None where unknown.
        duration_s: its duration, s; None where unknown.
    """

    frames: int | None
    duration_s: float | None


@dataclass(frozen=True)
class Verdict:
    """What comes of a comparison.

    Args:
        told: both numbers, for people; empty where there is nothing to tell.
        fits: whether the annotation can be used.
    """

    told: str = ""
    fits: bool = True


def compare_frames(annotated: int, length: Length) -> Verdict:
    """Whether a class for every frame fits a video.

    Args:
        annotated: number of frames that the annotation tells of.
        length: of the video.
    """
    if length.frames is None or annotated == length.frames:
        return Verdict()
    told = f"{annotated} annotated frames, {length.frames} frames in the file"
    allowed = MISMATCH_S * length.frames / length.duration_s if length.duration_s else 0.0
    return Verdict(told, abs(annotated - length.frames) <= round(allowed, DECIMALS))


def compare_spans(annotation: Annotation, length: Length) -> Verdict:
    """Whether stretches of time end where their video does."""
    if length.duration_s is None or not annotation.spans:
        return Verdict()
    last = max(span.end_s for span in annotation.spans)
    beyond = round(last - length.duration_s, DECIMALS)
    if beyond <= MISMATCH_S:
        return Verdict()
    return Verdict(f"annotated up to {last:g} s, the video ends at {length.duration_s:.3f} s", beyond <= OVERSHOOT_S)


def compare_windows(notes: Notes, length: Length) -> Verdict:
    """Whether windows with labels or texts are windows of their video."""
    told = {*(notes.labels.windows if notes.labels else ()), *(caption.segment for caption in notes.captions)}
    if length.duration_s is None or not told:
        return Verdict()
    count, last = count_windows(length.duration_s), max(told)
    if last < count:
        return Verdict()
    what = f"annotated or captioned up to window {last}, the video has {count} windows (0 to {count - 1})"
    return Verdict(what, last < count + EXTRA_WINDOWS)


def needs_length(notes: Notes) -> bool:
    """Whether there is anything to compare: labels of whole clips fit every video."""
    labels = notes.labels
    return bool(notes.captions or (labels and (labels.frames or labels.spans or labels.windows)))


def listed_length(windows: Sequence[int]) -> Length:
    """The length of a video without a media file: it ends with its last window, at the latest."""
    return Length(None, HOP_S * windows[-1] + LENGTH_S if windows else None)


def fitted(
    files: Sequence[File], notes: Mapping[str, Notes], length_of: Callable[[File], Length]
) -> tuple[list[File], dict[str, Notes], list[str]]:
    """Compare the annotations of a corpus with its videos.

    Args:
        files: the videos.
        notes: what was written about each.
        length_of: the length of a video; asked for those that `needs_length` names.

    Returns:
        The files and notes without what does not fit, and one line for every video with a difference.

    Raises:
        CerError: no annotation fits: they belong to other videos, or count something else than frames or seconds.
    """
    out, kept, lines, compared, misfits = [], dict(notes), [], 0, []
    for file in files:
        mine = notes[file.video_id]
        if not needs_length(mine):
            out.append(file)
            continue
        length = length_of(file)
        file = replace(file, frames=length.frames, duration_s=length.duration_s)  # noqa: PLW2901
        by_time = _by_time(mine, length)
        by_window = compare_windows(mine, length)
        compared += 1
        lines += [f"{file.video_id}: {v.told}{_used(v)}" for v in (by_time, by_window) if v.told]
        reasons = [v.told for v in (by_time, by_window) if not v.fits]
        if reasons:
            misfits.append(f"{file.video_id}: {reasons[0]}")
            kept[file.video_id] = Notes(None, mine.captions if by_window.fits else ())
            file = _without(file, kept[file.video_id], reasons[0])  # noqa: PLW2901
        out.append(file)
    if misfits and len(misfits) == compared:
        then = "check that the annotations are of these videos, with a line for every frame and times in seconds"
        raise CerError(f"no annotation fits its video ({compared} compared)", misfits[0], then)
    return out, kept, lines


def _by_time(notes: Notes, length: Length) -> Verdict:
    if notes.labels is None:
        return Verdict()
    if notes.labels.frames:
        return compare_frames(len(notes.labels.frames), length)
    return compare_spans(notes.labels, length)


def _used(verdict: Verdict) -> str:
    return "; what lies beyond the end counts for nothing" if verdict.fits else "; left out: it does not fit this video"


def _without(file: File, notes: Notes, reason: str) -> File:
    return replace(
        file,
        labels=digest(notes.labels_text),
        captions=digest(notes.captions_text),
        excluded=f"the annotation does not fit the video: {reason}",
    )
