"""Which recognisers of speech there are, and the weights that each needs; light at import.

Does not belong here: running one (`asr`, `parakeet`, `parakeet_nemo`) or the stage (`perception.specs`).
"""

from __future__ import annotations

from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.profiles import Profile

DETECTOR: Final = "whisper_base"
"""Zoo id of the model that predicts the language before any recogniser is run."""
WHISPER: Final = ("whisper_tiny_en", DETECTOR)
"""Zoo ids of the Whisper models."""
PARAKEET: Final = "parakeet_tdt_06b"
"""Zoo id of Parakeet for transformers, and its name in the profile."""
PARAKEET_NEMO: Final = "parakeet_tdt_06b_nemo"
"""Zoo id of Parakeet for NeMo."""
PARAKEET_SECTION: Final = "transcripts_parakeet"


def recogniser_of(profile: Profile) -> str:
    """The recogniser that a profile chooses: `transcripts.model`.

    Raises:
        CerError: there is none of that name.
    """
    model = profile["transcripts"]["model"]
    known = (*WHISPER, PARAKEET)
    if model not in known:
        raise CerError("no such recogniser", f"transcripts.model = {model}", f"choose one of: {', '.join(known)}")
    return model


def models_of(profile: Profile) -> tuple[str, ...]:
    """Zoo ids of all weights that the recogniser of a profile and the prediction of the language need.

    Raises:
        CerError: there is no such recogniser.
    """
    if recogniser_of(profile) != PARAKEET:
        return WHISPER
    return PARAKEET_NEMO if profile[PARAKEET_SECTION]["runtime"] == "nemo" else PARAKEET, DETECTOR
