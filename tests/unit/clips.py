"""Small clips made on the spot, whose every frame tells its number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

STEP = 7
"""Grey levels from one frame to the next; 36 frames differ."""


def grey(number: int) -> int:
    """The grey of a frame."""
    return number * STEP % 252


def make_clip(
    path: Path,
    times: Sequence[float],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "ffv1",
    options: dict[str, str] | None = None,
    sound: tuple[float, float] | None = None,
    container_options: dict[str, str] | None = None,
    pictures: Sequence[np.ndarray] | None = None,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
) -> Path:
    """Write a clip of frames at the given times (s), each of one grey.

    Args:
        path: where; the ending gives the container.
        times: of the frames, ascending.
        size: width and height.
        codec: of the video.
        options: of the encoder.
        sound: start and end of a tone of 440 Hz, s.
        container_options: of the muxer.
        pictures: RGB pictures in place of the greys.
        pix_fmt: of the video.
        rotation: stored as display matrix, counter-clockwise degrees.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        tick = Fraction(1, 12800)
        video: Any = container.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.time_base = video.codec_context.time_base = tick
        audio: Any = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        if rotation:
            video.set_display_rotation(rotation)
        for number, time in enumerate(times):
            picture = (
                pictures[number] if pictures is not None else np.full((size[1], size[0], 3), grey(number), np.uint8)
            )
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            wave = tone(sound[1] - sound[0])
            for start in range(0, len(wave), 1024):
                part = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                part.sample_rate, part.time_base = 16000, Fraction(1, 16000)
                part.pts = start + round(sound[0] * 16000)
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
    return path


def tone(seconds: float) -> np.ndarray:
    """A tone of 440 Hz, float32 at 16 kHz."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16000)) / 16000)).astype(np.float32)


def picture_of(jpeg: bytes) -> np.ndarray:
    """An RGB picture from JPEG bytes."""
    with av.open(io.BytesIO(jpeg), mode="r", format="mjpeg") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")
