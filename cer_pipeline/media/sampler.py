"""From the frames of a video, in order of presentation, to the samples of the grid.

Belongs here: which frame is shown at which sample, and which time stamps a sample keeps. Pure: no media library.
Does not belong here: decoding, pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cer_pipeline.media.windows import MICRO
from cer_pipeline.status import Status

TOLERANCE_US: Final = 1
"""A frame counts as shown at a sample that it follows by no more than this: starts of containers and time stamps are
both rounded to 1 microsecond."""

HOLE: Final = 1.5
"""A frame of no stated length lasts at most this many frame intervals: uneven frame rates come near."""


@dataclass(frozen=True)
class Shown:
    """A frame that is, or should have been, shown.

    Args:
        time_us: its time, microseconds from the start of the container.
        number: 0-based number among the frames that came out; None for one that did not.
        picture: what the caller makes the sample of; None for a damaged one.
        reason: why there is no picture.
        torn: whether the file is damaged right before it.
        until_us: up to when it is shown, as far as the file says so.
    """

    time_us: int
    number: int | None
    picture: Any = None
    reason: str = ""
    torn: bool = False
    until_us: int = 0


@dataclass(frozen=True)
class End:
    """How a video ends.

    Args:
        end_us: end of the last frame.
        missing_until_us: up to where frames should have come but the file is cut off; 0 where it is whole.
    """

    end_us: int
    missing_until_us: int = 0


@dataclass
class Sample:
    """One sample of the grid, with the frame that is shown, or the reason why none is."""

    index: int
    status: Status
    reason: str | None
    shown: Shown | None
    frame_times: list[float] = field(default_factory=list)


class Sampler:
    """Walks along the grid while frames come.

    Args:
        samples: number of samples.
        rate_hz: samples per second.
        interval_us: usual time between frames.
        hold_us: how long a frame is shown, whether or not the file says so, while no other comes.
    """

    def __init__(self, samples: int, rate_hz: int, interval_us: float, hold_us: int) -> None:
        self._samples = samples
        self._rate = rate_hz
        self._interval = interval_us
        self._hold = hold_us
        self._next = 0  # the next sample without a frame
        self._last: Shown | None = None
        self._open: list[Sample] = []  # has its frame, but more time stamps may come
        self._times: dict[int, list[float]] = {}

    def frame(self, shown: Shown) -> Iterator[Sample]:
        """Take the next frame; yields the samples that are complete with it."""
        if shown.number is not None:
            at = (shown.time_us + TOLERANCE_US) * self._rate // MICRO
            at = min(max(at, 0), self._samples - 1)
            self._times.setdefault(at, []).append(shown.time_us / MICRO)
        while self._next < self._samples and self._time(self._next) + TOLERANCE_US < shown.time_us:
            if self._last is None:
                # Encoders delay the first picture a little: less than a sample, and there is no other to show.
                if self._next == 0 and shown.time_us <= self._time(1):
                    break
                yield from self._take(self._none(f"the picture starts at {shown.time_us / MICRO:.3f} s"))
            else:
                yield from self._take(self._between(self._last, shown))
        self._last = shown

    def finish(self, end: End) -> Iterator[Sample]:
        """No more frames come; yields all other samples."""
        while self._next < self._samples:
            yield from self._take(self._after(end))
        yield from self._close()

    def _between(self, last: Shown, following: Shown) -> Sample:
        time = self._time(self._next)
        if following.torn and time > last.time_us + HOLE * self._interval:
            return self._lost("the file is damaged here")
        until = max(last.until_us, last.time_us + HOLE * self._interval, last.time_us + self._hold)
        if time < until + TOLERANCE_US:
            return self._shown(last)
        return self._none(f"no picture came from {last.time_us / MICRO:.3f} to {following.time_us / MICRO:.3f} s")

    def _after(self, end: End) -> Sample:
        time = self._time(self._next)
        if self._last is None:
            return self._lost("no frame could be decoded")
        if time < end.end_us or time <= self._last.time_us:
            return self._shown(self._last)
        if time < end.missing_until_us:
            return self._lost(f"the file is cut off: its last frame is at {self._last.time_us / MICRO:.3f} s")
        if time < self._last.time_us + self._hold:
            return self._shown(self._last)
        return self._none(f"the video stream ends at {max(end.end_us, end.missing_until_us) / MICRO:.3f} s")

    def _none(self, reason: str) -> Sample:
        return Sample(self._next, Status.NO_VIDEO, reason, None)

    def _shown(self, shown: Shown) -> Sample:
        if shown.picture is None:
            return self._lost(shown.reason)
        return Sample(self._next, Status.OK, None, shown)

    def _lost(self, reason: str) -> Sample:
        return Sample(self._next, Status.UNDECODABLE, reason, None)

    def _take(self, sample: Sample) -> Iterator[Sample]:
        yield from self._close()
        self._open = [sample]
        self._next += 1

    def _close(self) -> Iterator[Sample]:
        for sample in self._open:
            sample.frame_times = self._times.pop(sample.index, [])
            yield sample
        self._open = []

    def _time(self, sample: int) -> int:
        return sample * MICRO // self._rate
