"""Variants of a recording for training: other voices, rooms and windows.

Belongs here: operations on samples, each drawn from a generator that is given. Does not belong here: what a variant is
used for (`branches.audio.train`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.sound_file import SAMPLE_RATE_HZ

WINDOW: Final = 4 * SAMPLE_RATE_HZ  # samples of a whole window

Sound = NDArray[np.float32]

_SPEED: Final = 0.12  # pitch and tempo change together, by up to this share: about two semitones
_TILT_DB: Final = 6.0  # largest rise or fall of the spectrum from 0 to 8 kHz: microphones
_SNR_DB: Final = (12.0, 35.0)
_ECHO_S: Final = (0.1, 0.4)  # reverberation time
_PAUSE: Final = 0.05  # level below which, relative to the loudest 25 ms, an end of a clip counts as silence
_MARGIN: Final = 1600  # 0.1 s of silence that remains at each end


def trimmed(sound: Sound) -> Sound:
    """The sound without the silence at its ends but 0.1 s."""
    start, end = _active(sound)
    return sound[max(0, start - _MARGIN) : end + _MARGIN]


def variant(sound: Sound, rng: np.random.Generator) -> Sound:
    """One random variant of a recording, at most 4 s: speed, spectral tilt, echo, noise, and silence at the ends.

    Args:
        sound: mono at 16 kHz.
        rng: generator of all random numbers.
    """
    start, end = _active(sound)
    first = round(start * rng.uniform())
    last = len(sound) - round((len(sound) - end) * rng.uniform())
    out = _resampled(sound[first:last], rng.uniform(1 - _SPEED, 1 + _SPEED))
    out = _tilted(out, rng.uniform(-_TILT_DB, _TILT_DB))
    if rng.uniform() < 0.3:
        out = _echoed(out, rng.uniform(*_ECHO_S), rng)
    if rng.uniform() < 0.6:
        out = _noisy(out, rng.uniform(*_SNR_DB), rng)
    return out[:WINDOW].astype(np.float32)


def _active(sound: Sound) -> tuple[int, int]:
    """First and last sample of what is louder than a pause."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (0, 400)), 400)[::160]
    level = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    loud = np.flatnonzero(level > _PAUSE * level.max())
    return (int(loud[0]) * 160, min(len(sound), int(loud[-1]) * 160 + 400)) if len(loud) else (0, len(sound))


def _resampled(sound: Sound, factor: float) -> Sound:
    """Played `factor` times as fast, pitch included, by linear interpolation."""
    at = np.arange(0, len(sound) - 1, factor)
    return np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


def _tilted(sound: Sound, db: float) -> Sound:
    """Spectrum raised (or lowered) linearly by `db` from 0 Hz to the Nyquist frequency, around its middle."""
    spectrum = np.fft.rfft(sound)
    gain = 10 ** (np.linspace(-db / 2, db / 2, len(spectrum)) / 20)
    return np.fft.irfft(spectrum * gain, len(sound)).astype(np.float32)


def _echoed(sound: Sound, seconds: float, rng: np.random.Generator) -> Sound:
    """With the tail of a room whose sound falls by 60 dB in `seconds`: exponentially decaying noise."""
    n = round(seconds * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail *= 0.5 / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = len(sound) + n - 1
    mixed = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)
    return mixed[: len(sound)].astype(np.float32)


def _noisy(sound: Sound, snr_db: float, rng: np.random.Generator) -> Sound:
    """With noise whose power falls by 3 dB an octave, at a ratio to the whole sound's power."""
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, len(sound))
    power = np.mean(np.square(sound, dtype=np.float64)) / max(np.mean(noise**2), 1e-20)
    return (sound + noise * np.sqrt(power * 10 ** (-snr_db / 10))).astype(np.float32)
