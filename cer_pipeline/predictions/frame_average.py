"""Frame averaging: what the windows over a frame say, together, at the time of that frame.

Belongs here: which windows hold a frame, what a window says at a time inside it, and the mean over windows; pure
functions over arrays. Does not belong here: tables (`predict_frames`).

Section 3.7 of the paper copies a window's prediction to all of its frames and averages where windows overlap
(`time_resolution = "window"`). A clip of one window is then constant over time. With `time_resolution = "sample"` a
branch that judges single images (table `samples/BRANCH`) speaks at the time of the frame instead: in the window w,

    q_wc(t) = [ sum_m W_wmc p_wmc(t) ] / sum_c' [ sum_m W_wmc' p_wmc'(t) ]

with the fusion weights W of the window, p_wm(t) the branch's samples joined by straight lines for a sampled branch, and
p_wm(t) = p_wm, the window's own distribution, for all others. So every value stays a convex sum over branches and
splits exactly into parts.

Shapes: n frames, N windows, M branches, C classes, J windows that hold one frame at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.compound.ppa import ppa
from cer_pipeline.fusion.combine import ordered_sum
from cer_pipeline.fusion.uncertainty import agreement_of

Array = NDArray[np.float64]

EDGE_S: Final = 0.1
"""Containers round their duration to that of the longest stream, and pad sound by up to 0.1 s: so far outside of the
windows a frame may lie."""


@dataclass(frozen=True)
class Windows:
    """The fused windows of one video, in order of time.

    Args:
        start_s: [N] start times, s.
        end_s: [N] end times, s.
        ok: [N] whether the window has a fused value.
        weights: [N, M, C] effective fusion weights; 0 where a branch, or the whole window, has no value.
        probabilities: [N, M, C] branch probabilities; 0 where a branch has no value.
    """

    start_s: Array
    end_s: Array
    ok: NDArray[np.bool_]
    weights: Array
    probabilities: Array


@dataclass(frozen=True)
class Samples:
    """What one branch says on the grid samples where it has a value.

    Args:
        time_s: [k] times, s, ascending.
        probabilities: [k, C].
    """

    time_s: Array
    probabilities: Array


@dataclass(frozen=True)
class FrameValues:
    """Values of n frames.

    Args:
        basic: [n, 8]; NaN without a value.
        compound: [n, 7]; NaN without a value.
        windows: [n, J] window numbers that hold the frame; -1 beyond their number.
        used: [n, J] which of them have a value; the frame is the plain mean over these.
        agreement: [n] of the branches at the time of the frame, the mean over the used windows that have at least two
            branches; NaN where none has.
    """

    basic: Array
    compound: Array
    windows: NDArray[np.int64]
    used: NDArray[np.bool_]
    agreement: Array


def windows_at(times: Array, start_s: Array, end_s: Array) -> NDArray[np.int64]:
    """The windows that hold each time: [start, end), closed at the end of the last one.

    A time up to EDGE_S outside belongs to the first or last window. No window holds a time further out: nobody has
    looked there.

    Args:
        times: [n] s.
        start_s: [N] ascending, s.
        end_s: [N] ascending, s.

    Returns:
        [n, J] window numbers, ascending, -1 beyond their number.
    """
    count = len(start_s)
    last = np.clip(np.searchsorted(start_s, times, side="right") - 1, 0, count - 1)
    # Number of windows that have ended; the last one never has.
    first = np.minimum(np.searchsorted(end_s[:-1], times, side="right"), last)
    width = int((last - first).max(initial=0)) + 1
    numbers = first[:, None] + np.arange(width)
    inside = (times >= start_s[0] - EDGE_S) & (times <= end_s[-1] + EDGE_S)
    return np.where((numbers <= last[:, None]) & inside[:, None], numbers, -1)


def sampled_at(times: Array, samples: Samples, bridge_s: float) -> tuple[Array, NDArray[np.bool_]]:
    """What a branch says at any time, from its samples.

    Between two samples at most `bridge_s` apart: the straight line, which is again a distribution. Elsewhere the
    nearest sample, where it is at most half as far away. Otherwise there is no evidence at that time.

    Args:
        times: [n] s.
        samples: the branch's samples.
        bridge_s: longest gap that is bridged, s.

    Returns:
        Distributions [n, C] (0 without evidence) and whether there is evidence [n].
    """
    known, classes = samples.probabilities.shape
    if not known:
        return np.zeros((len(times), classes)), np.zeros(len(times), dtype=bool)
    after = np.searchsorted(samples.time_s, times, side="right")
    left, right = np.clip(after - 1, 0, known - 1), np.clip(after, 0, known - 1)
    t_left, t_right = samples.time_s[left], samples.time_s[right]
    gap = t_right - t_left
    joined = (left < right) & (gap <= bridge_s)
    share = np.where(
        joined, (times - t_left) / np.where(joined, gap, 1.0), np.abs(times - t_left) > np.abs(times - t_right)
    )
    near = np.minimum(np.abs(times - t_left), np.abs(times - t_right)) <= bridge_s / 2
    valid = joined | near
    values = (1.0 - share)[:, None] * samples.probabilities[left] + share[:, None] * samples.probabilities[right]
    return np.where(valid[:, None], values, 0.0), valid


def frame_values(
    times: Array, windows: Windows, samples: Mapping[int, Samples], bridge_s: float, compound: Array | None = None
) -> FrameValues:
    """Average the windows over every frame.

    Args:
        times: [n] time stamps of the frames, s.
        windows: the fused windows.
        samples: branch number -> its samples; empty for `time_resolution = "window"`.
        bridge_s: longest gap between samples that is bridged, s.
        compound: [N, 7] compound values of the windows; None maps the value at the time of the frame by PPA.

    Returns:
        Values of the frames. A frame without any window, or whose windows have no value, has none.
    """
    numbers = windows_at(times, windows.start_s, windows.end_s)
    used = (numbers >= 0) & windows.ok[numbers]
    spoken = {m: sampled_at(times, s, bridge_s) for m, s in samples.items()}
    constant = [m for m in range(windows.weights.shape[1]) if m not in spoken]
    still = np.zeros((len(windows.ok), windows.weights.shape[2]))
    for m in constant:
        still += windows.weights[:, m] * windows.probabilities[:, m]
    basic, mapped = np.zeros((len(times), still.shape[1])), None
    agreed, agreeing = np.zeros(len(times)), np.zeros(len(times))
    for j in range(numbers.shape[1]):
        rows = np.flatnonzero(used[:, j])
        at = numbers[rows, j]
        mixed = still[at]
        said = {m: np.where(v[rows, None], p[rows], windows.probabilities[at, m]) for m, (p, v) in spoken.items()}
        for m, says in said.items():
            mixed = mixed + windows.weights[at, m] * says
        total = mixed.sum(axis=1, keepdims=True)
        mixed = mixed / total
        among = agreement_of(_parts(windows, at, said, total[:, 0]))
        known = np.isfinite(among)
        agreed[rows[known]] += among[known]
        agreeing[rows[known]] += 1
        basic[rows] += mixed
        pairs = ppa(mixed) if compound is None else compound[at]
        mapped = np.zeros((len(times), pairs.shape[1])) if mapped is None else mapped
        mapped[rows] += pairs
    counts = used.sum(axis=1)
    share = np.where(counts > 0, counts, np.nan)[:, None]
    assert mapped is not None  # there is at least one column of windows
    agreed = agreed / np.where(agreeing > 0, agreeing, np.nan)
    return FrameValues(basic / share, mapped / share, numbers, used, agreed)


def _parts(
    windows: Windows, at: NDArray[np.int64], said: Mapping[int, Array], total: Array
) -> Iterator[tuple[Array, Array]]:
    """For every branch its share in the value of each frame [n], and what it says there [n, C].

    Args:
        windows: the fused windows.
        at: the window of each frame [n].
        said: what sampled branches say at the time of the frame, [n, C] each.
        total: the sum over branches and classes of weight times probability [n].
    """
    for m in range(windows.weights.shape[1]):
        says = said[m] if m in said else windows.probabilities[at, m]
        yield ordered_sum(windows.weights[at, m] * says, -1) / total, says
