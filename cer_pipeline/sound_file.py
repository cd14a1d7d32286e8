"""Read and write FLAC and WAV files.

Belongs here: these two formats, as bytes or as a file, with PyAV, whose wheels include the codecs, so that no system
library is needed. Does not belong here: the sound of a video (`media.sound`), resampling, mixing.
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
"""First bytes of the files, with FFmpeg's demuxer for each. FFmpeg must not guess the demuxer, since a playlist with
the name of a sound file would open further files."""

BLOCK: Final = 4096
"""Samples in a block: FFmpeg's FLAC encoder takes this many at 16 kHz."""


class SoundFileError(ValueError):
    """The bytes are not a FLAC or WAV file, or the file is damaged."""


def read_sound_file(source: bytes | Path) -> tuple[NDArray[np.float32], int]:
    """Read all samples of a FLAC or WAV file.

    Args:
        source: content or path of the file.

    Returns:
        Samples [n, channels] in -1..1 (integers are divided by full scale, which is 32768 for 16 bits), and the sample
        rate in Hz.

    Raises:
        SoundFileError: the format is another one, or fewer samples can be decoded than the header states.
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
            rate, stated = (
                stream.rate,
                (stream.duration or 0) if demuxer == "flac" else 0,
            )  # the header of a WAV file from a pipe is wrong
    except (FFmpegError, IndexError) as error:
        raise SoundFileError(f"the sound cannot be decoded ({error})") from error
    if not parts:
        raise SoundFileError("there is no sound in the file")
    samples = np.concatenate(parts)
    if len(samples) < stated:
        raise SoundFileError(f"the file is damaged: {len(samples)} of its {stated} samples can be decoded")
    return samples, rate


def _samples(frame: Any) -> NDArray[np.float32]:
    """Return the samples of a decoded frame, float32 [n, channels]."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    half = np.float32(2 ** (8 * values.dtype.itemsize - 1))
    silence = half if values.dtype.kind == "u" else np.float32(0)  # silence of unsigned samples is half their range
    return (values.astype(np.float32) - silence) / half


def write_sound_file(samples: NDArray[Any], rate: int, kind: Literal["flac", "wav"] = "flac") -> bytes:
    """Write samples as a FLAC or WAV file of 16 bits.

    Args:
        samples: [n] or [n, channels]; int16, or floats in -1..1, which are multiplied by 32768, rounded and clipped, so
            that samples of a 16-bit file from `read_sound_file` are written unchanged.
        rate: sample rate, Hz.
        kind: format of the file.

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
