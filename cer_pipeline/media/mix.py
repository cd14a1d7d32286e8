"""Mix the channels of a sound to one: by their mean, unless the mean loses the content of a channel.

Belongs here: the weights of the channels. Pure: no media library. Does not belong here: decoding (`sound`).

The channels are mixed as FFmpeg mixes to mono, without silent channels. If channels are the inverse of each other, the
mix cancels them. If one of many noisy channels holds a voice, the mix attenuates it. So each second is mixed in this
way only if the power of the mix is about what the power of its channels predicts; otherwise its strongest channel is
used. Power is that of the first difference of the sound, which attenuates hum and rumble.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.sound_file import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]

BLOCK: Final = SAMPLE_RATE_HZ
"""Samples in a block, for which one mix is chosen: 1 s, a few syllables."""

RAMP: Final = 320
"""Samples of the cross-fade from one mix to the next: 20 ms, which avoids clicks."""

EMPHASIS: Final = 0.97
"""Factor a of the first difference x[n] - a x[n-1], the usual pre-emphasis of speech."""

SILENT: Final = 1e-6
"""A channel 60 dB below the strongest is silent. It is left out, so that it does not attenuate the others."""

CANCELLED: Final = 0.25
"""A mix 6 dB below that of uncorrelated channels of the same power cancels: two channels correlate below -0.75."""

BURIED: Final = 1 / 25
"""A mix 14 dB below its strongest channel loses it; the centre channel of 5.1 alone is mixed 10.7 dB lower."""

QUIET: Final = 1e-4
"""Blocks 40 dB below the loudest one are too quiet to choose a mix by, so they use that of the block before them."""

EQUAL: Final = 0.99
"""Of channels whose power differs by rounding only, the first is used."""

NEARLY_ALL: Final = 0.9
"""If at least this share of the blocks uses one channel, the whole sound uses it."""

WEIGHTS: Final = {"FL": 0.5**0.5, "FR": 0.5**0.5, "FC": 1.0, "LFE": 0.0, "LFE2": 0.0, "FLC": 0.5**0.5, "FRC": 0.5**0.5}
"""Weights by channel name with which FFmpeg mixes to mono (libswresample/rematrix.c)."""

OTHER: Final = 0.5  # weight of all other named channels
NAMELESS: Final = "NONE"  # FFmpeg's name of a channel of unknown position


class MixAnalysis:
    """Choose the mix of a sound by its power and the correlations of its channels.

    Args:
        names: FFmpeg's names of the channels; NONE if the file states none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._moments: dict[int, NDArray[np.float32]] = {}  # number of a block -> second moments of its channels
        self._next = -1
        self._before = np.zeros((len(names), 1), np.float32)

    def add(self, start: int, sound: Floats) -> None:
        """Add a part of the sound.

        Args:
            start: position of its first sample.
            sound: [channels, samples].
        """
        if start != self._next:
            self._before = sound[:, :1]
        before = np.concatenate([self._before, sound[:, :-1]], axis=1)
        difference: Floats = np.asarray(sound - EMPHASIS * before, np.float32)
        self._before, self._next = sound[:, -1:], start + sound.shape[1]
        for block, part in blocks(start, difference):
            moments = np.asarray(part @ part.T, np.float32)
            self._moments[block] = self._moments[block] + moments if block in self._moments else moments

    def mix(self) -> Mix:
        """Return the mix of the parts that were added."""
        n = len(self._names)
        if n == 1 or not self._moments:
            return Mix(np.full(n, 1 / n, np.float32), {}, "mono" if n == 1 else f"mean of {n} channels")
        order = sorted(self._moments)
        moments = np.stack([self._moments[block] for block in order]).astype(np.float64)
        power = np.einsum("bii->bi", moments)
        total = power.sum(axis=0)
        audible = total > SILENT * total.max()
        base = base_weights(self._names, audible)
        mixed = np.einsum("bij,i,j->b", moments, base, base)
        strongest = power.max(axis=1)
        cancelled = mixed < CANCELLED * (power @ base**2)
        lossy = cancelled | (mixed < BURIED * strongest)
        loud = strongest > QUIET * strongest.max(initial=0.0)
        description = self._describe_mean(audible)
        weights: Floats = np.asarray(base, np.float32)
        if not (lossy & loud).any():
            return Mix(weights, {}, description)
        channel_power = power[lossy & loud].sum(axis=0)
        channel = int((channel_power >= EQUAL * channel_power.max()).argmax())
        single = np.eye(n, dtype=np.float32)[channel]
        reason = "the channels cancel" if (cancelled & loud).any() else "the mean buries it"
        exception = f"channel {channel + 1} of {n} ({reason})"
        if (lossy & loud).sum() >= NEARLY_ALL * loud.sum():
            return Mix(single, {}, exception)
        # A quiet block uses the mix of the last loud block before it.
        last = np.maximum.accumulate(np.where(loud, np.arange(len(order)), -1))
        exceptions = {block: single for block, at in zip(order, last, strict=True) if at >= 0 and lossy[at]}
        return Mix(weights, exceptions, f"{description}; {len(exceptions)} of {len(order)} s: {exception}")

    def _describe_mean(self, audible: NDArray[np.bool_]) -> str:
        n, count = len(self._names), int(audible.sum())
        if count == 1:
            return f"channel {int(audible.argmax()) + 1} of {n} (the others are silent)"
        return (
            f"mean of {n} channels" if count in (0, n) else f"mean of {count} of {n} channels (the others are silent)"
        )


class Mix:
    """A mix to one channel.

    Args:
        base: [channels] weights.
        exceptions: number of a block -> [channels] weights, for blocks with other weights.
        description: text for the column `mix` of the table `audio`.
    """

    def __init__(self, base: Floats, exceptions: dict[int, Floats], description: str) -> None:
        self._base, self._exceptions = base, exceptions
        self.description = description

    def apply(self, start: int, sound: Floats) -> Floats:
        """Mix a part of the sound.

        Args:
            start: position of its first sample.
            sound: [channels, samples].

        Returns:
            The mix, [samples].
        """
        if not self._exceptions:
            return self._base @ sound
        parts, position = [], start
        for block, part in blocks(start, sound):
            weights, before = self._weights(block), self._weights(block - 1)
            mixed = weights @ part
            offset = position - block * BLOCK
            if weights is not before and offset < RAMP:
                count = min(RAMP - offset, part.shape[1])
                share = (np.arange(offset, offset + count, dtype=np.float32) + 1) / RAMP
                mixed[:count] = share * mixed[:count] + (1 - share) * (before @ part[:, :count])
            parts.append(mixed)
            position += part.shape[1]
        return np.concatenate(parts)

    def _weights(self, block: int) -> Floats:
        return self._exceptions.get(block, self._base)


def blocks(start: int, sound: Floats) -> list[tuple[int, Floats]]:
    """Cut a part of a sound [channels, samples] at the edges of the blocks; return each piece with its block number."""
    stop = start + sound.shape[1]
    edges = [start, *range((start // BLOCK + 1) * BLOCK, stop, BLOCK), stop] if start < stop else []
    return [(a // BLOCK, sound[:, a - start : b - start]) for a, b in pairwise(edges)]


def base_weights(names: Sequence[str], audible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the weights of FFmpeg without the silent channels, [channels], summing to 1.

    Args:
        names: FFmpeg's names of the channels.
        audible: [channels] whether a channel is not silent.
    """
    named = np.array([1.0 if name == NAMELESS else WEIGHTS.get(name, OTHER) for name in names])
    weights = np.where(audible, named, 0.0)
    if not weights.any():
        weights = audible.astype(float) if audible.any() else np.ones(len(names))
    return weights / weights.sum()
