"""The audio branches of the paper: WavLM with the uncertainty head (Table 1, ID 9) and the residual BiLSTM (ID 10).

Belongs here: their specs and plan; light at import. Does not belong here: any computation (`wavlm`, `wavlm_stages`) or
network (`wavlm_heads`).

Each branch passes the sound of a window through an encoder of its own: training changes the upper layers of the encoder
(6 to 11 in the published code), and the file of the head holds the changed tensors. There is no table of the encoder's
states, which the branches could share only if neither changed the encoder: the 199 states of a window take 600 kB.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.arrow import texts
from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches.rows import segment_units
from cer_pipeline.plans import SEGMENT_COLUMNS, contents, plan_of
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

ENCODER: Final = "wavlm_base_plus_sd"
"""Zoo id of the encoder."""
SECTION: Final = "audio_wavlm"
"""Profile section of both branches."""

VECTOR: Final = 256  # values that the last layer of either head reads (published)

UNCERTAINTY: Final = "audio_wavlm_uncertainty"
BILSTM: Final = "audio_wavlm_bilstm"

_MODULE: Final = "cer_pipeline.branches.audio.wavlm_stages"
_TIMES: Final = ("start_s", "end_s")


def _plan(inputs: Inputs, _: Profile) -> pa.Table:
    """One unit per segment, keyed by its window and by the sound and the speech of its video."""
    segments = inputs.table("segments", [*SEGMENT_COLUMNS, *_TIMES])
    windows = contents(inputs, ("segments",), texts(segments, "segment_id"), "segment_id")
    sounds = contents(inputs, ("audio", "speech"), texts(segments, "video_id"))
    return plan_of(
        segments, "segment_id", [digest(*window, *sound) for window, sound in zip(windows, sounds, strict=True)]
    )


def _branch(name: str, title: str, table1: int, prefix: str) -> BranchSpec:
    head = f"head_{name}"
    features = StageSpec(
        table=tables.features(name, VECTOR),
        description="WavLM on the sound of every window with speech, and the head before its last layer.",
        group="features",
        reads={
            "segments": (*SEGMENT_COLUMNS, *_TIMES),
            "audio": ("flac",),
            "speech": ("start_s", "end_s", "status", "reason"),
        },
        inputs=("segments", "audio", "speech"),
        plan=_plan,
        stage=f"{_MODULE}:{prefix}Features",
        code_version="1",
        config=("audio_states", SECTION),
        models=(ENCODER, head),
        kinds=("parquet", "pytorch"),
        chunk_units=64,
    )
    probabilities = StageSpec(
        table=tables.probabilities(name),
        description="Basic emotions of every window with speech, from the voice.",
        group="probabilities",
        reads={
            "segments": (*SEGMENT_COLUMNS, "first_sample", "samples", "status", "reason"),
            features.name: ("segment_id", "features", "status", "reason"),
        },
        inputs=("segments", features.name),
        plan=partial(segment_units, sources=(features.name,), by="segment_id"),
        stage=f"{_MODULE}:{prefix}Probabilities",
        code_version="1",
        config=(SECTION,),
        models=(head,),
        kinds=("parquet", "numpy"),
        chunk_units=4096,
    )
    return BranchSpec(name, title, "audio", table1, features, probabilities)


AUDIO_WAVLM_UNCERTAINTY: Final = _branch(UNCERTAINTY, "Voice: uncertainty head on WavLM", 9, "Uncertainty")
AUDIO_WAVLM_BILSTM: Final = _branch(BILSTM, "Voice: residual BiLSTM on WavLM", 10, "Bilstm")
