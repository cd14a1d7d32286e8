"""Contributions of every branch, basic emotion and segment to a value.

Belongs here: the exact decomposition of fused, compound and frame values. Does not belong here: the run, model or
setting that computed a value.

Fusion is a convex sum over branches, PPA divides sums of two probabilities by their total, and a frame is the mean over
windows. Every value is therefore a sum of parts, one per segment w, branch m and basic emotion b:

    basic c:     v_w W_wmc p_wmc                     for b = c, else 0
    compound k:  v_w g_wkb W_wmb p_wmb               g: `ppa_parts`, 1/total for the two emotions of k

with v_w the weight of the segment in the frame. The parts sum to the value up to rounding (below 1e-12). The
adjustments of `compound.adjust` are linear too: the parts of a compound are then those of the window and of its
neighbours, times their shares and factors. PFSA is not linear; under it only the basic emotions are decomposed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.compound.ppa import ppa_parts
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.predictions.frame_average import sampled_at, windows_at
from cer_pipeline.predictions.predict_frames import VideoInputs
from cer_pipeline.predictions.specs import PPA

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """The parts of one value vector.

    Args:
        windows: [S], indices of the windows that have a part.
        basic: [S, M, 8]: basic[s, m, c] is the part of branch m in window s in basic emotion c.
        compound: [7, S, M, 8]: compound[k, s, m, b] is its part in compound k through basic emotion b.
    """

    windows: NDArray[np.int64]
    basic: Array
    compound: Array


def segment_parts(weights: Array, probabilities: Array) -> tuple[Array, Array]:
    """The parts of one fused segment.

    Args:
        weights: effective weights [M, 8]; 0 where a branch has no value.
        probabilities: [M, 8]; 0 where a branch has no value.

    Returns:
        Parts of the basic emotions [M, 8] and of the compounds [7, M, 8].
    """
    basic = weights * probabilities
    return basic, ppa_parts(basic.sum(axis=0))[:, None, :] * basic[None]


def frame_parts(time_s: float, video: VideoInputs) -> Parts:
    """The parts of the value of `frame_values` at one time of a video.

    Args:
        time_s: time stamp of the frame, s.
        video: inputs of the frames of the video.
    """
    windows, times = video.windows, np.array([time_s])
    held = windows_at(times, windows.start_s, windows.end_s)[0]
    used = [int(w) for w in held if w >= 0 and windows.ok[w]]
    basic: dict[int, Array] = {}
    compound: dict[int, Array] = {}
    for w in used:
        probabilities = windows.probabilities[w].copy()
        for m, known in video.samples.items():
            values, valid = sampled_at(times, known, video.bridge_s)
            if valid[0]:
                probabilities[m] = values[0]
        mixed = windows.weights[w] * probabilities
        parts, pairs = segment_parts(windows.weights[w] / mixed.sum(), probabilities)
        basic[w] = parts / len(used)
        if video.at_frame:
            compound[w] = pairs / len(used)
    if not video.at_frame and video.method == PPA:
        compound = _window_parts(video, used)
    order = sorted({*basic, *compound})
    shape = windows.weights.shape[1:]
    nothing, no_pairs = np.zeros(shape), np.zeros((len(COMPOUND), *shape))
    return Parts(
        np.array(order, dtype=np.int64),
        np.array([basic.get(w, nothing) for w in order]).reshape(len(order), *shape),
        np.stack([compound.get(w, no_pairs) for w in order], axis=1) if order else np.zeros((len(COMPOUND), 0, *shape)),
    )


def _window_parts(video: VideoInputs, used: list[int]) -> dict[int, Array]:
    """Parts [7, M, 8] of the mean compound value of some windows, by the window that they come from."""
    parts: dict[int, Array] = {}
    for w in used:
        shares = [(w, 1.0)] if video.adjusted is None else video.adjusted.shares[w]
        for j, share in shares:
            source = int(j)
            _, pairs = segment_parts(video.windows.weights[source], video.windows.probabilities[source])
            factor = np.ones(len(COMPOUND)) if video.adjusted is None else video.adjusted.factors[source]
            part = pairs * factor[:, None, None] * share / len(used)
            parts[source] = parts.get(source, 0.0) + part
    return parts


CONTRIBUTIONS = pa.schema(
    [
        pa.field("target", pa.string(), metadata={"comment": "basic emotion or compound that is decomposed"}),
        pa.field("branch", pa.string(), metadata={"comment": "branch that the part comes from"}),
        pa.field(
            "basic", pa.string(), metadata={"comment": "basic emotion of the branch that the part is computed from"}
        ),
        pa.field("segment", pa.int32(), metadata={"comment": "window that the part comes from"}),
        pa.field("value", pa.float64(), metadata={"comment": "part; the parts of a target sum to its probability"}),
    ]
)


def contributions(video: VideoInputs, branches: tuple[str, ...], time_s: float) -> pa.Table:
    """Contributions of every branch, basic emotion and segment to the 15 probabilities at one time of a video.

    Args:
        video: result of `VideoReader.read`.
        branches: names in the order of the fusion.
        time_s: time stamp of the frame, s.

    Returns:
        Rows of `CONTRIBUTIONS`, without parts that are 0; none where the frame has no value, and none for compounds
        of PFSA.
    """
    parts = frame_parts(time_s, video)
    rows = []
    for s, w in enumerate(parts.windows):
        for m, branch in enumerate(branches):
            for b, basic in enumerate(BASIC):
                values = [(basic, parts.basic[s, m, b])]
                values += [(target, parts.compound[k, s, m, b]) for k, target in enumerate(COMPOUND)]
                for target, value in values:
                    if value != 0.0:
                        rows.append((target, branch, basic, int(video.segments[w]), float(value)))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(CONTRIBUTIONS)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, CONTRIBUTIONS, strict=True)], schema=CONTRIBUTIONS)
