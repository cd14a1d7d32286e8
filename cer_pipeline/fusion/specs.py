"""The stage that fuses the branches, and how fusions are trained.

Belongs here: the spec of `fused`, its plan, the combinations of branches that a profile names, and the trainers; light
at import. Does not belong here: the computation (`fuse`) or any training (`train`).

The columns without a prefix are the fusion of all enabled branches. A profile may name further combinations of them
(`combinations.named`); each has the same columns behind its prefix, with a status of its own. Names and branches of the
combinations enter the row keys through the columns of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, plan_of, repeated
from cer_pipeline.profiles import Profile, nearest
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.training.trainer import Trainer

EQUAL: Final = "equal"
HEAD: Final = "head_mhpf"
"""Zoo id of the trained fusion."""
RESERVED: Final = ("fused", "ppa", "pfsa")
"""Names of systems in evaluations, which no combination may have."""

Combinations = dict[str, tuple[str, ...]]
"""Name of a combination -> its branches in the order of the profile."""

_MHPF_OPTIONS: Final = (
    "method", "loss", "heads", "soft", "balance", "dropout", "decay", "sharpness", "stiffness", "seed",
    "branches", "voice", "face", "last_actor", "folds",
)  # fmt: skip
TRAINERS: Final = (
    Trainer(
        "mhpf",
        "cer_pipeline.fusion.train.mhpf:train",
        "Multi-Head Probability Fusion on probabilities of branches that did not see the segment.",
        reads=("labels",),
        options=_MHPF_OPTIONS,
    ),
    Trainer(
        "feature_fusion",
        "cer_pipeline.fusion.train.feature_level:train",
        "A query over the features of the branches; an alternative to mhpf whose values do not split into parts.",
        reads=("labels",),
        options=("epochs", "patience", "leave_out", "folds", "seed", "branches"),
    ),
)


def combinations_of(profile: Profile, branches: Sequence[str]) -> Combinations:
    """The named combinations of a profile.

    Args:
        profile: settings.
        branches: enabled branches; a combination keeps their order, so that its values do not depend on its own.

    Raises:
        CerError: a combination has a branch that is not enabled, or the name of a branch or of another system.
    """
    named: Mapping[str, Sequence[str]] = profile["combinations"]["named"]
    for name, wanted in named.items():
        if name in (*branches, *RESERVED):
            raise CerError("a combination has the name of another system", name, "choose another name")
        unknown = [branch for branch in wanted if branch not in branches]
        if unknown:
            where = f"{', '.join(unknown)} in combinations.named.{name}"
            raise CerError("a combination names a branch that is not enabled", where, nearest(unknown[0], branches))
    return {name: tuple(b for b in branches if b in wanted) for name, wanted in named.items()}


def fusion_stages(
    branches: Sequence[BranchSpec], method: str = EQUAL, combinations: Combinations | None = None
) -> tuple[StageSpec, ...]:
    """The stage `fused` over some branches.

    Args:
        branches: the branches that the profile enables, in the order of the weights.
        method: `fusion.method` of the profile: every other method than "equal" needs the trained fusion.
        combinations: further combinations of these branches.
    """
    names, modalities = tuple(b.name for b in branches), tuple(b.modality for b in branches)
    further = combinations or {}
    return (
        StageSpec(
            table=tables.fused(names, further),
            description="One distribution per segment from all branches, with the weight of every branch and class; a "
            "named combination of branches has the same columns behind `NAME__`.",
            group="fusion",
            reads={
                "segments": ("segment_id", "video_id", "segment"),
                **{f"probabilities/{name}": ("segment_id", "status", *BASIC_COLUMNS) for name in names},
            },
            inputs=("segments", *(f"probabilities/{name}" for name in names)),
            plan=partial(_plan, names, modalities, further),
            stage="cer_pipeline.fusion.fuse:Fuse",
            code_version="4",
            config=("fusion",),
            models=() if method == EQUAL else (HEAD,),
            kinds=("parquet", "numpy"),
            chunk_units=4096,
        ),
    )


def _plan(
    names: Sequence[str], modalities: Sequence[str], combinations: Combinations, inputs: Inputs, _: Profile
) -> pa.Table:
    segments = inputs.table("segments", SEGMENT_COLUMNS)
    ids = texts(segments, "segment_id")
    parts = contents(inputs, [f"probabilities/{name}" for name in names], ids, "segment_id")
    plan = plan_of(segments, "segment_id", [digest(s, *content) for s, content in zip(ids, parts, strict=True)])
    plan = repeated(repeated(plan, "branches", names), "modalities", modalities)
    kind = pa.map_(pa.string(), pa.list_(pa.string()))
    return plan.append_column("combinations", pa.array([list(combinations.items())] * plan.num_rows, kind))
