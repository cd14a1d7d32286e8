"""Map the frames of a video, in order of presentation, to the samples of the grid.

Belongs here: which frame a sample shows, and which time stamps belong to a sample. Pure: no media library.
Does not belong here: decoding, pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cer_pipeline.media.windows import MICRO
from cer_pipeline.status import Status

TOLERANCE_US: Final = 1
"""A frame is shown at a sample that it follows by at most this: starts of containers and time stamps are both rounded
to 1 microsecond."""

LONGEST_INTERVAL: Final = 1.5
"""A frame without a stated duration is shown for at most this many median intervals: frame rates may be uneven."""


@dataclass(frozen=True)
class Shown:
    """A frame of the time line, whether or not it was decoded.

    Args:
        time_us: presentation time, microseconds from the start of the container.
        number: 0-based number among the decoded frames; None for a frame that was not decoded.
        picture: the picture, of any type; None for a damaged frame.
        reason: why there is no picture.
        after_damage: whether the file is damaged right before the frame.
        until_us: end of the frame as the file states it, microseconds.
    """

    time_us: int
    number: int | None
    picture: Any = None
    reason: str = ""
    after_damage: bool = False
    until_us: int = 0


@dataclass(frozen=True)
class End:
    """End of a video, microseconds.

    Args:
        end_us: end of the last frame.
        missing_until_us: stated end of a file that is cut off; 0 for a complete file.
    """

    end_us: int
    missing_until_us: int = 0


@dataclass
class Sample:
    """One sample of the grid.

    Args:
        index: number of the sample.
        status: ok, no_video or undecodable.
        reason: why no frame is shown; None if one is.
        shown: the frame that is shown.
        frame_times: times of the decoded frames from this sample to the next, s.
    """

    index: int
    status: Status
    reason: str | None
    shown: Shown | None
    frame_times: list[float] = field(default_factory=list)


class Sampler:
    """Assign frames to samples while the frames arrive.

    Args:
        samples: number of samples.
        rate_hz: samples per second.
        interval_us: median time between frames.
        hold_us: how long a frame without a stated end is shown if no other follows.
    """

    def __init__(self, samples: int, rate_hz: int, interval_us: float, hold_us: int) -> None:
        self._samples = samples
        self._rate = rate_hz
        self._interval = interval_us
        self._hold = hold_us
        self._next = 0  # index of the next sample
        self._last: Shown | None = None
        self._pending: Sample | None = None  # has its frame, but more time stamps may follow
        self._times: dict[int, list[float]] = {}

    def frame(self, shown: Shown) -> Iterator[Sample]:
        """Take the next frame and yield the samples that it completes."""
        if shown.number is not None:
            at = (shown.time_us + TOLERANCE_US) * self._rate // MICRO
            at = min(max(at, 0), self._samples - 1)
            self._times.setdefault(at, []).append(shown.time_us / MICRO)
        while self._next < self._samples and self._time(self._next) + TOLERANCE_US < shown.time_us:
            if self._last is None:
                # Encoders delay the first picture by less than a sample; the first sample shows that picture.
                if self._next == 0 and shown.time_us <= self._time(1):
                    break
                yield from self._take(self._none(f"the picture starts at {shown.time_us / MICRO:.3f} s"))
            else:
                yield from self._take(self._between(self._last, shown))
        self._last = shown

    def finish(self, end: End) -> Iterator[Sample]:
        """Yield all other samples after the last frame."""
        while self._next < self._samples:
            yield from self._take(self._after(end))
        yield from self._close()

    def _between(self, last: Shown, following: Shown) -> Sample:
        time = self._time(self._next)
        if following.after_damage and time > last.time_us + LONGEST_INTERVAL * self._interval:
            return self._undecodable("the file is damaged here")
        until = max(last.until_us, last.time_us + LONGEST_INTERVAL * self._interval, last.time_us + self._hold)
        if time < until + TOLERANCE_US:
            return self._shown(last)
        return self._none(f"no picture came from {last.time_us / MICRO:.3f} to {following.time_us / MICRO:.3f} s")

    def _after(self, end: End) -> Sample:
        time = self._time(self._next)
        if self._last is None:
            return self._undecodable("no frame could be decoded")
        if time < end.end_us or time <= self._last.time_us:
            return self._shown(self._last)
        if time < end.missing_until_us:
            return self._undecodable(f"the file is cut off: its last frame is at {self._last.time_us / MICRO:.3f} s")
        if time < self._last.time_us + self._hold:
            return self._shown(self._last)
        return self._none(f"the video stream ends at {max(end.end_us, end.missing_until_us) / MICRO:.3f} s")

    def _none(self, reason: str) -> Sample:
        return Sample(self._next, Status.NO_VIDEO, reason, None)

    def _shown(self, shown: Shown) -> Sample:
        if shown.picture is None:
            return self._undecodable(shown.reason)
        return Sample(self._next, Status.OK, None, shown)

    def _undecodable(self, reason: str) -> Sample:
        return Sample(self._next, Status.UNDECODABLE, reason, None)

    def _take(self, sample: Sample) -> Iterator[Sample]:
        yield from self._close()
        self._pending = sample
        self._next += 1

    def _close(self) -> Iterator[Sample]:
        if self._pending is not None:
            self._pending.frame_times = self._times.pop(self._pending.index, [])
            yield self._pending
        self._pending = None

    def _time(self, sample: int) -> int:
        return sample * MICRO // self._rate
