"""Check that a table has exactly one row for every video, segment, sample or frame of its shard.

Belongs here: the expected keys of a table. Does not belong here: the check of its values (`store.parquet`).
"""

from __future__ import annotations

import pyarrow as pa

from cer_pipeline.arrow import pc
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.tables import NO_FRAME

EXAMPLES = 3  # number of keys that an error names


def missing_and_unexpected(spec: StageSpec, inputs: Inputs) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return the keys that a table lacks, and those that it must not have.

    A table with a row for every segment is compared with `segments`, one with a row for every sample with `frames`, one
    with a row for every frame with the time line in `frames`, and any other with `videos`.

    Args:
        spec: the stage whose table is checked.
        inputs: the shard.

    Returns:
        (missing, unexpected), each a sorted list of (video_id, number of the segment, sample or frame; 0 for a video).
    """
    expected, actual = _expected(spec, inputs), _actual(spec, inputs)
    # A video whose frames could not be computed has one row that says so, which another check reports.
    failed = {video for video, number in actual if number == NO_FRAME}
    expected, actual = ({key for key in keys if key[0] not in failed} for keys in (expected, actual))
    return sorted(expected - actual), sorted(actual - expected)


def _level(spec: StageSpec) -> str:
    level = spec.level or next((name for name in ("segment", "sample", "frame") if name in spec.table.key), "video")
    return "" if level == "video" else level


def _actual(spec: StageSpec, inputs: Inputs) -> set[tuple[str, int]]:
    level = _level(spec)
    return _pairs(inputs.table(spec.name, ["video_id", *([level] if level else [])]), level)


def _expected(spec: StageSpec, inputs: Inputs) -> set[tuple[str, int]]:
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
