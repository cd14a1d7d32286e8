"""What was found in every video, as plain data.

Belongs here: summing the tables up, one record per video. Does not belong here: showing it (`terminal`, `timeline`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cer_pipeline.arrow import pc
from cer_pipeline.compound.stages import PPA
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.stage import Inputs
from cer_pipeline.status import Status


@dataclass(frozen=True)
class VideoSummary:
    """One video.

    Args:
        video_id: the video.
        seconds: duration; None where it is unknown.
        faces: number of people, as verified face tracks.
        words: words that were heard, in order.
        frames: rows of `frame_predictions` with a value.
        basic: the most likely basic emotion of the mean over all frames (over all segments of a video without frames);
            None without a value.
        basic_probability: its mean probability.
        compound: the most likely compound expression of that mean; None without a value.
        compound_probability: its mean probability.
        statuses: for every branch, number of segments by status.
        status: of the video itself.
        reason: why, where that is not ok.
    """

    video_id: str
    seconds: float | None
    faces: int
    words: tuple[str, ...]
    frames: int
    basic: str | None
    basic_probability: float | None
    compound: str | None
    compound_probability: float | None
    statuses: dict[str, dict[str, int]]
    status: str
    reason: str | None

    @property
    def coverage(self) -> dict[str, float]:
        """Share of the segments that each branch could serve."""
        return {b: n.get(Status.OK, 0) / max(sum(n.values()), 1) for b, n in self.statuses.items()}


def summarise(inputs: Inputs) -> list[VideoSummary]:
    """One record for every video of a shard, in the order of the table.

    Args:
        inputs: tables of the shard: videos, faces, transcripts, fused, probabilities/*, frame_predictions.
    """
    videos = inputs.table("videos", ["video_id", "duration_s", "status", "reason"]).to_pylist()
    people, words, means = _people(inputs), _words(inputs), _means(inputs)
    segments = _segment_means(inputs)
    branches = [c.removeprefix("w_") for c in inputs.table("fused").column_names if c.startswith("w_")]
    statuses = {branch: _statuses(inputs, branch) for branch in branches}
    out = []
    for video in videos:
        video_id = video["video_id"]
        count, values = means.get(video_id, (0, None))
        values = segments.get(video_id) if values is None else values
        basic = compound = None
        if values is not None:
            basic, compound = int(values[: len(BASIC)].argmax()), int(values[len(BASIC) :].argmax())
        out.append(
            VideoSummary(
                video_id=video_id,
                seconds=video["duration_s"],
                faces=people.get(video_id, 0),
                words=tuple(words.get(video_id, ())),
                frames=count,
                basic=None if basic is None else BASIC[basic],
                basic_probability=None if values is None or basic is None else float(values[basic]),
                compound=None if compound is None else COMPOUND[compound],
                compound_probability=None
                if values is None or compound is None
                else float(values[len(BASIC) + compound]),
                statuses={b: dict(s.get(video_id, Counter())) for b, s in statuses.items()},
                status=video["status"],
                reason=video["reason"],
            )
        )
    return out


def _people(inputs: Inputs) -> dict[str, int]:
    table = inputs.table("faces", ["video_id", "track", "verified"])
    seen = table.filter(
        pc.and_kleene(pc.fill_null(table.column("verified"), False), pc.is_valid(table.column("track")))
    )
    pairs = set(zip(seen.column("video_id").to_pylist(), seen.column("track").to_pylist(), strict=True))
    return Counter(video for video, _ in pairs)


def _words(inputs: Inputs) -> dict[str, list[str]]:
    """Every word once, though windows overlap."""
    found: dict[str, dict[tuple[float, float, str], None]] = {}
    for row in inputs.table("transcripts", ["video_id", "words"]).to_pylist():
        mine = found.setdefault(row["video_id"], {})
        for word in row["words"] or []:
            mine[word["start_s"], word["end_s"], word["word"].strip()] = None
    return {video: [text for _, _, text in sorted(mine)] for video, mine in found.items()}


def _means(inputs: Inputs) -> dict[str, tuple[int, np.ndarray | None]]:
    """For every video: number of frames with a value, and the mean of their 15 probabilities."""
    columns: Sequence[str] = (*BASIC_COLUMNS, *COMPOUND_COLUMNS)
    table = inputs.table("frame_predictions", ["video_id", "status", *columns])
    table = table.filter(pc.equal(table.column("status"), str(Status.OK)))
    grouped = table.group_by("video_id", use_threads=False).aggregate(
        [(c, "mean") for c in columns] + [("status", "count")]
    )
    return {
        row["video_id"]: (row["status_count"], np.array([row[f"{c}_mean"] for c in columns]))
        for row in grouped.to_pylist()
    }


def _segment_means(inputs: Inputs) -> dict[str, np.ndarray]:
    """For every video: the mean of the 15 probabilities over its segments that have a value, compounds by PPA."""
    found: dict[str, list[np.ndarray]] = {}
    for name, columns in (("fused", BASIC_COLUMNS), ("compound", COMPOUND_COLUMNS)):
        methods = ["method"] if name == "compound" else []
        table = inputs.table(name, ["video_id", "status", *methods, *columns])
        table = table.filter(pc.equal(table.column("status"), str(Status.OK)))
        if methods:
            table = table.filter(pc.equal(table.column("method"), PPA))
        grouped = table.group_by("video_id", use_threads=False).aggregate([(c, "mean") for c in columns])
        for row in grouped.to_pylist():
            found.setdefault(row["video_id"], []).append(np.array([row[f"{c}_mean"] for c in columns]))
    return {video: np.concatenate(parts) for video, parts in found.items() if len(parts) == 2}


def _statuses(inputs: Inputs, branch: str) -> dict[str, Counter[str]]:
    table = inputs.table(f"probabilities/{branch}", ["video_id", "status"])
    found: dict[str, Counter[str]] = {}
    for video, status in zip(table.column("video_id").to_pylist(), table.column("status").to_pylist(), strict=True):
        found.setdefault(video, Counter())[status] += 1
    return found
