"""Rows out = rows in: whether a table answers for every unit that it must answer for.

Belongs here: the law and its check over one shard. Does not belong here: what a value looks like (`store.parquet`).
"""

from __future__ import annotations

import pyarrow as pa

from cer_pipeline.arrow import pc
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.tables import NO_FRAME

EXAMPLES = 3  # keys that a complaint names


def missing_and_unexpected(spec: StageSpec, inputs: Inputs) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Keys that a table must hold and lacks, and keys that it holds and must not.

    A table with a row for every segment is held against `segments`, one with a row for every sample against
    `frames`, one with a row for every frame against the time line in `frames`, any other against `videos`.

    Args:
        spec: the stage whose table is checked.
        inputs: the shard.

    Returns:
        (lost, foreign), each a sorted list of (video_id, segment, sample, frame number or 0).
    """
    wanted, given = _wanted(spec, inputs), _given(spec, inputs)
    # A video whose frames could not be computed says so in one row; that is a failure, which another check tells.
    failed = {video for video, number in given if number == NO_FRAME}
    wanted, given = ({key for key in keys if key[0] not in failed} for keys in (wanted, given))
    return sorted(wanted - given), sorted(given - wanted)


def _level(spec: StageSpec) -> str:
    named = spec.level or next((name for name in ("segment", "sample", "frame") if name in spec.table.key), "video")
    return "" if named == "video" else named


def _given(spec: StageSpec, inputs: Inputs) -> set[tuple[str, int]]:
    level = _level(spec)
    return _pairs(inputs.table(spec.name, ["video_id", *([level] if level else [])]), level)


def _wanted(spec: StageSpec, inputs: Inputs) -> set[tuple[str, int]]:
    level = _level(spec)
    if level == "segment":
        return _pairs(inputs.table("segments", ["video_id", "segment"]), level)
    if level == "sample":
        return _pairs(inputs.table("frames", ["video_id", "sample"]), level)
    if level == "frame":
        frames = inputs.table("frames", ["video_id", "frame_times"])
        counts: dict[str, int] = {}
        lengths = pc.list_value_length(frames.column("frame_times")).to_pylist()
        for video, length in zip(frames.column("video_id").to_pylist(), lengths, strict=True):
            counts[video] = counts.get(video, 0) + (length or 0)
        return {(video, i) for video, count in counts.items() for i in range(count)}
    return _pairs(inputs.table("videos", ["video_id"]), "")


def _pairs(table: pa.Table, level: str) -> set[tuple[str, int]]:
    videos = table.column("video_id").to_pylist()
    numbers = table.column(level).to_pylist() if level else [0] * len(videos)
    return set(zip(videos, numbers, strict=True))
