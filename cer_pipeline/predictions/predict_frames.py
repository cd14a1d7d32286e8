"""The stage class that predicts every frame of a video.

Belongs here: computing rows of `frame_predictions` from the tables of one video, and reading the arrays that
`frame_average` works on (`lineage` reads the same). Does not belong here: the averaging itself (`frame_average`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.arrow import column, matrix, rows_in, rows_where, texts, video_slices
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

SAMPLE: Final = "sample"
GRID_HZ: Final = 5.0  # by definition of the tables: t_k = k/5


@dataclass(frozen=True)
class VideoInputs:
    """Everything that the frames of one video are computed from.

    Args:
        windows: the fused windows.
        segments: window numbers of the table [N].
        compound: compound values of the windows [N, 7]; NaN without a value.
        statuses: statuses of the compound rows [N].
        reasons: reasons of the compound rows [N].
        samples: index of a branch -> samples; empty for `time_resolution = "window"`.
        bridge_s: longest gap between samples that is interpolated, s.
        at_frame: whether compounds are mapped at the time of the frame. Only PPA without adjustments is: PFSA has one
            vector per window, and the adjustments are defined over windows.
        method: the mapping of `compound`: ppa or pfsa.
        adjusted: the adjustments of PPA values; None without any.
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
    """Reads the inputs of single videos; the tables of the shard are read once."""

    def __init__(self, inputs: Inputs, profile: Profile, branches: Sequence[str], sampled: Sequence[str]) -> None:
        settings = profile["frames_out"]
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
        self._compound = rows_where(inputs.table(COMPOUND_TABLE, names), "method", self._method)
        self._values = read_branches(inputs, branches, self._fused.column("segment_id"))
        self._slices = [video_slices(table) for table in (self._fused, self._segments, self._compound)]

    def read(self, video_id: str) -> VideoInputs:
        """The inputs of the frames of a video."""
        rows, *others = (slices.get(video_id, slice(0, 0)) for slices in self._slices)
        fused = rows_in(self._fused, rows)
        segments, compound = (rows_in(t, r) for t, r in zip((self._segments, self._compound), others, strict=True))
        weights = np.zeros((fused.num_rows, len(self._branches), len(BASIC_COLUMNS)))
        for i, branch in enumerate(self._branches):
            weights[:, i] = [row or [0.0] * len(BASIC_COLUMNS) for row in fused.column(f"w_{branch}").to_pylist()]
        has_fused, has_compound = (
            np.array([status == Status.OK for status in texts(table, "status")], dtype=bool)
            for table in (fused, compound)
        )
        windows = Windows(
            start_s=segments.column("start_s").to_numpy(),
            end_s=segments.column("end_s").to_numpy(),
            ok=has_fused & has_compound,
            weights=weights,
            probabilities=np.where(self._values.present[rows, :, None], self._values.probabilities[rows], 0.0),
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

    def _samples(self, branch: str, video_id: str) -> Samples:
        batches = list(self._inputs.batches(f"samples/{branch}", video_id, ["sample", "status", *BASIC_COLUMNS]))
        if not batches:
            return Samples(np.empty(0), np.empty((0, len(BASIC_COLUMNS))))
        table = rows_where(pa.Table.from_batches(batches), "status", str(Status.OK))
        return Samples(table.column("sample").to_numpy() / GRID_HZ, matrix(table, BASIC_COLUMNS))


class PredictFrames:
    """Rows of `frame_predictions`: one for every source frame of a video.

    A window has a value where it is fused and mapped by the method of the profile. A frame without such a window has
    one of the statuses of its windows, by `inputs.STATUS_PRIORITY`; a frame outside of all windows is no_video. A video
    without frames has no row.
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
        video = self._reader.read(video_id)
        return _rows(video_id, times, video, video.frames(times))


def frame_times(inputs: Inputs, video_id: str) -> Array:
    """The time stamps of all source frames of a video, ascending."""
    batches = inputs.batches("frames", video_id, ["frame_times"])
    times = [batch.column("frame_times").flatten().to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate(times) if times else np.empty(0)


def _rows(video_id: str, times: Array, video: VideoInputs, values: FrameValues) -> pa.Table:
    n = len(times)
    counts = values.used.sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    used = video.segments[values.windows[values.used]]
    shares = np.repeat(1.0 / np.maximum(counts, 1), counts)
    status = np.full(n, str(Status.OK), dtype=object)
    reason = np.full(n, None, dtype=object)
    for i in np.flatnonzero(counts == 0):
        windows = [w for w in values.windows[i] if w >= 0]
        if not windows:
            status[i], reason[i] = str(Status.NO_VIDEO), "the frame lies outside of all windows"
            continue
        status[i] = str(dominant_status([video.statuses[w] for w in windows]))
        reason[i] = next((video.reasons[w] for w in windows if video.statuses[w] == status[i]), None)
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
    for prefix, p in (("", values.basic), ("compound_", values.compound)):
        columns |= {f"{prefix}confidence": column(confidence(p)), f"{prefix}entropy": column(entropy(p))}
    spec = tables.FRAME_PREDICTIONS
    return pa.table([columns[c.name] for c in spec.columns], schema=spec.schema)
