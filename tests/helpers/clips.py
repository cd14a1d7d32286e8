"""Small clips made on the spot, whose every frame tells its number."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

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


FLASH = 2
"""Frames that a flash lasts."""


def make_clap(
    path: Path,
    flash: int,
    *,
    frames: int = 50,
    offset_s: float = 0.0,
    sound: str = "mp2",
    picture: str = "mpeg2video",
) -> Path:
    """Write a clip of 25 frames/s in which a white flash and a beep of 1 kHz start together.

    Args:
        path: where; the ending gives the container.
        flash: number of the first white frame.
        frames: number of frames.
        offset_s: added to all time stamps, s.
        sound: codec of the sound; empty for none.
        picture: codec of the pictures.
    """
    with av.open(str(path), "w", options={"output_ts_offset": str(offset_s)} if offset_s else {}) as container:
        video: Any = container.add_stream(picture, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        wave = np.zeros(frames * 640, np.float32)
        start = flash * 640
        wave[start : start + FLASH * 640] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(FLASH * 640) / 16000)
        for number in range(frames):  # interleaved, as recorders write
            level = 235 if flash <= number < flash + FLASH else 16
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
            if audio is not None:
                samples = (wave[None, number * 640 : (number + 1) * 640] * 32767).astype(np.int16)
                part = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                part.sample_rate, part.time_base, part.pts = 16000, Fraction(1, 16000), number * 640
                container.mux(audio.encode(part))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))
    return path


def join(path: Path, *parts: Path) -> Path:
    """Files one after the other, as a recorder that starts anew writes a broadcast stream."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def make_wav(path: Path, *channels: np.ndarray) -> Path:
    """Write channels, float32 at 16 kHz, as PCM that does not say what they are."""
    sound = np.stack(channels, axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


def make_tracks(path: Path, *tracks: np.ndarray, default: int = 1) -> Path:
    """Write 2 s of grey pictures with sound tracks, each float32 at 16 kHz: mono [n], or stereo [2, n].

    Args:
        path: where; the ending gives the container.
        tracks: the sounds.
        default: number of the one that is flagged as default, from 1; 0 for none.
    """
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams: list[Any] = []
        for number, track in enumerate(tracks, 1):
            layout = "stereo" if track.ndim == 2 else "mono"
            streams.append(container.add_stream("aac", rate=16000, layout=layout))
            streams[-1].disposition = Disposition.default if number == default else Disposition(0)
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey(number), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, track in zip(streams, tracks, strict=True):
            sound = np.ascontiguousarray(np.atleast_2d(track), np.float32)
            for at in range(0, sound.shape[1], 1024):
                samples = np.ascontiguousarray(sound[:, at : at + 1024])
                part = av.AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
                part.sample_rate, part.time_base, part.pts = 16000, Fraction(1, 16000), at
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    return path
