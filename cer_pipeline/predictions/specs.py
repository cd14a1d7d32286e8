"""The stages that map fused segments to compound expressions, and segments to frames.

Belongs here: the specs of `compound` and `frame_predictions` and their plans; light at import.
Does not belong here: the computation (`map_compounds`, `adjust`, `predict_frames`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.compound.adjust import Adjustment
from cer_pipeline.fusion.inputs import texts
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

PPA: Final = "ppa"
PFSA: Final = "pfsa"
SCENE: Final = "scene_minilm"
"""The branch whose features PFSA compares with prototypes."""
SCENE_HEAD: Final = "head_scene_minilm"
COMPOUND_TABLE: Final = tables.COMPOUNDS.name
CAPTIONS: Final = tables.CAPTIONS.name


_FUSED_KEYS: Final = ("segment_id", "video_id", "segment")
_FUSED_COLUMNS: Final = (*_FUSED_KEYS, "expressed", "agreement", *BASIC_COLUMNS, "status", "reason")
_SCENE_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    CAPTIONS: ("segment_id", "view", "status"),
    f"features/{SCENE}": ("segment_id", "features", "status", "reason"),
    f"probabilities/{SCENE}": ("segment_id", "model"),
}


def _columns_of_frames(names: Sequence[str], sampled: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the columns that `frame_predictions` is computed from, by table."""
    weights = [f"w_{name}" for name in names]
    return {
        "videos": ("video_id",),
        "segments": ("video_id", "segment", "start_s", "end_s"),
        "frames": ("frame_times",),
        "fused": (*_FUSED_KEYS, *weights, *BASIC_COLUMNS, "status"),
        COMPOUND_TABLE: ("video_id", "segment", "method", *COMPOUND_COLUMNS, "status", "reason"),
        **{f"probabilities/{name}": ("segment_id", *BASIC_COLUMNS, "status") for name in names},
        **{f"samples/{name}": ("sample", *BASIC_COLUMNS, "status") for name in sampled},
    }


def methods_of(branches: Sequence[str]) -> tuple[str, ...]:
    """The methods of `compound` over some branches: PFSA needs the scene branch."""
    return (PPA, PFSA) if SCENE in branches else (PPA,)


def _plan_compound(inputs_: Sequence[str], methods: Sequence[str], inputs: Inputs, profile: Profile) -> pa.Table:
    """One row per segment. An adjustment that looks beyond the segment puts all that it looks at into the key."""
    settings = Adjustment.of(profile)
    segments = inputs.table("fused", ["segment_id", "video_id", "segment"])
    seen = [inputs.digests(name, unit="segment_id") for name in inputs_]
    ids, videos = texts(segments, "segment_id"), texts(segments, "video_id")
    own = [digest(*(d.get(segment, "") for d in seen)) for segment in ids]
    if settings.prior_correction > 0:
        own = [digest(mine, whole) for whole in [digest(*own)] for mine in own]
    elif settings.smoothing > 0:
        by_video: dict[str, list[str]] = {}
        for video, mine in zip(videos, own, strict=True):
            by_video.setdefault(video, []).append(mine)
        shared = {video: digest(*parts) for video, parts in by_video.items()}
        own = [digest(mine, shared[video]) for mine, video in zip(own, videos, strict=True)]
    listed = pa.array([list(methods)] * len(own), pa.list_(pa.string()))
    table = segments.append_column(UNIT, segments.column("segment_id"))
    return table.append_column(INPUTS, pa.array(own, pa.string())).append_column("methods", listed)


def _blank_compound(methods: Sequence[str], unit: dict[str, Any]) -> list[dict[str, Any]]:
    keys = {k: unit[k] for k in ("segment_id", "video_id", "segment")}
    return [keys | {"method": method} for method in methods]


def _compound_stage(branches: Sequence[str]) -> StageSpec:
    methods = methods_of(branches)
    scene = (CAPTIONS, f"features/{SCENE}", f"probabilities/{SCENE}")
    inputs = ("fused", *scene) if PFSA in methods else ("fused",)
    return StageSpec(
        table=tables.COMPOUNDS,
        description="The 7 compound expressions of every segment, by each method that there is evidence for.",
        group="predictions",
        reads={"fused": _FUSED_COLUMNS, **(_SCENE_COLUMNS if PFSA in methods else {})},
        inputs=inputs,
        plan=partial(_plan_compound, inputs, methods),
        stage="cer_pipeline.predictions.map_compounds:MapCompounds",
        code_version="3",
        config=("compound",),
        optional_models=(SCENE_HEAD,) if PFSA in methods else (),
        placeholder_keys=partial(_blank_compound, methods),
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
    compound = _compound_stage(names)
    inputs = ("videos", "segments", "frames", "fused", compound.name, *(f"probabilities/{n}" for n in names))
    return (
        compound,
        StageSpec(
            table=tables.FRAME_PREDICTIONS,
            description="Basic and compound probabilities of every frame: the mean over the windows that hold it.",
            group="predictions",
            reads=_columns_of_frames(names, sampled),
            inputs=(*inputs, *(f"samples/{n}" for n in sampled)),
            plan=partial(_plan_frames, names, sampled),
            stage="cer_pipeline.predictions.predict_frames:PredictFrames",
            code_version="4",
            config=("frames_out", "compound"),
            placeholder_keys=_placeholder_keys,
            kinds=("parquet", "numpy"),
            may_be_empty=True,
            chunk_units=16,
        ),
    )


def _placeholder_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"video_id": unit[UNIT], "frame": tables.NO_FRAME, "time_s": 0.0}]


def _plan_frames(names: Sequence[str], sampled: Sequence[str], inputs: Inputs, _: Profile) -> pa.Table:
    videos = texts(inputs.table("videos", ["video_id"]), "video_id")
    read = ["segments", "frames", "fused", COMPOUND_TABLE]
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
