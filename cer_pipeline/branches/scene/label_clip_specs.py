"""The branch scene_label_clip (Table 1, ID 14): whole frames against texts of the emotions, by CLIP. No training.

Belongs here: its specs and plan; light at import. Does not belong here: the computation (`label_clip`) or CLIP
(`branches.encoders.clip`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches.encoders.specs import CLIP, SIZES
from cer_pipeline.branches.rows import segment_units
from cer_pipeline.plans import contents, listed, plan_of, values_by_video
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

NAME: Final = "scene_label_clip"
FRAMES: Final = f"frame_features/{CLIP}"
_MODULE: Final = "cer_pipeline.branches.scene.label_clip"
_SEGMENT_COLUMNS: Final = ("segment_id", "video_id", "segment", "first_sample", "samples", "status", "reason")
_FEATURE_COLUMNS: Final = ("video_id", "sample", "features", "status", "reason")


def _videos(inputs: Inputs, _: Profile, source: str) -> pa.Table:
    """One unit per video with its samples, keyed by the content of a table that has one row per sample."""
    videos = inputs.table("videos", ["video_id"])
    parts = contents(inputs, (source,), texts(videos, "video_id"))
    plan = plan_of(videos, "video_id", [digest(*content) for content in parts])
    samples = values_by_video(inputs.table(source, ["video_id", "sample"]), "sample")
    return plan.append_column("samples", listed(plan, samples, pa.int32(), default=[0]))


def _sample_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys of the rows of a video that could not be computed: one a sample."""
    return [{"sample": sample} for sample in unit["samples"]]


ENCODE: Final = StageSpec(
    table=tables.frame_features(CLIP, SIZES[CLIP]),
    description="CLIP image features of every stored frame, not scaled to length 1.",
    group="features",
    inputs=("videos", "frames"),
    reads={"videos": ("video_id",), "frames": ("video_id", "sample", "jpeg", "status", "reason")},
    plan=partial(_videos, source="frames"),
    stage=f"{_MODULE}:EncodeFrames",
    code_version="1",
    models=(CLIP,),
    placeholder_keys=_sample_keys,
    kinds=("parquet", "torch"),
    chunk_units=8,
)

SCENE_LABEL_CLIP: Final = BranchSpec(
    name=NAME,
    title="Scene-label match (CLIP)",
    modality="label",
    table1=14,
    features=StageSpec(
        table=tables.features(NAME, SIZES[CLIP]),
        description="Mean over the frames of a window of the CLIP image features of length 1.",
        group="features",
        inputs=("segments", FRAMES),
        reads={"segments": _SEGMENT_COLUMNS, FRAMES: _FEATURE_COLUMNS},
        plan=partial(segment_units, sources=(FRAMES,), by="video_id"),
        stage=f"{_MODULE}:Features",
        code_version="1",
        kinds=("parquet", "numpy"),
        chunk_units=1024,
    ),
    probabilities=StageSpec(
        table=tables.probabilities(NAME),
        description="Softmax over the similarities of frames and texts of the emotions, mean over a window.",
        group="probabilities",
        inputs=("segments", f"features/{NAME}", FRAMES),
        reads={
            "segments": _SEGMENT_COLUMNS,
            FRAMES: _FEATURE_COLUMNS,
            f"features/{NAME}": ("segment_id", "features", "status", "reason"),
        },
        plan=partial(segment_units, sources=(FRAMES,), by="video_id"),
        stage=f"{_MODULE}:Probabilities",
        code_version="1",
        config=(NAME,),
        models=(CLIP,),
        kinds=("parquet", "torch"),
        chunk_units=1024,
    ),
    extra=(ENCODE,),
    samples=StageSpec(
        table=tables.sample_probabilities(NAME),
        description="The same prediction for every stored frame.",
        group="probabilities",
        inputs=("videos", FRAMES),
        reads={"videos": ("video_id",), FRAMES: _FEATURE_COLUMNS},
        plan=partial(_videos, source=FRAMES),
        stage=f"{_MODULE}:Samples",
        code_version="1",
        config=(NAME,),
        models=(CLIP,),
        placeholder_keys=_sample_keys,
        kinds=("parquet", "torch"),
        chunk_units=64,
    ),
)
