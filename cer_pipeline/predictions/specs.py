"""The stages that map fused segments to compound expressions, and segments to frames.

Belongs here: the specs of `compound` and `frame_predictions` and their plans; light at import.
Does not belong here: the computation (`map_compounds`, `adjust`, `predict_frames`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.compound.adjust import Adjustment
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, plan_of, repeated, values_by_video
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

PPA: Final = "ppa"
PFSA: Final = "pfsa"
SCENE: Final = "scene_minilm"
"""The branch whose features PFSA compares with prototypes."""
SCENE_HEAD: Final = "head_scene_minilm"
COMPOUND_TABLE: Final = tables.COMPOUNDS.name
CAPTIONS: Final = tables.CAPTIONS.name


_FUSED_KEYS: Final = ("segment_id", "video_id", "segment")
_FUSED_VALUES: Final = ("expressed", "agreement", *BASIC_COLUMNS, "status", "reason")
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
    """Methods of `compound` over some branches: PFSA needs the scene branch."""
    return (PPA, PFSA) if SCENE in branches else (PPA,)


def _plan_compound(sources: Sequence[str], methods: Sequence[str], inputs: Inputs, profile: Profile) -> pa.Table:
    """One unit per segment. With an adjustment, a key also depends on the other segments that the adjustment reads."""
    settings = Adjustment.of(profile)
    segments = inputs.table("fused", SEGMENT_COLUMNS)
    ids, videos = texts(segments, "segment_id"), texts(segments, "video_id")
    keys = [digest(*content) for content in contents(inputs, sources, ids, "segment_id")]
    if settings.prior_correction > 0:
        whole = digest(*keys)
        keys = [digest(key, whole) for key in keys]
    elif settings.smoothing > 0:
        table = segments.append_column("key", pa.array(keys, pa.string()))
        video_keys = {video: digest(*parts) for video, parts in values_by_video(table, "key").items()}
        keys = [digest(key, video_keys[video]) for key, video in zip(keys, videos, strict=True)]
    return repeated(plan_of(segments, "segment_id", keys), "methods", methods)


def _compound_keys(methods: Sequence[str], unit: dict[str, Any]) -> list[dict[str, Any]]:
    keys = {name: unit[name] for name in SEGMENT_COLUMNS}
    return [keys | {"method": method} for method in methods]


def fused_columns(combinations: Iterable[str]) -> tuple[str, ...]:
    """Columns of `fused` that `compound` is computed from: of the fusion of all branches, and of each combination."""
    prefixes = ("", *map(tables.prefix_of, combinations))
    return (*_FUSED_KEYS, *(f"{prefix}{name}" for prefix in prefixes for name in _FUSED_VALUES))


def _compound_stage(branches: Sequence[str], combinations: Sequence[str]) -> StageSpec:
    methods = methods_of(branches)
    scene = (CAPTIONS, f"features/{SCENE}", f"probabilities/{SCENE}")
    inputs = ("fused", *scene) if PFSA in methods else ("fused",)
    return StageSpec(
        table=tables.compounds(combinations),
        description="The 7 compound expressions of every segment, by each method whose inputs exist; PPA also of each "
        "named combination of branches, behind `NAME__`.",
        group="predictions",
        reads={"fused": fused_columns(combinations), **(_SCENE_COLUMNS if PFSA in methods else {})},
        inputs=inputs,
        plan=partial(_plan_compound, inputs, methods),
        stage="cer_pipeline.predictions.map_compounds:MapCompounds",
        code_version="3",
        config=("compound",),
        optional_models=(SCENE_HEAD,) if PFSA in methods else (),
        placeholder_keys=partial(_compound_keys, methods),
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )


def compound_stages(branches: Sequence[BranchSpec], combinations: Iterable[str] = ()) -> tuple[StageSpec, ...]:
    """The stages `compound` and `frame_predictions` over some branches.

    Args:
        branches: the branches of `fused`, in the same order.
        combinations: names of the further fusions in `fused`.
    """
    names = tuple(b.name for b in branches)
    sampled = tuple(b.name for b in branches if b.samples is not None)
    compound = _compound_stage(names, tuple(combinations))
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
            placeholder_keys=_frame_keys,
            kinds=("parquet", "numpy"),
            may_be_empty=True,
            chunk_units=16,
        ),
    )


def _frame_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"video_id": unit[UNIT], "frame": tables.NO_FRAME, "time_s": 0.0}]


def _plan_frames(names: Sequence[str], sampled: Sequence[str], inputs: Inputs, _: Profile) -> pa.Table:
    videos = inputs.table("videos", ["video_id"])
    sources = ["segments", "frames", "fused", COMPOUND_TABLE]
    sources += [*(f"probabilities/{name}" for name in names), *(f"samples/{name}" for name in sampled)]
    keys = [digest(*content) for content in contents(inputs, sources, texts(videos, "video_id"))]
    return repeated(repeated(plan_of(videos, "video_id", keys), "branches", names), "sampled", sampled)
