"""The stages of the WavLM branches: sound -> the vector before a head's last layer -> probabilities.

Belongs here: reading and writing tables around the encoder (`wavlm`) and the heads (`wavlm_heads`). Does not belong
here: specs and plans (`wavlm_specs`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.audio.sound_reader import reader_of
from cer_pipeline.branches.audio.stages import HeadProbabilities, without_speech
from cer_pipeline.branches.audio.wavlm import framed, load_encoder
from cer_pipeline.branches.audio.wavlm_heads import WavlmHead
from cer_pipeline.branches.audio.wavlm_specs import BILSTM, ENCODER, SECTION, UNCERTAINTY, VECTOR
from cer_pipeline.branches.rows import Row, by_video, empty_row, feature_row
from cer_pipeline.errors import CerError
from cer_pipeline.sound_file import SAMPLE_RATE_HZ
from cer_pipeline.stage import StageContext, video_rows
from cer_pipeline.torch_batches import choose_device, run_in_batches
from cer_pipeline.torch_threads import one_thread

if TYPE_CHECKING:
    from transformers import WavLMModel


class _Features:
    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._framing = context.profile[SECTION]["framing"]
        self._least_s = context.profile["audio_states"]["least_speech_s"]
        self._read_sound = reader_of(context.profile[SECTION]["reader"])
        self._device = choose_device(context.profile["execution"]["device"])
        self._head = WavlmHead.load(context.weights.path(f"head_{self.branch}"), self.branch, self._framing)
        self._head.network.to(self._device)
        self._schema = tables.features(self.branch, VECTOR).schema

    @cached_property
    def _encoder(self) -> WavLMModel:
        """Loaded with the first window that has speech."""
        encoder = load_encoder(self._context.weights.path(ENCODER), self._head.encoder)
        if encoder.config.hidden_size != self._head.size:
            what = (
                f"a head trained for other features: {self._head.size} values a state, not {encoder.config.hidden_size}"
            )
            raise CerError(what, f"head_{self.branch}", f"run `cer train {self.branch}`")
        return encoder.to(self._device)  # type: ignore[arg-type]

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows for a batch of segments."""
        rows: list[Row] = []
        sounds: dict[int, NDArray[np.float32]] = {}
        for video, segments in by_video(units).items():
            intervals = list(
                video_rows(self._context.inputs, "speech", video, ["start_s", "end_s", "status", "reason"])
            )
            sound: NDArray[np.float32] | None = None
            for segment in segments:
                window = (segment["start_s"], segment["end_s"])
                if absent := without_speech(intervals, window, self._least_s):
                    rows.append(empty_row(segment, *absent))
                    continue
                if sound is None:
                    sound = self._sound(video)
                first, end = (round(time_s * SAMPLE_RATE_HZ) for time_s in window)
                sounds[len(rows)] = framed(sound[first:end], self._framing)
                rows.append(segment)
        for row, vector in self._vectors(sounds).items():
            rows[row] = feature_row(rows[row], vector)
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _sound(self, video: str) -> NDArray[np.float32]:
        audio = list(video_rows(self._context.inputs, "audio", video, ["flac"]))
        return self._read_sound(audio[0]["flac"]) if audio and audio[0]["flac"] else np.zeros(0, np.float32)

    def _vectors(self, sounds: dict[int, NDArray[np.float32]]) -> dict[int, NDArray[np.float32]]:
        """The vectors of the sounds; those of one length are computed together, since nothing is padded."""
        lengths: dict[int, list[int]] = {}
        for row, sound in sounds.items():
            lengths.setdefault(len(sound), []).append(row)
        found: dict[int, NDArray[np.float32]] = {}
        batch = self._context.profile["execution"]["batch"]
        for same in lengths.values():
            items = [torch.from_numpy(sounds[row]) for row in same]
            with one_thread():
                vectors = run_in_batches(self._vector, items, batch, self._device).numpy()
            found |= dict(zip(same, vectors, strict=True))
            self._context.counters[f"calls/{ENCODER}"] += len(same)
        return found

    def _vector(self, sounds: torch.Tensor) -> torch.Tensor:
        states: Any = self._encoder(sounds).last_hidden_state
        steps = torch.full((len(states),), states.shape[1], device=self._device)
        return self._head.network.vector(states, steps)


class _Probabilities(HeadProbabilities):
    def load(self, context: StageContext) -> WavlmHead:
        """The trained head of the branch, which must fit the framing of the profile."""
        framing = context.profile[SECTION]["framing"]
        return WavlmHead.load(context.weights.path(f"head_{self.branch}"), self.branch, framing)


class UncertaintyFeatures(_Features):
    """Stage features/audio_wavlm_uncertainty."""

    branch = UNCERTAINTY


class BilstmFeatures(_Features):
    """Stage features/audio_wavlm_bilstm."""

    branch = BILSTM


class UncertaintyProbabilities(_Probabilities):
    """Stage probabilities/audio_wavlm_uncertainty."""

    branch = UNCERTAINTY


class BilstmProbabilities(_Probabilities):
    """Stage probabilities/audio_wavlm_bilstm."""

    branch = BILSTM
