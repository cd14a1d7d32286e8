"""The stage that fuses the branches.

Belongs here: the spec of `fused` and its plan; light at import. Does not belong here: the computation (`fuse`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.fusion.inputs import texts
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

EQUAL: Final = "equal"
HEAD: Final = "head_mhpf"
"""Zoo id of the trained fusion."""


def fusion_stages(branches: Sequence[BranchSpec], method: str = EQUAL) -> tuple[StageSpec, ...]:
    """The stage `fused` over some branches.

    Args:
        branches: the branches that the profile enables, in the order of the weights.
        method: `fusion.method` of the profile: every other method than "equal" needs the trained fusion.
    """
    names, modalities = tuple(b.name for b in branches), tuple(b.modality for b in branches)
    return (
        StageSpec(
            table=tables.fused(names),
            description="One distribution per segment from all branches, with the weight of every branch and class.",
            group="fusion",
            reads={
                "segments": ("segment_id", "video_id", "segment"),
                **{f"probabilities/{name}": ("segment_id", "status", *BASIC_COLUMNS) for name in names},
            },
            inputs=("segments", *(f"probabilities/{name}" for name in names)),
            plan=partial(_plan, names, modalities),
            stage="cer_pipeline.fusion.fuse:Fuse",
            code_version="4",
            config=("fusion",),
            models=() if method == EQUAL else (HEAD,),
            kinds=("parquet", "numpy"),
            chunk_units=4096,
        ),
    )


def _plan(names: Sequence[str], modalities: Sequence[str], inputs: Inputs, _: Profile) -> pa.Table:
    segments = inputs.table("segments", ["segment_id", "video_id", "segment"])
    seen = [inputs.digests(f"probabilities/{name}", unit="segment_id") for name in names]
    digests = [digest(segment, *(d.get(segment, "") for d in seen)) for segment in texts(segments, "segment_id")]
    listed, of = (pa.array([list(v)] * segments.num_rows, pa.list_(pa.string())) for v in (names, modalities))
    return (
        segments.append_column(UNIT, segments.column("segment_id"))
        .append_column(INPUTS, pa.array(digests, pa.string()))
        .append_column("branches", listed)
        .append_column("modalities", of)
    )
