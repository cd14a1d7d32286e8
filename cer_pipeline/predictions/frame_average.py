"""Frame averaging: the mean, per frame, over the windows that contain the frame.

Belongs here: the windows of a frame, the value of a window at a time inside it, and the mean over windows, as pure
functions over arrays. Does not belong here: tables (`predict_frames`).

Section 3.7 of the paper copies a window's prediction to all of its frames and averages where windows overlap
(`time_resolution = "window"`). A clip of one window is then constant over time. With `time_resolution = "sample"` a
branch that predicts from single images (table `samples/BRANCH`) is evaluated at the time of the frame: in the window w,

    q_wc(t) = [ sum_m W_wmc p_wmc(t) ] / sum_c' [ sum_m W_wmc' p_wmc'(t) ]

with the fusion weights W of the window, p_wm(t) the linear interpolation between the samples of a sampled branch, and
p_wm(t) = p_wm, the distribution of the whole window, for all other branches. Every value stays a convex sum over
branches and decomposes exactly into contributions.

Shapes: n frames, N windows, M branches, C classes, J the largest number of windows that contain one frame.
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
"""How far outside of all windows a frame may lie. Containers round their duration to that of the longest stream, and
pad sound by up to 0.1 s."""


@dataclass(frozen=True)
class Windows:
    """The fused windows of one video, in order of time.

    Args:
        start_s: start times [N], s.
        end_s: end times [N], s.
        ok: whether the window has a fused value [N].
        weights: effective fusion weights [N, M, C]; 0 where a branch, or the whole window, has no value.
        probabilities: branch probabilities [N, M, C]; 0 where a branch has no value.
    """

    start_s: Array
    end_s: Array
    ok: NDArray[np.bool_]
    weights: Array
    probabilities: Array


@dataclass(frozen=True)
class Samples:
    """The distributions of one branch on the grid samples where it has a value.

    Args:
        time_s: times [k], s, ascending.
        probabilities: distributions [k, C].
    """

    time_s: Array
    probabilities: Array


@dataclass(frozen=True)
class FrameValues:
    """Values of n frames.

    Args:
        basic: [n, 8]; NaN without a value.
        compound: [n, 7]; NaN without a value.
        windows: [n, J] numbers of the windows that contain the frame, filled up with -1.
        used: [n, J] which of them have a value; the frame is the unweighted mean over these.
        agreement: [n] of the branches at the time of the frame, the mean over the used windows with at least two
            branches; NaN without such a window.
    """

    basic: Array
    compound: Array
    windows: NDArray[np.int64]
    used: NDArray[np.bool_]
    agreement: Array


def windows_at(times: Array, start_s: Array, end_s: Array) -> NDArray[np.int64]:
    """The windows that contain each time: [start, end), with the end of the last window included.

    A time up to EDGE_S outside belongs to the first or last window. No window contains a time further outside, because
    no branch has data there.

    Args:
        times: [n] s.
        start_s: [N] ascending, s.
        end_s: [N] ascending, s.

    Returns:
        [n, J] window numbers, ascending, filled up with -1.
    """
    count = len(start_s)
    last = np.clip(np.searchsorted(start_s, times, side="right") - 1, 0, count - 1)
    # The number of windows that have ended, without the last window.
    first = np.minimum(np.searchsorted(end_s[:-1], times, side="right"), last)
    width = int((last - first).max(initial=0)) + 1
    numbers = first[:, None] + np.arange(width)
    inside = (times >= start_s[0] - EDGE_S) & (times <= end_s[-1] + EDGE_S)
    return np.where((numbers <= last[:, None]) & inside[:, None], numbers, -1)


def sampled_at(times: Array, samples: Samples, bridge_s: float) -> tuple[Array, NDArray[np.bool_]]:
    """Interpolate the samples of a branch.

    Between two samples at most `bridge_s` apart: linear interpolation, which gives a distribution. Elsewhere: the
    nearest sample, where it is at most `bridge_s` / 2 away. Otherwise there is no value at that time.

    Args:
        times: [n] s.
        samples: the branch's samples.
        bridge_s: longest gap that is interpolated, s.

    Returns:
        Distributions [n, C], 0 without a value, and whether there is a value [n].
    """
    known, classes = samples.probabilities.shape
    if not known:
        return np.zeros((len(times), classes)), np.zeros(len(times), dtype=bool)
    after = np.searchsorted(samples.time_s, times, side="right")
    left, right = np.clip(after - 1, 0, known - 1), np.clip(after, 0, known - 1)
    t_left, t_right = samples.time_s[left], samples.time_s[right]
    gap = t_right - t_left
    between = (left < right) & (gap <= bridge_s)
    share = np.where(
        between, (times - t_left) / np.where(between, gap, 1.0), np.abs(times - t_left) > np.abs(times - t_right)
    )
    near = np.minimum(np.abs(times - t_left), np.abs(times - t_right)) <= bridge_s / 2
    valid = between | near
    values = (1.0 - share)[:, None] * samples.probabilities[left] + share[:, None] * samples.probabilities[right]
    return np.where(valid[:, None], values, 0.0), valid


def frame_values(
    times: Array, windows: Windows, samples: Mapping[int, Samples], bridge_s: float, compound: Array | None = None
) -> FrameValues:
    """Average the windows over every frame.

    Args:
        times: [n] time stamps of the frames, s.
        windows: the fused windows.
        samples: index of a branch -> its samples; empty for `time_resolution = "window"`.
        bridge_s: longest gap between samples that is interpolated, s.
        compound: [N, 7] compound values of the windows; None maps the value at the time of the frame by PPA.

    Returns:
        Values of the frames; NaN for a frame without a window, or without a window that has a value.
    """
    numbers = windows_at(times, windows.start_s, windows.end_s)
    used = (numbers >= 0) & windows.ok[numbers]
    interpolated = {m: sampled_at(times, s, bridge_s) for m, s in samples.items()}
    constant = np.zeros((len(windows.ok), windows.weights.shape[2]))  # the sum over branches without samples
    for m in range(windows.weights.shape[1]):
        if m not in interpolated:
            constant += windows.weights[:, m] * windows.probabilities[:, m]
    basic, mapped = np.zeros((len(times), constant.shape[1])), None
    agreement, several = np.zeros(len(times)), np.zeros(len(times))
    for j in range(numbers.shape[1]):
        rows = np.flatnonzero(used[:, j])
        at = numbers[rows, j]
        mixed = constant[at]
        sampled = {
            m: np.where(valid[rows, None], p[rows], windows.probabilities[at, m])
            for m, (p, valid) in interpolated.items()
        }
        for m, probabilities in sampled.items():
            mixed = mixed + windows.weights[at, m] * probabilities
        total = mixed.sum(axis=1, keepdims=True)
        mixed = mixed / total
        window_agreement = agreement_of(_parts(windows, at, sampled, total[:, 0]))
        known = np.isfinite(window_agreement)
        agreement[rows[known]] += window_agreement[known]
        several[rows[known]] += 1
        basic[rows] += mixed
        pairs = ppa(mixed) if compound is None else compound[at]
        mapped = np.zeros((len(times), pairs.shape[1])) if mapped is None else mapped
        mapped[rows] += pairs
    counts = used.sum(axis=1)
    share = np.where(counts > 0, counts, np.nan)[:, None]
    assert mapped is not None  # there is at least one column of windows
    agreement = agreement / np.where(several > 0, several, np.nan)
    return FrameValues(basic / share, mapped / share, numbers, used, agreement)


def _parts(
    windows: Windows, at: NDArray[np.int64], sampled: Mapping[int, Array], total: Array
) -> Iterator[tuple[Array, Array]]:
    """Per branch its share of the value of each frame [n], and its distributions there [n, C].

    Args:
        windows: the fused windows.
        at: number of the window of each frame [n].
        sampled: index of a sampled branch -> its distributions at the time of the frame [n, C].
        total: sum over branches and classes of weight times probability [n].
    """
    for m in range(windows.weights.shape[1]):
        probabilities = sampled[m] if m in sampled else windows.probabilities[at, m]
        yield ordered_sum(windows.weights[at, m] * probabilities, -1) / total, probabilities
