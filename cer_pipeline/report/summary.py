"""Summaries of videos, as plain data.

Belongs here: one record for every video, computed from the tables. Does not belong here: showing them (`terminal`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
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
    """The summary of a video.

    Args:
        video_id: the video.
        seconds: duration, s; None if unknown.
        faces: number of people, as verified face tracks.
        words: words of the transcripts, in order.
        frames: rows of `frame_predictions` with a value.
        basic: top basic emotion of the mean over all frames (over all segments of a video without frames); None without
            a value.
        basic_probability: its mean probability.
        compound: the compound expression that is clear in most frames; None if none is clear, or without a value.
        compound_probability: its mean probability over these frames.
        compound_share: share of the frames in which it is clear and the top one.
        clear_share: share of the frames in which any expression is clear; None without a value.
        expressed: mean probability of the six expressions together; None without a value.
        statuses: for every branch, number of segments by status.
        status: status of the video.
        reason: its reason, if the status is not ok.
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
        """Branch -> share of the segments with a value."""
        return {b: n.get(Status.OK, 0) / max(sum(n.values()), 1) for b, n in self.statuses.items()}


def summarise(inputs: Inputs, rule: Clear) -> list[VideoSummary]:
    """Return the summary of every video of a shard, in the order of the table.

    Args:
        inputs: tables of the shard: videos, faces, transcripts, fused, compound, probabilities/*, frame_predictions.
        rule: which expressions count as clear.
    """
    videos = inputs.table("videos", ["video_id", "duration_s", "status", "reason"]).to_pylist()
    faces, words = _face_tracks(inputs), _words(inputs)
    frames, segments = _means_by_video(_frames(inputs), rule), _means_by_video(_segments(inputs), rule)
    branches = [c.removeprefix("w_") for c in inputs.table("fused").column_names if c.startswith("w_")]
    statuses = {branch: _statuses(inputs, branch) for branch in branches}
    return [
        VideoSummary(
            video_id=video["video_id"],
            seconds=video["duration_s"],
            faces=faces.get(video["video_id"], 0),
            words=tuple(words.get(video["video_id"], ())),
            frames=frames[video["video_id"]].rows if video["video_id"] in frames else 0,
            **(frames.get(video["video_id"]) or segments.get(video["video_id"]) or Means()).fields(),
            statuses={b: dict(s.get(video["video_id"], Counter())) for b, s in statuses.items()},
            status=video["status"],
            reason=video["reason"],
        )
        for video in videos
    ]


@dataclass(frozen=True)
class Means:
    """Means over rows with a value: their number, and fields of `VideoSummary` by the same names."""

    rows: int = 0
    basic: str | None = None
    basic_probability: float | None = None
    compound: str | None = None
    compound_probability: float | None = None
    compound_share: float | None = None
    clear_share: float | None = None
    expressed: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return all fields but the number of rows."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    @classmethod
    def of(cls, basic: Array, compound: Array, rule: Clear) -> Means:
        """Return the means of distributions over the basic emotions [n, 8] and the compounds [n, 7], n > 0."""
        means, clear = basic.mean(axis=0), rule.of_values(basic, compound)
        first = compound.argmax(axis=1)
        counts = np.bincount(first[clear], minlength=len(COMPOUND))
        k, n = int(counts.argmax()), len(basic)
        any_clear = bool(counts[k])
        return cls(
            rows=n,
            basic=BASIC[int(means.argmax())],
            basic_probability=float(means.max()),
            compound=COMPOUND[k] if any_clear else None,
            compound_probability=float(compound[clear & (first == k), k].mean()) if any_clear else None,
            compound_share=float(counts[k] / n) if any_clear else None,
            clear_share=float(clear.mean()),
            expressed=float(expressed(basic).mean()),
        )


def _face_tracks(inputs: Inputs) -> dict[str, int]:
    table = inputs.table("faces", ["video_id", "track", "verified"])
    tracked = table.filter(
        pc.and_kleene(pc.fill_null(table.column("verified"), False), pc.is_valid(table.column("track")))
    )
    tracks = set(zip(tracked.column("video_id").to_pylist(), tracked.column("track").to_pylist(), strict=True))
    return Counter(video for video, _ in tracks)


def _words(inputs: Inputs) -> dict[str, list[str]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in inputs.table("transcripts", ["video_id", "words"]).to_pylist():
        rows.setdefault(row["video_id"], []).append(row)
    return {video: [text for _, _, text in spoken_words(of_video)] for video, of_video in rows.items()}


def spoken_words(rows: Iterable[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    """Return start (s), end (s) and text of the words of some transcripts, each once although windows overlap."""
    return sorted({(w["start_s"], w["end_s"], w["word"].strip()) for row in rows for w in row["words"] or ()})


def _frames(inputs: Inputs) -> pa.Table:
    """Return the frames with a value: video_id and the 15 probabilities."""
    table = inputs.table("frame_predictions", ["video_id", "status", *BASIC_COLUMNS, *COMPOUND_COLUMNS])
    return table.filter(pc.equal(table.column("status"), str(Status.OK)))


def _segments(inputs: Inputs) -> pa.Table:
    """Return the segments with a value: video_id and the 15 probabilities, compounds by PPA."""
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


def _means_by_video(table: pa.Table, rule: Clear) -> dict[str, Means]:
    """Return the means of every video that has rows; the rows of a video are adjacent."""
    names = texts(table, "video_id")
    basic, compound = matrix(table, BASIC_COLUMNS), matrix(table, COMPOUND_COLUMNS)
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    spans = pairwise([*starts, len(names)]) if starts else ()
    return {names[a]: Means.of(basic[a:b], compound[a:b], rule) for a, b in spans}


def _statuses(inputs: Inputs, branch: str) -> dict[str, Counter[str]]:
    table = inputs.table(f"probabilities/{branch}", ["video_id", "status"])
    counts: dict[str, Counter[str]] = {}
    for video, status in zip(table.column("video_id").to_pylist(), table.column("status").to_pylist(), strict=True):
        counts.setdefault(video, Counter())[status] += 1
    return counts
