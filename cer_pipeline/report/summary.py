"""What was found in every video, as plain data.

Belongs here: summing the tables up, one record per video. Does not belong here: showing it (`terminal`, `timeline`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from cer_pipeline.arrow import matrix, pc, rows_of, texts
from cer_pipeline.compound.clear import Clear
from cer_pipeline.fusion.combine import Array
from cer_pipeline.fusion.uncertainty import expressed
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.predictions.specs import PPA
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
        compound: the compound expression that is clear most of the time; None where none ever is, or without a value.
        compound_probability: its mean probability over that time.
        compound_share: share of the frames in which it is clear and the first one.
        clear_share: share of the frames in which any expression is clear; None without a value.
        expressed: mean share on the six expressions; None without a value.
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
    compound_share: float | None
    clear_share: float | None
    expressed: float | None
    statuses: dict[str, dict[str, int]]
    status: str
    reason: str | None

    @property
    def coverage(self) -> dict[str, float]:
        """Share of the segments that each branch could serve."""
        return {b: n.get(Status.OK, 0) / max(sum(n.values()), 1) for b, n in self.statuses.items()}


def summarise(inputs: Inputs, rule: Clear) -> list[VideoSummary]:
    """One record for every video of a shard, in the order of the table.

    Args:
        inputs: tables of the shard: videos, faces, transcripts, fused, compound, probabilities/*, frame_predictions.
        rule: what is called a clear expression.
    """
    videos = inputs.table("videos", ["video_id", "duration_s", "status", "reason"]).to_pylist()
    people, words = _people(inputs), _words(inputs)
    frames, segments = _findings(_frames(inputs), rule), _findings(_segments(inputs), rule)
    branches = [c.removeprefix("w_") for c in inputs.table("fused").column_names if c.startswith("w_")]
    statuses = {branch: _statuses(inputs, branch) for branch in branches}
    return [
        VideoSummary(
            video_id=video["video_id"],
            seconds=video["duration_s"],
            faces=people.get(video["video_id"], 0),
            words=tuple(words.get(video["video_id"], ())),
            frames=frames[video["video_id"]].rows if video["video_id"] in frames else 0,
            **(frames.get(video["video_id"]) or segments.get(video["video_id"]) or Finding()).shown(),
            statuses={b: dict(s.get(video["video_id"], Counter())) for b, s in statuses.items()},
            status=video["status"],
            reason=video["reason"],
        )
        for video in videos
    ]


@dataclass(frozen=True)
class Finding:
    """What some rows with a value say together; the fields of `VideoSummary` of the same names, and their number."""

    rows: int = 0
    basic: str | None = None
    basic_probability: float | None = None
    compound: str | None = None
    compound_probability: float | None = None
    compound_share: float | None = None
    clear_share: float | None = None
    expressed: float | None = None

    def shown(self) -> dict[str, Any]:
        """All but the number of rows."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    @classmethod
    def of(cls, basic: Array, compound: Array, rule: Clear) -> Finding:
        """The finding of distributions over the basic emotions [n, 8] and the compounds [n, 7], n > 0."""
        means, clear = basic.mean(axis=0), rule.of_values(basic, compound)
        first = compound.argmax(axis=1)
        counts = np.bincount(first[clear], minlength=len(COMPOUND))
        k, n = int(counts.argmax()), len(basic)
        there = bool(counts[k])
        return cls(
            rows=n,
            basic=BASIC[int(means.argmax())],
            basic_probability=float(means.max()),
            compound=COMPOUND[k] if there else None,
            compound_probability=float(compound[clear & (first == k), k].mean()) if there else None,
            compound_share=float(counts[k] / n) if there else None,
            clear_share=float(clear.mean()),
            expressed=float(expressed(basic).mean()),
        )


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


def _frames(inputs: Inputs) -> pa.Table:
    """Frames with a value: video_id and the 15 probabilities."""
    table = inputs.table("frame_predictions", ["video_id", "status", *BASIC_COLUMNS, *COMPOUND_COLUMNS])
    return table.filter(pc.equal(table.column("status"), str(Status.OK)))


def _segments(inputs: Inputs) -> pa.Table:
    """Segments with a value: video_id and the 15 probabilities, compounds by PPA."""
    fused = inputs.table("fused", ["segment_id", "video_id", "status", *BASIC_COLUMNS])
    fused = fused.filter(pc.equal(fused.column("status"), str(Status.OK)))
    mapped = inputs.table("compound", ["segment_id", "method", "status", *COMPOUND_COLUMNS])
    mapped = mapped.filter(pc.equal(mapped.column("method"), PPA))
    mapped = mapped.filter(pc.equal(mapped.column("status"), str(Status.OK)))
    fused = fused.filter(pc.is_in(fused.column("segment_id"), value_set=mapped.column("segment_id").combine_chunks()))
    mapped = rows_of(mapped, "segment_id", fused.column("segment_id"))
    return pa.table(
        {c: fused.column(c) for c in ("video_id", *BASIC_COLUMNS)} | {c: mapped.column(c) for c in COMPOUND_COLUMNS}
    )


def _findings(table: pa.Table, rule: Clear) -> dict[str, Finding]:
    """The finding of every video that has rows; the rows of a video stand together."""
    names = texts(table, "video_id")
    basic, compound = matrix(table, BASIC_COLUMNS), matrix(table, COMPOUND_COLUMNS)
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    spans = pairwise([*starts, len(names)]) if starts else ()
    return {names[a]: Finding.of(basic[a:b], compound[a:b], rule) for a, b in spans}


def _statuses(inputs: Inputs, branch: str) -> dict[str, Counter[str]]:
    table = inputs.table(f"probabilities/{branch}", ["video_id", "status"])
    found: dict[str, Counter[str]] = {}
    for video, status in zip(table.column("video_id").to_pylist(), table.column("status").to_pylist(), strict=True):
        found.setdefault(video, Counter())[status] += 1
    return found
