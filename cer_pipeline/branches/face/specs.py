"""The face branches: static (Table 1, ID 1) and temporal (IDs 2 and 3).

Belongs here: their specs and plans; light at import. Does not belong here: any computation (`encode`,
`static`, `temporal`) or rule (`facs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches.face.facs import UNITS
from cer_pipeline.branches.rows import segment_units
from cer_pipeline.labels import BASIC
from cer_pipeline.perception.faces.blendshapes import BLENDSHAPES
from cer_pipeline.plans import contents, listed, plan_of, values_by_video
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.training.trainer import Trainer

ENCODER: Final = "mini_xception"
"""Zoo id of the expression network, name of its table and of its profile section."""

NATIVE: Final[tuple[str, ...]] = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral")
"""Native order of the network's 7 outputs in this project's words (its own: angry, disgust, fear, happy, sad, surprise,
neutral). It knows no Other."""

LOGITS: Final = len(NATIVE)
POOLED: Final = 128  # channels before the network's last convolution
ENCODER_SIZE: Final = LOGITS + POOLED

STATIC: Final = "face_static"
TRANSFORMER: Final = "face_emo_transformer"
MAMBA: Final = "face_emo_mamba"


def _static_features() -> tuple[str, ...]:
    pose = ("yaw", "pitch", "roll")
    return (
        *(f"network_{label}" for label in BASIC),
        *(f"prototypes_{label}" for label in BASIC),
        "faces",
        "faces_share",
        *(f"{unit}_{kind}" for kind in ("mean", "max", "std", "rest") for unit in UNITS),
        "smile_mean",
        "smile_max",
        *(f"logit_{kind}_{label}" for kind in ("mean", "std") for label in NATIVE),
        *(f"{angle}_{kind}" for kind in ("mean", "std") for angle in pose),
    )


STATIC_FEATURES: Final[tuple[str, ...]] = _static_features()
"""Meaning of each position of `features/face_static`."""

STEPS_PER_WINDOW: Final = 20  # samples of a whole window: 4 s at 5 Hz
STEP_FEATURES: Final[tuple[str, ...]] = (
    *BLENDSHAPES,
    *(f"logit_{label}" for label in NATIVE),
    "yaw",
    "pitch",
    "roll",
    "seen",
)
"""Meaning of each position of one step of `features/face_emo_*`; `seen` is 1 where the sample shows the subject, and
where it is 0 the other values of the step mean nothing."""


_FACE_TABLES: Final = ("faces", f"face_features/{ENCODER}")
_FACE_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "faces": ("video_id", "sample", "face", "track", "subject_of", "blendshapes", "yaw", "pitch", "roll", "status"),
    f"face_features/{ENCODER}": ("sample", "face", "features", "status", "reason"),
}
_ENCODED_COLUMNS: Final = (
    *("sample", "face", "track", "verified", "is_subject"),
    *("x", "y", "w", "h", "landmarks", "crop", "status", "reason"),
)
_FEATURE_COLUMNS: Final = ("segment_id", "features", "status", "reason")
_SEGMENT_COLUMNS: Final = ("segment_id", "video_id", "segment", "first_sample", "samples", "status", "reason")


def _videos(inputs: Inputs, _: Profile, sources: tuple[str, ...]) -> pa.Table:
    """One unit per video with its samples, keyed by the content of some tables, of which `faces` names the samples."""
    videos = inputs.table("videos", ["video_id"])
    parts = contents(inputs, sources, texts(videos, "video_id"))
    plan = plan_of(videos, "video_id", [digest(*content) for content in parts])
    faces = values_by_video(inputs.table("faces", ["video_id", "sample"]), "sample")
    samples = {video: list(dict.fromkeys(values)) for video, values in faces.items()}  # a sample may have several faces
    return plan.append_column("samples", listed(plan, samples, pa.int32(), default=[0]))


def _sample_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Keys of the rows of a video that could not be computed: one a sample."""
    return [{"sample": sample} for sample in unit["samples"]]


ENCODE: Final = StageSpec(
    table=tables.face_features(ENCODER, ENCODER_SIZE),
    description="mini-XCEPTION on every face of a subject: 7 logits and the pooled last map, mean over several crops.",
    group="features",
    reads={
        "videos": ("video_id",),
        "faces": ("video_id", *_ENCODED_COLUMNS),
    },
    inputs=("videos", "faces"),
    plan=partial(_videos, sources=("faces",)),
    stage="cer_pipeline.branches.face.encode:Encode",
    code_version="1",
    config=(ENCODER, "faces"),  # [faces] holds the margin, by which points are mapped into the crop
    models=(ENCODER,),
    placeholder_keys=_sample_keys,
    kinds=("parquet", "pytorch"),
    chunk_units=8,
)

FACE_STATIC: Final = BranchSpec(
    name=STATIC,
    title="Static face: mini-XCEPTION and FACS prototypes",
    modality="face",
    table1=1,
    features=StageSpec(
        table=tables.features(STATIC, len(STATIC_FEATURES)),
        description="What two experts, a network and action-unit prototypes, see in the subject's face, per window.",
        group="features",
        reads={"segments": _SEGMENT_COLUMNS, **_FACE_COLUMNS},
        inputs=("segments", *_FACE_TABLES),
        # By video, as the resting level comes from the whole track.
        plan=partial(segment_units, sources=_FACE_TABLES, by="video_id"),
        stage="cer_pipeline.branches.face.static:StaticFeatures",
        code_version="1",
        config=(STATIC,),
        kinds=("parquet", "numpy"),
        chunk_units=256,
    ),
    probabilities=StageSpec(
        table=tables.probabilities(STATIC),
        description="Weighted mean of the two experts on the subject's face, per window.",
        group="probabilities",
        reads={"segments": _SEGMENT_COLUMNS, f"features/{STATIC}": _FEATURE_COLUMNS},
        inputs=("segments", f"features/{STATIC}"),
        plan=partial(segment_units, sources=(f"features/{STATIC}",), by="segment_id"),
        stage="cer_pipeline.branches.face.static:StaticProbabilities",
        code_version="1",
        config=(STATIC,),
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    ),
    extra=(ENCODE,),
    samples=StageSpec(
        table=tables.sample_probabilities(STATIC),
        description="The same prediction for every sample of the grid.",
        group="probabilities",
        reads={"videos": ("video_id",), **_FACE_COLUMNS},
        inputs=("videos", *_FACE_TABLES),
        plan=partial(_videos, sources=_FACE_TABLES),
        stage="cer_pipeline.branches.face.static:StaticSamples",
        code_version="1",
        config=(STATIC,),
        placeholder_keys=_sample_keys,
        kinds=("parquet", "numpy"),
        chunk_units=16,
    ),
)


_OPTIONS: Final = (
    "hidden", "middle", "layers", "heads", "states", "kernel", "dropout", "loss", "gamma", "smoothing",
    "optimiser", "rate", "decay", "schedule", "warmup", "batch", "epochs", "patience", "clip", "folds", "seed",
    "trials",
)  # fmt: skip
"""Options of a training: fields of `train.TemporalSettings`, and the trials of a search within each fold."""


def _temporal(name: str, title: str, table1: int, network: str) -> BranchSpec:
    """A branch whose trained head reads the sequence of a window's faces."""
    return BranchSpec(
        name=name,
        title=title,
        modality="face in time",
        table1=table1,
        features=StageSpec(
            table=tables.features(name, STEPS_PER_WINDOW * len(STEP_FEATURES)),
            description="The window's samples in order: blendshapes, expression logits, head pose, and whether seen.",
            group="features",
            reads={"segments": _SEGMENT_COLUMNS, **_FACE_COLUMNS},
            inputs=("segments", *_FACE_TABLES),
            plan=partial(segment_units, sources=_FACE_TABLES, by="video_id"),
            stage=f"cer_pipeline.branches.face.temporal:{network}Features",
            code_version="1",
            kinds=("parquet", "numpy"),
            chunk_units=256,
        ),
        probabilities=StageSpec(
            table=tables.probabilities(name),
            description=f"A {network} head over the sequence of the subject's face.",
            group="probabilities",
            reads={"segments": _SEGMENT_COLUMNS, f"features/{name}": _FEATURE_COLUMNS},
            inputs=("segments", f"features/{name}"),
            plan=partial(segment_units, sources=(f"features/{name}",), by="segment_id"),
            stage=f"cer_pipeline.branches.face.temporal:{network}Probabilities",
            code_version="1",
            models=(f"head_{name}",),
            kinds=("parquet", "pytorch"),
            chunk_units=256,
        ),
        extra=(ENCODE,),
        trainers=(
            Trainer(
                name,
                "cer_pipeline.branches.face.train:train",
                f"{network} over the face's features in time.",
                reads=("labels", f"features/{name}"),
                options=_OPTIONS,
            ),
        ),
    )


FACE_EMO_TRANSFORMER: Final = _temporal(TRANSFORMER, "Temporal face: Transformer", 2, "Transformer")
FACE_EMO_MAMBA: Final = _temporal(MAMBA, "Temporal face: Mamba", 3, "Mamba")
