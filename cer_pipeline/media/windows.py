"""Window arithmetic and the sampling grid, as pure functions of a duration.

Belongs here: the windows and samples of a video. Does not belong here: files.

Times are counted in whole microseconds, the resolution in which FFmpeg states the duration of a container. A duration
is rounded to it first (tolerance: half a microsecond), so that 4.0 s is one window however the number came about, and
all arithmetic after that is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.profiles import Profile

MICRO: Final = 1_000_000


def micros(seconds: float) -> int:
    """Round seconds to whole microseconds."""
    return round(seconds * MICRO)


@dataclass(frozen=True)
class Layout:
    """Length and hop of the windows, and the rate of the samples.

    Args:
        length_us: length of a window, microseconds.
        hop_us: from the start of one window to the next, microseconds; at most the length.
        rate_hz: samples per second.
    """

    length_us: int = 4 * MICRO
    hop_us: int = 2 * MICRO
    rate_hz: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.hop_us <= self.length_us:
            raise CerError("the hop of the windows must lie above 0 and at most at their length", "[windows] hop_s")
        if self.rate_hz < 1:
            raise CerError("the sampling grid needs at least one sample a second", "[grid] rate_hz")

    @classmethod
    def of(cls, profile: Profile) -> Layout:
        """Return the layout in the sections [windows] and [grid] of a profile."""
        windows = profile["windows"]
        return cls(micros(windows["length_s"]), micros(windows["hop_s"]), profile["grid"]["rate_hz"])


DEFAULT: Final = Layout()
"""Windows of 4 s every 2 s (paper, section 3), 20 samples each (paper, section 3.1)."""


@dataclass(frozen=True)
class Window:
    """One window of a video.

    Args:
        index: number of the window, from 0.
        start_s: start, s.
        end_s: end (exclusive), s: start plus length; the duration for the last window.
        first_sample: first sample of the grid in the window.
        samples: number of samples, at least 1.
        is_tail: whether the window ends with the video.
    """

    index: int
    start_s: float
    end_s: float
    first_sample: int
    samples: int
    is_tail: bool


def count_windows(duration_s: float | None, layout: Layout = DEFAULT) -> int:
    """Return the number of windows: 1 for D <= length, else ceil((D - length) / hop) + 1; 0 for an unknown D."""
    if duration_s is None:
        return 0
    rest = micros(duration_s) - layout.length_us
    return 1 if rest <= 0 else _ceil(rest, layout.hop_us) + 1


def count_samples(duration_s: float | None, layout: Layout = DEFAULT) -> int:
    """Return the number of samples k with k / rate < D, but at least 1; 0 for an unknown D."""
    if duration_s is None:
        return 0
    return max(1, _ceil(micros(duration_s) * layout.rate_hz, MICRO))


def sample_time(sample: int, layout: Layout = DEFAULT) -> float:
    """Return the time of a sample, s."""
    return sample / layout.rate_hz


def windows(duration_s: float | None, layout: Layout = DEFAULT) -> list[Window]:
    """Return all windows of a video, in order."""
    if duration_s is None:
        return []
    return [window(i, duration_s, layout) for i in range(count_windows(duration_s, layout))]


def window(index: int, duration_s: float, layout: Layout = DEFAULT) -> Window:
    """Return one window of a video; `index` is less than `count_windows`."""
    total, is_tail = count_samples(duration_s, layout), index == count_windows(duration_s, layout) - 1
    start = index * layout.hop_us
    end = max(0, micros(duration_s)) if is_tail else start + layout.length_us
    # A tail that is shorter than the gap between two samples may hold no sample; it uses the one before it.
    first = min(_ceil(start * layout.rate_hz, MICRO), total - 1)
    stop = total if is_tail else min(total, _ceil(end * layout.rate_hz, MICRO))
    return Window(index, start / MICRO, end / MICRO, first, stop - first, is_tail)


def listed_window(index: int, is_tail: bool, layout: Layout = DEFAULT) -> Window:
    """Return a window of a video of unknown duration, with its full length."""
    start, stop = index * layout.hop_us, index * layout.hop_us + layout.length_us
    first = _ceil(start * layout.rate_hz, MICRO)
    samples = _ceil(stop * layout.rate_hz, MICRO) - first
    return Window(index, start / MICRO, stop / MICRO, first, samples, is_tail)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
