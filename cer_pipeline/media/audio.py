"""The sound of a video as 16 kHz mono FLAC: reading it back.

Belongs here: what the column `flac` holds. Does not belong here: making it (`sound`), listening (`perception`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cer_pipeline.sound_file import read_sound_file

if TYPE_CHECKING:
    import numpy as np

RATE_HZ: Final = 16_000
"""What every speech model of this project reads."""


def flac_samples(data: bytes) -> int:
    """Number of samples that the header of a FLAC file states (RFC 9639, section 8.2); 0 where it is none."""
    if len(data) < 26 or data[:4] != b"fLaC":
        return 0
    return int.from_bytes(data[21:26], "big") & ((1 << 36) - 1)


def read_audio(flac: bytes) -> np.ndarray:
    """The sound of a row of `audio`.

    Args:
        flac: the column `flac`.

    Returns:
        float32 [n] in -1..1, 16 kHz, from the start of the container.
    """
    samples, _ = read_sound_file(flac)
    return samples[:, 0]
