"""A recognised word, as every recogniser returns it.

Does not belong here: recognisers (`asr`, `parakeet`, `parakeet_nemo`) or what is kept of their words (`asr`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word as written, with a leading space where one belongs; times in s, probability 0..1."""

    word: str
    start_s: float
    end_s: float
    probability: float

    @property
    def middle_s(self) -> float:
        """The time that decides to which windows the word belongs."""
        return (self.start_s + self.end_s) / 2
