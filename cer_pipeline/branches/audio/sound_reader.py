"""Readers of the sound of an audio row: PyAV, or torchaudio where it loads.

Belongs here: the choice and both readers. Does not belong here: decoding of media files (`media.sound`).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.perception.speech.vad import read_sound
from cer_pipeline.sound_file import SAMPLE_RATE_HZ

Reader = Callable[[bytes], NDArray[np.float32]]
"""FLAC -> mono samples at 16 kHz, -1..1."""


def reader_of(name: str) -> Reader:
    """The reader of a name.

    Args:
        name: "pyav" or "torchaudio"; torchaudio loads beside a CUDA build of torch only.

    Raises:
        CerError: torchaudio is chosen and does not load.
    """
    if name == "pyav":
        return read_sound
    try:
        import torchaudio  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        then = "install it beside a CUDA build of torch, or set audio_wavlm.reader to pyav"
        raise CerError(f"torchaudio does not load ({reason})", "audio_wavlm.reader", then) from None

    def read(flac: bytes) -> NDArray[np.float32]:
        samples, rate = torchaudio.load(io.BytesIO(flac))
        if rate != SAMPLE_RATE_HZ:
            samples = torchaudio.functional.resample(samples, rate, SAMPLE_RATE_HZ)
        return samples.mean(0).numpy().astype(np.float32)

    return read
