"""FLAC and WAV files as samples, and samples as such files.

Belongs here: these two formats, as bytes or as a file, by way of PyAV, whose wheels carry their decoders: no system
library is needed. Does not belong here: the sound of a video (`media.audio`), resampling, mixing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ: Final = 16_000
"""Sample rate of the sound in the table `audio`, which every speech model of this project reads."""

MAGIC: Final = ((b"fLaC", "flac"), (b"ID3", "flac"), (b"RIFF", "wav"), (b"RF64", "wav"))
"""How the files begin, and FFmpeg's demuxer for each. The demuxer is named and never guessed: a playlist under the name
of a sound file would open further files."""

BLOCK: Final = 4096
"""Samples that are encoded at once: FFmpeg's FLAC encoder takes this many at 16 kHz."""


class SoundFileError(ValueError):
    """The bytes are no FLAC or WAV file, or a damaged one."""


def read_sound_file(source: bytes | Path) -> tuple[NDArray[np.float32], int]:
    """All samples of a FLAC or WAV file.

    Args:
        source: the content of a file, or its path.

    Returns:
        Samples [n, channels] in -1..1 (integers are divided by full scale, which is 32768 for 16 bits), and their rate
        in Hz.

    Raises:
        SoundFileError: another format, or less in it can be decoded than it says it holds.
        OSError: the file cannot be opened.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source))
    with source.open("rb") as file:
        return _read(file)


def _read(file: Any) -> tuple[NDArray[np.float32], int]:
    import av
    from av.error import FFmpegError

    head = file.read(4)
    file.seek(0)
    demuxer = next((name for magic, name in MAGIC if head.startswith(magic)), None)
    if demuxer is None:
        raise SoundFileError("neither FLAC nor WAV")
    try:
        opened: Any = av.open(file, format=demuxer, metadata_errors="replace")
        with opened as container:
            stream = container.streams.audio[0]
            parts = [_samples(frame) for frame in container.decode(stream)]
            rate, stated = stream.rate, (stream.duration or 0) if demuxer == "flac" else 0  # WAV through a pipe lies
    except (FFmpegError, IndexError) as error:
        raise SoundFileError(f"the sound cannot be decoded ({error})") from error
    if not parts:
        raise SoundFileError("there is no sound in the file")
    samples = np.concatenate(parts)
    if len(samples) < stated:
        raise SoundFileError(f"the file is damaged: {len(samples)} of its {stated} samples can be decoded")
    return samples, rate


def _samples(frame: Any) -> NDArray[np.float32]:
    """float32 [n, channels] of a decoded frame."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    half = np.float32(2 ** (8 * values.dtype.itemsize - 1))
    middle = half if values.dtype.kind == "u" else np.float32(0)  # unsigned samples are silent at half their range
    return (values.astype(np.float32) - middle) / half


def write_sound_file(samples: NDArray[Any], rate: int, kind: Literal["flac", "wav"] = "flac") -> bytes:
    """Samples as a FLAC or WAV file of 16 bits.

    Args:
        samples: [n] or [n, channels]; int16, or floats in -1..1, which are multiplied by 32768, rounded and clipped, so
            that what `read_sound_file` gave of a file of 16 bits comes out the same.
        rate: Hz.
        kind: of the file.

    Returns:
        The content of the file.
    """
    import av

    if samples.dtype.kind == "f":
        samples = np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767)
    values = samples.astype(np.int16).reshape(len(samples), -1)
    channels = values.shape[1]
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac" if kind == "flac" else "pcm_s16le", rate=rate, layout=layout)
        for start, block in _blocks(values):
            frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _blocks(values: NDArray[np.int16]) -> Iterator[tuple[int, NDArray[np.int16]]]:
    for start in range(0, len(values), BLOCK):
        yield start, np.ascontiguousarray(values[start : start + BLOCK])
