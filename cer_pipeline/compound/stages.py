"""The stages that map fused segments to compound expressions, and segments to frames.

Belongs here: the specs of `compound` and `frame_predictions` and their plans; light at import.
Does not belong here: the computation (`mapping`, `predict`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.branches.spec import BranchSpec
from cer_pipeline.fusion.evidence import texts
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

PPA: Final = "ppa"


def _plan_compound(inputs: Inputs, _: Profile) -> pa.Table:
    segments = inputs.table("fused", ["segment_id", "video_id", "segment"])
    seen = inputs.digests("fused", unit="segment_id")
    digests = pa.array([seen.get(segment, "") for segment in texts(segments, "segment_id")], pa.string())
    return segments.append_column(UNIT, segments.column("segment_id")).append_column(INPUTS, digests)


COMPOUND = StageSpec(
    table=tables.COMPOUNDS,
    description="The 7 compound expressions of every segment, by Pair-Wise Probability Aggregation.",
    group="predictions",
    inputs=("fused",),
    plan=_plan_compound,
    stage="cer_pipeline.compound.mapping:MapCompounds",
    code_version="1",
    skeleton=lambda unit: [{k: unit[k] for k in ("segment_id", "video_id", "segment")} | {"method": PPA}],
    kinds=("parquet", "numpy"),
    chunk_units=4096,
)


def compound_stages(branches: Sequence[BranchSpec]) -> tuple[StageSpec, ...]:
    """The stages `compound` and `frame_predictions` over some branches.

    Args:
        branches: the branches that `fused` is made of, in the same order.
    """
    names = tuple(b.name for b in branches)
    sampled = tuple(b.name for b in branches if b.samples is not None)
    inputs = ("videos", "segments", "frames", "fused", COMPOUND.name, *(f"probabilities/{n}" for n in names))
    return (
        COMPOUND,
        StageSpec(
            table=tables.FRAME_PREDICTIONS,
            description="Basic and compound probabilities of every frame: the mean over the windows that hold it.",
            group="predictions",
            inputs=(*inputs, *(f"samples/{n}" for n in sampled)),
            plan=partial(_plan_frames, names, sampled),
            stage="cer_pipeline.compound.predict:PredictFrames",
            code_version="2",
            config=("frames_out",),
            skeleton=_skeleton,
            kinds=("parquet", "numpy"),
            may_be_empty=True,
            chunk_units=16,
        ),
    )


def _skeleton(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"video_id": unit[UNIT], "frame": tables.NO_FRAME, "time_s": 0.0}]


def _plan_frames(names: Sequence[str], sampled: Sequence[str], inputs: Inputs, _: Profile) -> pa.Table:
    videos = texts(inputs.table("videos", ["video_id"]), "video_id")
    read = ["segments", "frames", "fused", COMPOUND.name]
    read += [f"probabilities/{n}" for n in names] + [f"samples/{n}" for n in sampled]
    seen = [inputs.digests(name) for name in read]
    return pa.table(
        {
            UNIT: pa.array(videos, pa.string()),
            INPUTS: pa.array([digest(*(d.get(v, "") for d in seen)) for v in videos], pa.string()),
            "video_id": pa.array(videos, pa.string()),
            "branches": pa.array([list(names)] * len(videos), pa.list_(pa.string())),
            "sampled": pa.array([list(sampled)] * len(videos), pa.list_(pa.string())),
        }
    )
