"""The stage class that gives every frame of a video its prediction.

Belongs here: from the tables of one video to rows of `frame_predictions`, and reading the arrays that `frames` works on
(lineage reads the same). Does not belong here: the averaging itself (`frames`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.arrow import column, matrix
from cer_pipeline.compound.adjust import SECTION, Adjustment, Linear, linear, prior
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.inputs import dominant_status, read_branches
from cer_pipeline.fusion.uncertainty import confidence, entropy, expressed
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.predictions.frame_average import Array, FrameValues, Samples, Windows, frame_values
from cer_pipeline.predictions.specs import COMPOUND_TABLE, PPA, methods_of
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageContext
from cer_pipeline.status import Status

SAMPLE, WINDOW = "sample", "window"
GRID_HZ = 5.0  # by definition of the tables: t_k = k/5


@dataclass(frozen=True)
class VideoInputs:
    """Everything that the frames of one video are computed from.

    Args:
        windows: the fused windows.
        segments: [N] window numbers of the table.
        compound: [N, 7] values of the windows; NaN without one.
        statuses: [N] statuses of the compound rows.
        reasons: [N] their reasons.
        samples: branch number -> samples; empty for `time_resolution = "window"`.
        bridge_s: longest gap between samples that is bridged, s.
        at_frame: whether the compound mapping is taken at the time of the frame. Only plain PPA can be: PFSA has one
            vector a window, and the adjustments are defined over windows.
        method: the mapping that `compound` holds: ppa or pfsa.
        adjusted: how PPA values were changed afterwards; None where they were not.
    """

    windows: Windows
    segments: NDArray[np.int32]
    compound: Array
    statuses: list[str]
    reasons: list[str | None]
    samples: dict[int, Samples]
    bridge_s: float
    at_frame: bool
    method: str = PPA
    adjusted: Linear | None = None

    def frames(self, times: Array) -> FrameValues:
        """Values at some times, s."""
        compound = None if self.at_frame else self.compound
        return frame_values(times, self.windows, self.samples, self.bridge_s, compound)


class VideoReader:
    """Reads the evidence of single videos; the tables of the shard are read once."""

    def __init__(self, inputs: Inputs, profile: Profile, branches: Sequence[str], sampled: Sequence[str]) -> None:
        settings = profile["frames_out"]
        if settings["time_resolution"] not in (SAMPLE, WINDOW):
            raise CerError("frames_out.time_resolution must be sample or window", str(settings["time_resolution"]))
        self._at_sample = settings["time_resolution"] == SAMPLE
        self._bridge_s = float(settings["bridge_s"])
        self._branches, self._sampled, self._inputs = tuple(branches), tuple(sampled), inputs
        self._method, self._adjustment = profile[SECTION]["method"], Adjustment.of(profile)
        if self._method not in methods_of(branches):
            known = " or ".join(methods_of(branches))
            raise CerError("no such mapping to compounds", f"compound.method={self._method}", f"choose {known}")
        columns = ["segment_id", "video_id", "segment", "status", *(f"w_{b}" for b in branches), *BASIC_COLUMNS]
        self._fused = inputs.table("fused", columns)
        self._prior = prior(ppa(matrix(self._fused, BASIC_COLUMNS)))
        self._segments = inputs.table("segments", ["video_id", "segment", "start_s", "end_s"])
        names = ["video_id", "segment", "method", "status", "reason", *COMPOUND_COLUMNS]
        table = inputs.table(COMPOUND_TABLE, names)
        self._compound = _where(table, "method", self._method)
        self._evidence = read_branches(inputs, branches, self._fused.column("segment_id"))
        self._rows = {name: _spans(t) for name, t in (("f", self._fused), ("s", self._segments), ("c", self._compound))}

    def read(self, video_id: str) -> VideoInputs:
        """The evidence of a video."""
        fused = self._part("f", self._fused, video_id)
        segments = self._part("s", self._segments, video_id)
        compound = self._part("c", self._compound, video_id)
        rows = slice(*self._rows["f"].get(video_id, (0, 0)))
        n, m, c = fused.num_rows, len(self._branches), len(BASIC_COLUMNS)
        weights = np.zeros((n, m, c))
        for i, branch in enumerate(self._branches):
            column_ = fused.column(f"w_{branch}").to_pylist()
            weights[:, i] = [row or [0.0] * c for row in column_]
        known = np.where(self._evidence.present[rows, :, None], self._evidence.probabilities[rows], 0.0)
        mapped = [s == Status.OK for s in compound.column("status").to_pylist()]
        windows = Windows(
            start_s=segments.column("start_s").to_numpy(),
            end_s=segments.column("end_s").to_numpy(),
            ok=np.array([s == Status.OK for s in fused.column("status").to_pylist()], dtype=bool) & mapped,
            weights=weights,
            probabilities=known,
        )
        numbers = segments.column("segment").to_numpy()
        adjusted = None
        if self._adjustment and self._method == PPA:
            adjusted = linear(ppa(matrix(fused, BASIC_COLUMNS)), numbers.tolist(), self._prior, self._adjustment)
        samples = {self._branches.index(b): self._samples(b, video_id) for b in self._sampled if self._at_sample}
        return VideoInputs(
            windows=windows,
            segments=numbers,
            compound=matrix(compound, COMPOUND_COLUMNS),
            statuses=compound.column("status").to_pylist(),
            reasons=compound.column("reason").to_pylist(),
            samples=samples,
            bridge_s=self._bridge_s,
            at_frame=self._at_sample and self._method == PPA and adjusted is None,
            method=self._method,
            adjusted=adjusted,
        )

    def _part(self, name: str, table: pa.Table, video_id: str) -> pa.Table:
        start, stop = self._rows[name].get(video_id, (0, 0))
        return table.slice(start, stop - start)

    def _samples(self, branch: str, video_id: str) -> Samples:
        batches = list(self._inputs.batches(f"samples/{branch}", video_id, ["sample", "status", *BASIC_COLUMNS]))
        if not batches:
            return Samples(np.empty(0), np.empty((0, len(BASIC_COLUMNS))))
        table = pa.Table.from_batches(batches)
        table = _where(table, "status", str(Status.OK))
        return Samples(table.column("sample").to_numpy() / GRID_HZ, matrix(table, BASIC_COLUMNS))


class PredictFrames:
    """Rows of `frame_predictions`: one for every source frame of a video.

    A frame that no window with a value holds carries the most telling status of its windows; a window has one where it
    is fused and mapped by the profile's method. A frame outside of all windows has none. A video without frames has no
    row.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._reader: VideoReader | None = None

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of videos."""
        schema = tables.FRAME_PREDICTIONS.schema
        parts = [self._video(unit) for unit in units.to_pylist()]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def _video(self, unit: dict) -> pa.Table:
        if self._reader is None:
            self._reader = VideoReader(self._context.inputs, self._context.profile, unit["branches"], unit["sampled"])
        video_id = unit["video_id"]
        times = frame_times(self._context.inputs, video_id)
        if not len(times):
            return tables.FRAME_PREDICTIONS.schema.empty_table()
        evidence = self._reader.read(video_id)
        return _rows(video_id, times, evidence, evidence.frames(times))


def frame_times(inputs: Inputs, video_id: str) -> Array:
    """The time stamps of all source frames of a video, ascending."""
    batches = inputs.batches("frames", video_id, ["frame_times"])
    times = [batch.column("frame_times").flatten().to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate(times) if times else np.empty(0)


def _where(table: pa.Table, name: str, value: str) -> pa.Table:
    return table.filter(pa.array([v == value for v in table.column(name).to_pylist()], pa.bool_()))


def _spans(table: pa.Table) -> dict[str, tuple[int, int]]:
    """First and last row + 1 of every video of a table in key order."""
    spans: dict[str, tuple[int, int]] = {}
    for i, video in enumerate(table.column("video_id").to_pylist()):
        spans[video] = (spans.get(video, (i, i))[0], i + 1)
    return spans


def _rows(video_id: str, times: Array, evidence: VideoInputs, values: FrameValues) -> pa.Table:
    n = len(times)
    counts = values.used.sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    used = evidence.segments[values.windows[values.used]]
    shares = np.repeat(1.0 / np.maximum(counts, 1), counts)
    status = np.full(n, str(Status.OK), dtype=object)
    reason = np.full(n, None, dtype=object)
    for i in np.flatnonzero(counts == 0):
        held = [w for w in values.windows[i] if w >= 0]
        if not held:
            status[i], reason[i] = str(Status.NO_VIDEO), "the frame lies outside of all windows"
            continue
        status[i] = str(dominant_status([evidence.statuses[w] for w in held]))
        reason[i] = next((evidence.reasons[w] for w in held if evidence.statuses[w] == status[i]), None)
    columns: dict[str, pa.Array] = {
        "video_id": pa.array([video_id] * n, pa.string()),
        "frame": pa.array(np.arange(n), pa.int64()),
        "time_s": pa.array(times, pa.float64()),
        "segments": pa.ListArray.from_arrays(offsets, pa.array(used, pa.int32())),
        "weights": pa.ListArray.from_arrays(offsets, pa.array(shares, pa.float64())),
        "status": pa.array(status, pa.string()),
        "reason": pa.array(reason, pa.string()),
    }
    columns |= {name: column(values.basic[:, i]) for i, name in enumerate(BASIC_COLUMNS)}
    columns |= {name: column(values.compound[:, k]) for k, name in enumerate(COMPOUND_COLUMNS)}
    columns |= {"expressed": column(expressed(values.basic)), "agreement": column(values.agreement)}
    for prefix, found in (("", values.basic), ("compound_", values.compound)):
        columns |= {f"{prefix}confidence": column(confidence(found)), f"{prefix}entropy": column(entropy(found))}
    spec = tables.FRAME_PREDICTIONS
    return pa.table([columns[c.name] for c in spec.columns], schema=spec.schema)
