"""States of the Whisper encoder for a stretch of sound of at most 4 s: sound -> steps of 0.2 s x 384.

Belongs here: level, log-mel, the encoder, and averaging over steps. Does not belong here: tables (`audio_stages`) or
what is concluded from the states (`heads.audio`).

Whisper's own input is 30 s, padded with silence. The encoder also takes less: its position codes start at 0 whatever
follows, so 4 s alone give 200 states, in 31 ms instead of 357 ms. These are not the states that recognition of the
padded 30 s would see (self-attention never meets the padding), which is why the two do not share a pass.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2: 80 log-mel bands
of 25 ms every 10 ms, two convolutions of which the second has stride 2, so one state each 20 ms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE: Final = 16_000
HOP: Final = 160  # samples between log-mel frames: 10 ms
STATES: Final = 10  # encoder states that make a step
STEP: Final = 2 * HOP * STATES  # samples of a step: 0.2 s, as on the grid of frames

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
        folder: a faster-whisper model: config.json and model.bin.
    """

    def __init__(self, folder: Path) -> None:
        import ctranslate2
        from faster_whisper.feature_extractor import FeatureExtractor

        # One thread and float32: sums in another order would make a row depend on the machine's load.
        self._model = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="float32", intra_threads=1, inter_threads=1
        )
        self._mel = FeatureExtractor()

    def __call__(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mono sound at 16 kHz -> float32 [steps, 384], one step for each started 0.2 s, at least one.

        The level is made common first; behind the end of the sound the last step is filled with silence.
        """
        import ctranslate2

        steps = max(1, -(-len(sound) // STEP))
        padded = np.zeros(steps * STEP, np.float32)
        padded[: len(sound)] = levelled(sound)
        mel = self._mel(padded, padding=HOP)[:, : len(padded) // HOP]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None], dtype=np.float32))
        states = np.array(self._model.encode(view, to_cpu=True))[0]
        return states.reshape(steps, STATES, -1).mean(1, dtype=np.float64).astype(np.float32)
