"""Single pictures and sounds of real clips, read with PyAV alone, for tests of models that see one picture."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def picture_at(clip: Path, time_s: float, long_side: int = 1280) -> NDArray[np.uint8]:
    """The first frame shown at or after a time, RGB, shrunk to the long side."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        frame = next(f for f in container.decode(stream) if f.time is not None and f.time >= time_s)
        rgb = frame.to_ndarray(format="rgb24")
    scale = min(1.0, long_side / max(rgb.shape[:2]))
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb, np.uint8)


def sound_of(clip: Path) -> NDArray[np.int16]:
    """The sound of a clip: 16 kHz mono, 16 bit."""
    with av.open(str(clip)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        frames = [*container.decode(container.streams.audio[0]), None]
        return np.concatenate([part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)])


def waveform_of(clip: Path) -> NDArray[np.float32]:
    """The sound of a clip: 16 kHz mono, -1..1."""
    return np.asarray(sound_of(clip) / 32768, np.float32)
