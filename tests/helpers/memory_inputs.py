"""Tables of one corpus shard in memory, for tests of stages that only read tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.stage import StageContext
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import TableSpec


@dataclass
class MemoryInputs:
    """`stage.Inputs` over tables in memory."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    corpus: str = "demo"
    shard: str = "s000"

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        table = self.tables[name]
        return table if columns is None else table.select(list(columns))

    def batches(self, name: str, video_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        table = self.tables[name]
        of_video = pa.array([v == video_id for v in table.column("video_id").to_pylist()])
        yield from table.select(list(columns or table.column_names)).filter(of_video).to_batches()

    def digests(self, name: str, unit: str = "video_id") -> dict[str, str]:
        digests: dict[str, str] = {}
        for row in self.tables[name].to_pylist():
            digests[row[unit]] = digest(digests.get(row[unit], ""), str(row))
        return digests

    def source(self, video_id: str) -> Path:
        raise AssertionError("no stage of these tests reads media")

    def registered(self) -> Corpus:
        return Corpus(self.corpus, "folder", Path("nowhere"), 1, ())


class NoWeights:
    """`stage.Weights` of a machine without any."""

    def path(self, model: str) -> Path:
        raise AssertionError(f"{model} is not needed")

    def digest(self, model: str) -> str | None:
        return None


def context(inputs: MemoryInputs, profile) -> StageContext:
    """A context for stages that use no model."""
    return StageContext(profile=profile, weights=NoWeights(), inputs=inputs)


def rows(spec: TableSpec, values: list[dict]) -> pa.Table:
    """A table of a spec from dicts that name only some columns."""
    blank = {c.name: None if c.nullable else (0 if not pa.types.is_list(c.type) else []) for c in spec.columns}
    full = [blank | {"status": "ok"} | row for row in values]
    for row in full:
        for c in spec.columns:
            if pa.types.is_boolean(c.type) and row[c.name] == 0:
                row[c.name] = False
    return pa.Table.from_pylist(full, schema=spec.schema)


def distribution(values: np.ndarray) -> dict[str, float]:
    """Probability columns of one distribution over the basic emotions."""
    return dict(zip(BASIC_COLUMNS, map(float, values), strict=True))


def segment(video: str, i: int) -> dict:
    """Key columns of a segment."""
    return {"segment_id": f"{video}/{i:04d}", "video_id": video, "segment": i}


def branch(name: str, sampled: bool = False) -> BranchSpec:
    """A branch of which only the name counts, and whether it has samples."""
    none: Any = None
    return BranchSpec(name, name, "face", None, none, none, samples=cast("Any", object()) if sampled else None)


def shard(
    videos: dict[str, float], branches: Sequence[str], fps: float = 25.0, missing: float = 0.3, seed: int = 0
) -> MemoryInputs:
    """A shard of random probabilities.

    Args:
        videos: video_id -> duration, s.
        branches: names; the first one also has samples.
        fps: frame rate.
        missing: share of branch values that are missing.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    out: dict[str, list[dict]] = {
        "videos": [],
        "segments": [],
        "frames": [],
        "samples": [],
        **{b: [] for b in branches},
    }
    for video, duration in sorted(videos.items()):
        count = 1 if duration <= 4 else int(np.ceil((duration - 4) / 2)) + 1
        times = np.arange(int(duration * fps)) / fps
        out["videos"].append({"video_id": video, "path": video, "sha256": "", "segments": count})
        for i in range(count):
            end = duration if i == count - 1 else 2.0 * i + 4
            out["segments"].append(segment(video, i) | {"start_s": 2.0 * i, "end_s": end})
            for branch in branches:
                row = segment(video, i)
                there = rng.random() >= missing
                row |= (
                    distribution(rng.dirichlet(np.full(8, 0.5))) if there else {"status": "no_face", "reason": "none"}
                )
                out[branch].append(row)
        for k in range(int(np.ceil(duration * 5))):
            mine = times[(times >= k / 5) & (times < (k + 1) / 5)]
            out["frames"].append({"video_id": video, "sample": k, "time_s": k / 5, "frame_times": mine.tolist()})
            row = {"video_id": video, "sample": k, "faces": 1}
            there = rng.random() >= missing
            row |= distribution(rng.dirichlet(np.full(8, 0.5))) if there else {"status": "no_face"}
            out["samples"].append(row)
    made = {name: rows(spec, out[name]) for name, spec in (("videos", tables.VIDEOS), ("segments", tables.SEGMENTS))}
    made["frames"] = rows(tables.FRAMES, out["frames"])
    made |= {f"probabilities/{b}": rows(tables.probabilities(b), out[b]) for b in branches}
    if "scene_minilm" in branches:
        spec = tables.features("scene_minilm", 384)
        said = [
            {k: row[k] for k in ("segment_id", "video_id", "segment")}
            | {k: row[k] for k in ("status", "reason") if k in row}
            | ({} if "status" in row else {"features": rng.normal(size=384).tolist()})
            for row in out["scene_minilm"]
        ]
        made["features/scene_minilm"] = rows(spec, said)
        views = [
            {k: row[k] for k in ("segment_id", "video_id", "segment", "status", "reason") if k in row}
            | {"view": "describer", "text": "The mouth is open."}
            for row in out["scene_minilm"]
        ]
        made["captions"] = rows(tables.CAPTIONS, views)
    made[f"samples/{branches[0]}"] = rows(tables.sample_probabilities(branches[0]), out["samples"])
    return MemoryInputs(made)
