"""The stage that fuses the branches, and how fusions are trained.

Belongs here: the spec of `fused`, its plan, and the trainers; light at import. Does not belong here: the computation
(`fuse`) or any training (`train`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, plan_of, repeated
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.training.trainer import Trainer

EQUAL: Final = "equal"
HEAD: Final = "head_mhpf"
"""Zoo id of the trained fusion."""

TRAINERS: Final = (
    Trainer(
        "mhpf",
        "cer_pipeline.fusion.train.mhpf:train",
        "Multi-Head Probability Fusion on probabilities of branches that did not see the segment.",
        reads=("labels",),
    ),
    Trainer(
        "feature_fusion",
        "cer_pipeline.fusion.train.feature_level:train",
        "A query over the features of the branches; an alternative to mhpf whose values do not split into parts.",
        reads=("labels",),
    ),
)


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
    segments = inputs.table("segments", SEGMENT_COLUMNS)
    ids = texts(segments, "segment_id")
    parts = contents(inputs, [f"probabilities/{name}" for name in names], ids, "segment_id")
    plan = plan_of(segments, "segment_id", [digest(s, *content) for s, content in zip(ids, parts, strict=True)])
    return repeated(repeated(plan, "branches", names), "modalities", modalities)
