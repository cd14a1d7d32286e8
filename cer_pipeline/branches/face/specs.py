"""The face branches: static (Table 1, ID 1) and temporal (IDs 2 to 5), of the embedded profile and of the paper.

Belongs here: their specs and plans; light at import. Does not belong here: any computation (`encode`, `static`,
`frame_encoder`, `expression`, `temporal`) or rule (`facs`).
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

EMOAFFECTNET: Final = "emoaffectnet"
"""Zoo id of the paper's expression network, name of its table and of its profile section."""
CLIP: Final = "clip"
"""Table of the image encoder of CLIP."""
CLIP_WEIGHTS: Final = "clip_vit_b32"
FACE_CLIP: Final = "face_clip"
"""Profile section of the image encoder on faces."""
EMBEDDING: Final = 512  # features of EmoAffectNet before its last layer, and of CLIP ViT-B/32

EXPRESSION: Final = "face_emoaffectnet"
EXPRESSION_TRANSFORMER: Final = "face_emoaffectnet_transformer"
EXPRESSION_MAMBA: Final = "face_emoaffectnet_mamba"
CLIP_TRANSFORMER: Final = "face_clip_transformer"
CLIP_MAMBA: Final = "face_clip_mamba"

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


STEP_SIZES: Final[Mapping[str, int]] = {
    TRANSFORMER: len(STEP_FEATURES) - 1,
    MAMBA: len(STEP_FEATURES) - 1,
    EXPRESSION_TRANSFORMER: EMBEDDING,
    EXPRESSION_MAMBA: EMBEDDING,
    CLIP_TRANSFORMER: EMBEDDING,
    CLIP_MAMBA: EMBEDDING,
}
"""Temporal branch -> values of one step of its features, without the flag `seen`."""


def _face_tables(encoder: str) -> tuple[str, str]:
    return "faces", f"face_features/{encoder}"


def _face_columns(encoder: str) -> dict[str, Sequence[str]]:
    return {
        "faces": ("video_id", "sample", "face", "track", "subject_of", "blendshapes", "yaw", "pitch", "roll", "status"),
        f"face_features/{encoder}": ("sample", "face", "features", "status", "reason"),
    }


_FACE_TABLES: Final = _face_tables(ENCODER)
_FACE_COLUMNS: Final = _face_columns(ENCODER)
ENCODED_BOXES: Final = (
    *("sample", "face", "track", "verified", "is_subject"),
    *("x", "y", "w", "h", "status", "reason"),
)
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


def _frame_encoder(name: str, size: int, description: str, stage: str, section: str, model: str) -> StageSpec:
    """An image encoder on every face of a subject, cut out of the stored frames."""
    return StageSpec(
        table=tables.face_features(name, size),
        description=description,
        group="features",
        reads={"videos": ("video_id",), "frames": ("sample", "jpeg"), "faces": ("video_id", *ENCODED_BOXES)},
        inputs=("videos", "frames", "faces"),
        plan=partial(_videos, sources=("frames", "faces")),
        stage=f"cer_pipeline.branches.face.frame_encoder:{stage}",
        code_version="1",
        config=(section,),
        models=(model,),
        placeholder_keys=_sample_keys,
        kinds=("parquet", "pytorch"),
        chunk_units=8,
    )


ENCODE_EMOAFFECTNET: Final = _frame_encoder(
    EMOAFFECTNET,
    EMBEDDING + LOGITS,
    "EmoAffectNet on every face of a subject: 512 features before their ReLU, then 7 logits.",
    "EmoAffectNetFaces",
    EMOAFFECTNET,
    EMOAFFECTNET,
)
ENCODE_CLIP: Final = _frame_encoder(
    CLIP,
    EMBEDDING,
    "The image encoder of CLIP ViT-B/32 on every face of a subject: 512 projected features, not normalised.",
    "ClipFaces",
    FACE_CLIP,
    CLIP_WEIGHTS,
)

FACE_EMOAFFECTNET: Final = BranchSpec(
    name=EXPRESSION,
    title="Static face: EmoAffectNet",
    modality="face",
    table1=1,
    features=StageSpec(
        table=tables.features(EXPRESSION, LOGITS + EMBEDDING),
        description="Means over the subject's samples: 7 probabilities in EmoAffectNet's order, then 512 features.",
        group="features",
        reads={"segments": _SEGMENT_COLUMNS, **_face_columns(EMOAFFECTNET)},
        inputs=("segments", *_face_tables(EMOAFFECTNET)),
        plan=partial(segment_units, sources=_face_tables(EMOAFFECTNET), by="video_id"),
        stage="cer_pipeline.branches.face.expression:ExpressionFeatures",
        code_version="1",
        kinds=("parquet", "numpy"),
        chunk_units=256,
    ),
    probabilities=StageSpec(
        table=tables.probabilities(EXPRESSION),
        description="Mean of EmoAffectNet's probabilities over the samples of the subject; it knows no Other.",
        group="probabilities",
        reads={"segments": _SEGMENT_COLUMNS, f"features/{EXPRESSION}": _FEATURE_COLUMNS},
        inputs=("segments", f"features/{EXPRESSION}"),
        plan=partial(segment_units, sources=(f"features/{EXPRESSION}",), by="segment_id"),
        stage="cer_pipeline.branches.face.expression:ExpressionProbabilities",
        code_version="1",
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    ),
    extra=(ENCODE_EMOAFFECTNET,),
    samples=StageSpec(
        table=tables.sample_probabilities(EXPRESSION),
        description="EmoAffectNet's probabilities on every sample of the grid.",
        group="probabilities",
        reads={"videos": ("video_id",), **_face_columns(EMOAFFECTNET)},
        inputs=("videos", *_face_tables(EMOAFFECTNET)),
        plan=partial(_videos, sources=_face_tables(EMOAFFECTNET)),
        stage="cer_pipeline.branches.face.expression:ExpressionSamples",
        code_version="1",
        placeholder_keys=_sample_keys,
        kinds=("parquet", "numpy"),
        chunk_units=16,
    ),
)


def _temporal(
    name: str,
    title: str,
    table1: int,
    network: str,
    encoder: StageSpec = ENCODE,
    step: str = "blendshapes, expression logits, head pose",
    stage: str = "",
) -> BranchSpec:
    """A branch whose trained head reads the sequence of a window's faces.

    Args:
        name: of the branch.
        title: of the branch.
        table1: row of Table 1.
        network: Transformer or Mamba.
        encoder: stage whose table `face_features/...` it reads.
        step: what a step of the sequence holds.
        stage: prefix of the names of its classes; by default the network.
    """
    sources = ("faces", encoder.name)
    columns = _face_columns(encoder.name.removeprefix("face_features/"))
    stage = stage or network
    return BranchSpec(
        name=name,
        title=title,
        modality="face in time",
        table1=table1,
        features=StageSpec(
            table=tables.features(name, STEPS_PER_WINDOW * (STEP_SIZES[name] + 1)),
            description=f"The window's samples in order: {step}, and whether seen.",
            group="features",
            reads={"segments": _SEGMENT_COLUMNS, **columns},
            inputs=("segments", *sources),
            plan=partial(segment_units, sources=sources, by="video_id"),
            stage=f"cer_pipeline.branches.face.temporal:{stage}Features",
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
            stage=f"cer_pipeline.branches.face.temporal:{stage}Probabilities",
            code_version="1",
            models=(f"head_{name}",),
            kinds=("parquet", "pytorch"),
            chunk_units=256,
        ),
        extra=(encoder,),
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
FACE_EMOAFFECTNET_TRANSFORMER: Final = _temporal(
    EXPRESSION_TRANSFORMER,
    "Temporal face: EmoAffectNet and Transformer",
    2,
    "Transformer",
    ENCODE_EMOAFFECTNET,
    "512 features of EmoAffectNet",
    "ExpressionTransformer",
)
FACE_EMOAFFECTNET_MAMBA: Final = _temporal(
    EXPRESSION_MAMBA,
    "Temporal face: EmoAffectNet and Mamba",
    3,
    "Mamba",
    ENCODE_EMOAFFECTNET,
    "512 features of EmoAffectNet",
    "ExpressionMamba",
)
FACE_CLIP_TRANSFORMER: Final = _temporal(
    CLIP_TRANSFORMER,
    "Temporal face: CLIP and Transformer",
    4,
    "Transformer",
    ENCODE_CLIP,
    "512 features of CLIP",
    "ClipTransformer",
)
FACE_CLIP_MAMBA: Final = _temporal(
    CLIP_MAMBA,
    "Temporal face: CLIP and Mamba",
    5,
    "Mamba",
    ENCODE_CLIP,
    "512 features of CLIP",
    "ClipMamba",
)
