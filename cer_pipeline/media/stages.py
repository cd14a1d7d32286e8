"""Classes of the stages that open media files.

Belongs here: mapping units to rows through the sandbox. Does not belong here: media libraries, which only the child
process loads.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cer_pipeline.errors import CerError
from cer_pipeline.media import specs as stages
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.sandbox import Limits, Sandbox
from cer_pipeline.media.windows import Layout, Window, count_samples, count_windows, listed_window, windows
from cer_pipeline.stage import StageContext, StageSpec, placeholder_rows
from cer_pipeline.status import Status


class Videos:
    """Probe files, see `probe.probe`."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._layout = Layout.of(context.profile)
        self._sandbox = Sandbox(Limits.of(context.profile))
        self._options = {"max_duration_s": context.profile["media"]["max_duration_s"]}

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return one row of `videos` for every unit."""
        return _table(stages.VIDEOS, [self._row(unit) for unit in units.to_pylist()])

    def _row(self, unit: dict[str, Any]) -> dict[str, Any]:
        if unit[stages.WINDOWS] is not None:
            row = placeholder_rows(stages.VIDEOS, unit, Status.NO_VIDEO, "the corpus holds texts, no media")[0]
            last = listed_window(unit[stages.WINDOWS][-1], is_tail=True)
            # The samples of all windows, so that `frames` has a row for each of them.
            return row | {"segments": len(unit[stages.WINDOWS]), "samples": last.first_sample + last.samples}
        try:
            options = self._options | {"audio_track": unit[stages.WANTED_TRACK]}
            columns = self._sandbox.run("probe", self._context.inputs.source(unit["video_id"]), options)
        except (MediaError, CerError) as error:
            return placeholder_rows(stages.VIDEOS, unit, *_status_of(error))[0]
        row = placeholder_rows(stages.VIDEOS, unit, Status.OK, "")[0] | columns
        row["segments"] = count_windows(row["duration_s"], self._layout)
        row["samples"] = count_samples(row["duration_s"], self._layout)
        return row


class Segments:
    """List the windows of videos, see `windows.windows`."""

    def __init__(self, context: StageContext) -> None:
        self._layout = Layout.of(context.profile)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return the rows of `segments` of every unit."""
        return _table(stages.SEGMENTS, [row for unit in units.to_pylist() for row in self._rows(unit)])

    def _rows(self, unit: dict[str, Any]) -> list[dict[str, Any]]:
        if unit[stages.WINDOWS] is not None:
            return [self._listed(unit, index) for index in unit[stages.WINDOWS]]
        if unit["duration_s"] is None:
            return placeholder_rows(stages.SEGMENTS, unit, Status(unit["video_status"]), unit["video_reason"])
        return [self._row(unit, window) for window in windows(unit["duration_s"], self._layout)]

    def _listed(self, unit: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a window of which only the index is known; the last listed window is the tail."""
        # The source of the texts cut these windows every 2 s, whatever the profile.
        return self._row(unit, listed_window(index, is_tail=index == unit[stages.WINDOWS][-1]))

    @staticmethod
    def _row(unit: dict[str, Any], window: Window) -> dict[str, Any]:
        return {
            "segment_id": f"{unit['video_id']}/{window.index:04d}",
            "video_id": unit["video_id"],
            "segment": window.index,
            "start_s": window.start_s,
            "end_s": window.end_s,
            "first_sample": window.first_sample,
            "samples": window.samples,
            "is_tail": window.is_tail,
            "status": str(Status.OK),
            "reason": None,
        }


class Frames:
    """Decode videos, see `decode.frames`."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._sandbox = Sandbox(Limits.of(context.profile))
        section = context.profile["frames"]
        self._options = {name: section[name] for name in ("long_side", "jpeg_quality", "hold_s")}
        self._options["rate_hz"] = context.profile["grid"]["rate_hz"]

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return the rows of `frames` of every unit."""
        batches = [batch for unit in units.to_pylist() for batch in self._batches(unit)]
        return pa.Table.from_batches(batches, schema=stages.FRAMES.table.schema)

    def _batches(self, unit: dict[str, Any]) -> list[pa.RecordBatch]:
        if unit["video_status"] != Status.OK:
            return _placeholder(stages.FRAMES, unit, Status(unit["video_status"]), unit["video_reason"])
        batches: list[pa.RecordBatch] = []
        options = self._options | {name: unit[name] for name in ("video_id", "samples", "audio_track")}
        try:
            path = self._context.inputs.source(unit["video_id"])
            done = self._sandbox.run("frames", path, options, unit["duration_s"], batches.append)
        except (MediaError, CerError) as error:
            return _placeholder(stages.FRAMES, unit, *_status_of(error))
        self._context.counters["decoded/videos"] += 1
        self._context.counters["decoded/frames"] += done["frames"]
        return batches


class Audio:
    """Decode the sound of videos, see `sound.extract`."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._sandbox = Sandbox(Limits.of(context.profile))

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return one row of `audio` for every unit."""
        batches = [batch for unit in units.to_pylist() for batch in self._batches(unit)]
        return pa.Table.from_batches(batches, schema=stages.AUDIO.table.schema)

    def _batches(self, unit: dict[str, Any]) -> list[pa.RecordBatch]:
        if unit["duration_s"] is None:
            return _placeholder(stages.AUDIO, unit, Status(unit["video_status"]), unit["video_reason"])
        if unit["audio_track"] is None and unit["audio_codec"] is not None:
            reason = "the table videos was made by an older version: run without --select"
            return _placeholder(stages.AUDIO, unit, Status.FAILED, reason)
        if unit["audio_track"] is None:
            reason = unit["audio_track_reason"] or "the file has no audio stream"
            return _placeholder(stages.AUDIO, unit, Status.NO_AUDIO, reason)
        batches: list[pa.RecordBatch] = []
        options = {name: unit[name] for name in ("video_id", "duration_s", "audio_track")}
        try:
            path = self._context.inputs.source(unit["video_id"])
            self._sandbox.run("audio", path, options, unit["duration_s"], batches.append)
        except (MediaError, CerError) as error:
            return _placeholder(stages.AUDIO, unit, *_status_of(error))
        self._context.counters["decoded/sounds"] += 1
        return batches


def _placeholder(spec: StageSpec, unit: dict[str, Any], status: Status, reason: str) -> list[pa.RecordBatch]:
    return _table(spec, placeholder_rows(spec, unit, status, reason)).to_batches()


def _status_of(error: MediaError | CerError) -> tuple[Status, str]:
    return (error.status, error.reason) if isinstance(error, MediaError) else (Status.FAILED, error.line())


def _table(spec: StageSpec, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=spec.table.schema)
