"""The audio branches: uncertainty-aware (Table 1, ID 9) and residual BiLSTM (ID 10).

Belongs here: their specs and plans; light at import. Does not belong here: any computation (`whisper_encoder`,
`stages`) or network (`branches.audio.heads`).

Both read the same states, which one stage makes: a window's sound alone through the Whisper encoder, where the paper
has WavLM. As in the paper they answer only where speech is found.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

ENCODER: Final = "whisper_tiny_en"
"""Zoo id of the encoder and name of its table."""

STEPS: Final = 20  # of 0.2 s: a whole window
STATE: Final = 384  # values of a state
VECTOR: Final = 192  # values before a head's last layer: 3 members of 64

UNCERTAINTY: Final = "audio_uncertainty"
BILSTM: Final = "audio_bilstm"

_MODULE: Final = "cer_pipeline.branches.audio.stages"
_KEYS: Final = ("segment_id", "video_id", "segment")
_STATES: Final = f"audio_features/{ENCODER}"


def _plan_states(inputs: Inputs, _: Profile) -> pa.Table:
    """One unit a video: its sound is decoded once."""
    segments = inputs.table("segments", list(_KEYS))
    ids: dict[str, list[str]] = {}
    numbers: dict[str, list[int]] = {}
    for row in segments.to_pylist():
        ids.setdefault(row["video_id"], []).append(row["segment_id"])
        numbers.setdefault(row["video_id"], []).append(row["segment"])
    seen = [inputs.digests(name) for name in ("segments", "audio", "speech")]
    videos = list(ids)
    return pa.table(
        {
            UNIT: pa.array(videos, pa.string()),
            INPUTS: pa.array([digest(v, *(d.get(v, "") for d in seen)) for v in videos], pa.string()),
            "video_id": pa.array(videos, pa.string()),
            "segments": pa.array([numbers[v] for v in videos], pa.list_(pa.int32())),
            "segment_ids": pa.array([ids[v] for v in videos], pa.list_(pa.string())),
        }
    )


def _state_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    """Every segment has a row, also where nobody could listen."""
    return [
        {"segment": segment, "segment_id": segment_id}
        for segment, segment_id in zip(unit["segments"], unit["segment_ids"], strict=True)
    ]


def _plan_segments(source: str, by: str, inputs: Inputs, _: Profile) -> pa.Table:
    """One unit a segment, keyed by its rows of a table (by segment_id) or by its video's (by video_id)."""
    segments = inputs.table(source, [*_KEYS, "status", "reason"])
    seen = inputs.digests(source, unit=by)
    parts = zip(segments.column(by).to_pylist(), segments.column("segment_id").to_pylist(), strict=True)
    digests = pa.array([digest(seen.get(unit, ""), segment) for unit, segment in parts], pa.string())
    return segments.append_column(UNIT, segments.column("segment_id")).append_column(INPUTS, digests)


STATES: Final = StageSpec(
    table=tables.audio_features(ENCODER, STEPS * STATE),
    description="The Whisper encoder on the sound of every window with speech: 20 steps of 0.2 s, 384 values each.",
    group="features",
    reads={
        "segments": (*_KEYS, "start_s", "end_s"),
        "audio": ("flac",),
        "speech": ("start_s", "end_s", "status", "reason"),
    },
    inputs=("segments", "audio", "speech"),
    plan=_plan_states,
    stage=f"{_MODULE}:States",
    code_version="1",
    config=("audio_states",),
    models=(ENCODER,),
    placeholder_keys=_state_keys,
    kinds=("parquet",),
    chunk_units=4,
)


def _branch(name: str, title: str, table1: int, prefix: str) -> BranchSpec:
    head = f"head_{name}"
    features = StageSpec(
        table=tables.features(name, VECTOR),
        description="What the head makes of a window's states before its last layer.",
        group="features",
        reads={STATES.name: (*_KEYS, "features", "steps", "status", "reason")},
        inputs=(STATES.name,),
        plan=partial(_plan_segments, STATES.name, "video_id"),
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
        reads={features.name: (*_KEYS, "features", "status", "reason")},
        inputs=(features.name,),
        plan=partial(_plan_segments, features.name, "segment_id"),
        stage=f"{_MODULE}:{prefix}Probabilities",
        code_version="1",
        models=(head,),
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    return BranchSpec(name, title, "audio", table1, features, probabilities, extra=(STATES,))


AUDIO_UNCERTAINTY: Final = _branch(UNCERTAINTY, "Voice: uncertainty head on Whisper states", 9, "Uncertainty")
AUDIO_BILSTM: Final = _branch(BILSTM, "Voice: residual BiLSTM on Whisper states", 10, "Bilstm")
