"""States of the Whisper encoder for a stretch of sound of at most 4 s: sound -> steps of 0.2 s x 384.

Belongs here: level, log-mel, the encoder's lower layers, and averaging over steps. Does not belong here: tables
(`stages`), the file format (`ctranslate2_file`) or what is concluded from the states (`branches.audio.heads`).

Whisper's own input is 30 s, padded with silence. The encoder also takes less: its position codes start at 0 whatever
follows, so 4 s alone give 200 states, at a twelfth of the cost. These are not the states that recognition of the padded
30 s would see (self-attention never meets the padding), which is why the two do not share a pass.

The states are those after the second of four blocks. Above it the encoder represents the words and less of the
prosody: a logistic regression on the mean and deviation of the states, tested on held-out actors, classifies seven
emotions of RAVDESS with an average recall of 73 to 77 % there and 64 to 70 % at the top (inner folds of five; the
second block was best in all of them). CTranslate2 gives the top alone, so the blocks are computed here, from its file.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2: 80 log-mel bands
of 25 ms every 10 ms; two convolutions of width 3 with GELU, the second of stride 2, so one state each 20 ms; sinusoidal
position codes; pre-norm Transformer blocks of 6 heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.branches.audio.ctranslate2_file import read_arrays
from cer_pipeline.torch_threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

HOP: Final = 160  # samples between log-mel frames: 10 ms
STATES_PER_STEP: Final = 10  # encoder states that make a step
LAYERS: Final = 2  # blocks whose output the heads read
SAMPLES_PER_STEP: Final = 2 * HOP * STATES_PER_STEP  # samples of a step: 0.2 s, as on the grid of frames

_FRAME: Final = 400  # samples of a level frame: 25 ms
_TARGET: Final = 0.05  # RMS of the louder parts after levelling: -26 dB, where speech recordings are commonly brought
_QUIET: Final = 0.05  # frames below this share of the loudest one do not count for the level: pauses
_GAIN: Final = 100.0  # at most +40 dB, so that the hiss of an almost silent window stays hiss


def levelled(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sound at a common level: recordings differ by microphone and distance more than by feeling.

    Args:
        sound: mono samples, -1..1, of any number.
    """
    whole = len(sound) < _FRAME
    frames = sound[None] if whole else np.lib.stride_tricks.sliding_window_view(sound, _FRAME)[::HOP]
    if not len(sound):
        return sound
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    if power.max() == 0:  # digital silence has no level
        return sound
    rms = np.sqrt(power[power >= _QUIET**2 * power.max()].mean())
    return np.clip(sound * np.float32(min(_TARGET / rms, _GAIN)), -1, 1).astype(np.float32)


class WhisperStates:
    """The encoder, loaded once.

    Args:
        folder: a faster-whisper model: model.bin.
        layers: blocks that are computed; with all of them the last normalisation is done too.
    """

    def __init__(self, folder: Path, layers: int = LAYERS) -> None:
        import torch
        from faster_whisper.feature_extractor import FeatureExtractor

        arrays = read_arrays(folder / "model.bin", "encoder/")
        self._heads = int(arrays["num_heads"])
        self._last = f"layer_{layers}/ffn/linear_0/weight" not in arrays
        self._layers = layers
        self._weights = {name: torch.from_numpy(v.astype(np.float32)) for name, v in arrays.items() if v.ndim}
        self._mel = FeatureExtractor()

    def __call__(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mono sound at 16 kHz -> float32 [steps, 384], one step for each started 0.2 s, at least one.

        The level is made common first; behind the end of the sound the last step is filled with silence.
        """
        import torch

        steps = max(1, -(-len(sound) // SAMPLES_PER_STEP))
        padded = np.zeros(steps * SAMPLES_PER_STEP, np.float32)
        padded[: len(sound)] = levelled(sound)
        mel = self._mel(padded, padding=HOP)[:, : len(padded) // HOP]
        with one_thread(), torch.inference_mode():
            states = self._encode(torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32)))
        return states.view(steps, STATES_PER_STEP, -1).mean(1).numpy()

    def _encode(self, mel: Tensor) -> Tensor:
        """Log-mel [80, 2 n] -> states [n, 384]."""
        from torch.nn import functional

        w = self._weights
        x = functional.gelu(functional.conv1d(mel[None], w["conv1/weight"], w["conv1/bias"], padding=1))
        x = functional.gelu(functional.conv1d(x, w["conv2/weight"], w["conv2/bias"], stride=2, padding=1))
        x = x[0].T + w["position_encodings/encodings"][: x.shape[-1]]
        for i in range(self._layers):
            x = x + self._attention(self._norm(x, f"layer_{i}/self_attention/layer_norm"), f"layer_{i}/self_attention")
            hidden = functional.gelu(
                self._linear(self._norm(x, f"layer_{i}/ffn/layer_norm"), f"layer_{i}/ffn/linear_0")
            )
            x = x + self._linear(hidden, f"layer_{i}/ffn/linear_1")
        return self._norm(x, "layer_norm") if self._last else x

    def _attention(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        parts = self._linear(x, f"{name}/linear_0").chunk(3, -1)
        query, key, value = (p.view(len(x), self._heads, -1).transpose(0, 1) for p in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self._linear(mixed.transpose(0, 1).reshape(len(x), -1), f"{name}/linear_1")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self._weights[f"{name}/weight"].T + self._weights[f"{name}/bias"]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        return functional.layer_norm(x, x.shape[-1:], self._weights[f"{name}/gamma"], self._weights[f"{name}/beta"])
