"""The audio branches: uncertainty-aware (Table 1, ID 9) and residual BiLSTM (ID 10).

Belongs here: their specs and plans; light at import. Does not belong here: any computation (`whisper_encoder`,
`stages`) or network (`branches.audio.heads`).

Both read the same states, which one stage makes: a window's sound alone through the Whisper encoder, where the paper
has WavLM. As in the paper they answer only where speech is found.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, plan_of, segment_keys, with_segments
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.training.trainer import Trainer

ENCODER: Final = "whisper_tiny_en"
"""Zoo id of the encoder and name of its table."""

STEPS_PER_WINDOW: Final = 20  # of 0.2 s: a whole window
STATE_SIZE: Final = 384  # values of a step of the encoder's states
VECTOR: Final = 192  # values before a head's last layer: 3 members of 64

UNCERTAINTY: Final = "audio_uncertainty"
BILSTM: Final = "audio_bilstm"

_MODULE: Final = "cer_pipeline.branches.audio.stages"


def _plan_states(inputs: Inputs, _: Profile) -> pa.Table:
    """One unit per video, so that its sound is decoded once."""
    segments = inputs.table("segments", SEGMENT_COLUMNS)
    videos = list(dict.fromkeys(texts(segments, "video_id")))
    parts = contents(inputs, ("segments", "audio", "speech"), videos)
    keys = [digest(video, *content) for video, content in zip(videos, parts, strict=True)]
    plan = plan_of(pa.table({"video_id": pa.array(videos, pa.string())}), "video_id", keys)
    return with_segments(plan, segments)


def _plan_segments(source: str, by: str, inputs: Inputs, _: Profile) -> pa.Table:
    """One unit per segment, keyed by its rows of a table (by segment_id) or by those of its video (by video_id)."""
    segments = inputs.table(source, [*SEGMENT_COLUMNS, "status", "reason"])
    parts = contents(inputs, [source], texts(segments, by), by)
    ids = texts(segments, "segment_id")
    return plan_of(segments, "segment_id", [digest(*content, s) for content, s in zip(parts, ids, strict=True)])


ENCODER_STATES: Final = StageSpec(
    table=tables.audio_features(ENCODER, STEPS_PER_WINDOW * STATE_SIZE),
    description="The Whisper encoder on the sound of every window with speech: 20 steps of 0.2 s, 384 values each.",
    group="features",
    reads={
        "segments": (*SEGMENT_COLUMNS, "start_s", "end_s"),
        "audio": ("flac",),
        "speech": ("start_s", "end_s", "status", "reason"),
    },
    inputs=("segments", "audio", "speech"),
    plan=_plan_states,
    stage=f"{_MODULE}:States",
    code_version="1",
    config=("audio_states",),
    models=(ENCODER,),
    placeholder_keys=segment_keys,
    kinds=("parquet",),
    chunk_units=4,
)


_OPTIONS: Final = ("width", "dropout", "rate", "decay", "batch", "clip", "variants", "members")
"""Options of a training; inner folds choose the other fields of `train.AudioSettings`."""


def _branch(name: str, title: str, table1: int, prefix: str, about: str) -> BranchSpec:
    head = f"head_{name}"
    features = StageSpec(
        table=tables.features(name, VECTOR),
        description="What the head makes of a window's states before its last layer.",
        group="features",
        reads={ENCODER_STATES.name: (*SEGMENT_COLUMNS, "features", "steps", "status", "reason")},
        inputs=(ENCODER_STATES.name,),
        plan=partial(_plan_segments, ENCODER_STATES.name, "video_id"),
        stage=f"{_MODULE}:{prefix}Features",
        code_version="1",
        models=(head,),
        kinds=("parquet", "pytorch"),
        chunk_units=1024,
    )
    probabilities = StageSpec(
        table=tables.probabilities(name),
        description="Basic emotions of every window with speech, from the voice.",
        group="probabilities",
        reads={features.name: (*SEGMENT_COLUMNS, "features", "status", "reason")},
        inputs=(features.name,),
        plan=partial(_plan_segments, features.name, "segment_id"),
        stage=f"{_MODULE}:{prefix}Probabilities",
        code_version="1",
        models=(head,),
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    trainer = Trainer(
        name,
        "cer_pipeline.branches.audio.train:train",
        about,
        formats=("ravdess",),
        models=("whisper_tiny_en",),
        options=_OPTIONS,
    )
    return BranchSpec(
        name, title, "audio", table1, features, probabilities, extra=(ENCODER_STATES,), trainers=(trainer,)
    )


AUDIO_UNCERTAINTY: Final = _branch(
    UNCERTAINTY,
    "Voice: uncertainty head on Whisper states",
    9,
    "Uncertainty",
    "Attention within thirds, with class-wise variances, over states of the Whisper encoder.",
)
AUDIO_BILSTM: Final = _branch(
    BILSTM,
    "Voice: residual BiLSTM on Whisper states",
    10,
    "Bilstm",
    "Residual BiLSTM over states of the Whisper encoder.",
)
