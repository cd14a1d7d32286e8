"""The stages of the audio branches: sound -> states -> a head's vector -> probabilities.

Belongs here: reading and writing tables around the encoder (`whisper_encoder`) and the heads (`heads`). Does not belong
here: specs and plans (`specs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.audio.heads import AudioHead
from cer_pipeline.branches.audio.specs import (
    BILSTM,
    ENCODER,
    ENCODER_STATES,
    STATE_SIZE,
    STEPS_PER_WINDOW,
    UNCERTAINTY,
    VECTOR,
)
from cer_pipeline.branches.audio.whisper_encoder import SAMPLES_PER_STEP, WhisperStates
from cer_pipeline.branches.rows import Row, empty_row, feature_row, probability_rows, read_features
from cer_pipeline.perception.speech.vad import read_sound
from cer_pipeline.plans import SEGMENT_COLUMNS
from cer_pipeline.sound_file import SAMPLE_RATE_HZ
from cer_pipeline.stage import UNIT, StageContext, video_rows
from cer_pipeline.status import Status
from cer_pipeline.sums import plain_sum


def without_speech(
    intervals: Sequence[Row], window: tuple[float, float], least_s: float
) -> tuple[str, str | None] | None:
    """Return status and reason of a window with too little speech for a prediction; None where there is enough.

    Args:
        intervals: rows of `speech` of the video.
        window: start and end, s.
        least_s: least speech in the window, s.
    """
    start, end = window
    speech = [(row["start_s"], row["end_s"]) for row in intervals if row["status"] == Status.OK]
    spoken = plain_sum(max(0.0, min(end, b) - max(start, a)) for a, b in speech)
    if spoken >= least_s:
        return None
    if not intervals or intervals[0]["status"] in (Status.OK, Status.NO_SPEECH):
        return str(Status.NO_SPEECH), f"{spoken:.2f} s of speech in the window"
    return intervals[0]["status"], intervals[0]["reason"]


class States:
    """`audio_features/whisper_tiny_en`: one pass of the encoder for each window with speech."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._least_s = context.profile["audio_states"]["least_speech_s"]

    @cached_property
    def _encoder(self) -> WhisperStates:
        """Loaded at the first window with speech."""
        return WhisperStates(self._context.weights.path(ENCODER))

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of videos."""
        rows = [row for video in units.column(UNIT).to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=ENCODER_STATES.table.schema)

    def _video(self, video: str) -> list[dict[str, Any]]:
        stretches = self._read("speech", video, ["start_s", "end_s", "status", "reason"])
        spoken = any(row["status"] == Status.OK for row in stretches)
        sound = read_sound(self._read("audio", video, ["flac"])[0]["flac"]) if spoken else np.zeros(0, np.float32)
        rows = []
        for segment in self._read("segments", video, [*SEGMENT_COLUMNS, "start_s", "end_s"]):
            row: dict[str, Any] = {name: segment[name] for name in SEGMENT_COLUMNS}
            start, end = segment["start_s"], segment["end_s"]
            if absent := without_speech(stretches, (start, end), self._least_s):
                row["status"], row["reason"] = absent
            else:
                first = round(start * SAMPLE_RATE_HZ)
                samples = sound[first : min(round(end * SAMPLE_RATE_HZ), first + STEPS_PER_WINDOW * SAMPLES_PER_STEP)]
                row |= {"status": str(Status.OK), **self._states(samples)}
            rows.append(row)
        return rows

    def _states(self, sound: np.ndarray) -> dict[str, Any]:
        states = self._encoder(sound)
        self._context.counters[f"calls/{ENCODER}"] += 1
        full = np.zeros((STEPS_PER_WINDOW, STATE_SIZE), np.float32)
        full[: len(states)] = states
        return {"features": full.ravel(), "steps": len(states)}

    def _read(self, table: str, video: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        return list(video_rows(self._context.inputs, table, video, columns))


class _Features:
    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        self._head = AudioHead.load(context.weights.path(f"head_{self.branch}"))
        self._inputs = context.inputs
        self._schema = tables.features(self.branch, VECTOR).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments; each goes through the head on its own."""
        wanted = set(units.column(UNIT).to_pylist())
        rows = []
        for video in dict.fromkeys(units.column("video_id").to_pylist()):
            states = video_rows(self._inputs, ENCODER_STATES.name, video)
            rows += [self._row(row) for row in states if row["segment_id"] in wanted]
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["status"] != Status.OK:
            return empty_row(row)
        states = np.asarray(row["features"], np.float32).reshape(STEPS_PER_WINDOW, STATE_SIZE)[: row["steps"]]
        return feature_row(row, self._head.features(states))


class Head(Protocol):
    """What a stage of probabilities needs of a head."""

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features of a window -> probabilities [8] in the order of `labels.BASIC`, summing to 1."""
        ...


class HeadProbabilities:
    """Stage probabilities/BRANCH of an audio branch: its head on its features."""

    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        self._head = self.load(context)
        self._features = read_features(context, f"features/{self.branch}")
        self._table = tables.probabilities(self.branch)

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        return probability_rows(units, self._features, self._predict, self._table)

    def load(self, context: StageContext) -> Head:
        """The trained head of the branch."""
        return AudioHead.load(context.weights.path(f"head_{self.branch}"))

    def _predict(self, _: Row, features: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
        return f"head_{self.branch}", self._head.probabilities(features)


class UncertaintyFeatures(_Features):
    """Stage features/audio_uncertainty."""

    branch = UNCERTAINTY


class BilstmFeatures(_Features):
    """Stage features/audio_bilstm."""

    branch = BILSTM


class UncertaintyProbabilities(HeadProbabilities):
    """Stage probabilities/audio_uncertainty."""

    branch = UNCERTAINTY


class BilstmProbabilities(HeadProbabilities):
    """Stage probabilities/audio_bilstm."""

    branch = BILSTM
