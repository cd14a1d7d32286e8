"""From the channels of a sound to one: the mean, unless it hides what the channels hold.

Belongs here: how channels are weighed, and judging a mix by its channels. Pure: no media library.
Does not belong here: decoding (`sound`).

The channels are mixed as FFmpeg mixes to mono, silent ones left out. Where channels are the inverse of each other the
mix cancels what was said; where one speaks among many noisy ones the mix buries it. So each second is mixed as above
only if its mix is about as strong as its channels let expect; else the strongest channel stands for it. Strength is
that of the first difference of the sound, which weighs hum and rumble down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK: Final = 16_000
"""Samples that are judged together: 1 s, some syllables."""

RAMP: Final = 320
"""Samples in which one mix passes into the next: 20 ms, so that nothing clicks."""

EMPHASIS: Final = 0.97
"""Of the first difference x[n] - 0.97 x[n-1], the usual pre-emphasis of speech."""

SILENT: Final = 1e-6
"""A channel 60 dB below the strongest is silent: it is left out, so that it takes nothing from the others."""

CANCELLED: Final = 0.25
"""A mix 6 dB below that of unrelated channels of the same strength cancels: a correlation of two below -0.75."""

BURIED: Final = 1 / 25
"""A mix 14 dB below its strongest channel buries it; the centre of 5.1 alone comes out 10.7 dB lower."""

QUIET: Final = 1e-4
"""Seconds 40 dB below the loudest one follow those around them: there is nothing in them to judge a mix by."""

EQUAL: Final = 0.99
"""Of channels that are as strong but for rounding, the first is taken."""

NEARLY_ALL: Final = 0.9
"""From this share of its seconds on, the whole sound is taken from one channel."""

WEIGHTS: Final = {"FL": 0.5**0.5, "FR": 0.5**0.5, "FC": 1.0, "LFE": 0.0, "LFE2": 0.0, "FLC": 0.5**0.5, "FRC": 0.5**0.5}
"""How FFmpeg mixes to mono (libswresample/rematrix.c), by channel name; all other named channels weigh OTHER."""

OTHER: Final = 0.5
NAMELESS: Final = "NONE"


class Judge:
    """Hears a sound once and says how it is to be mixed.

    Args:
        names: of the channels, as FFmpeg names them; NONE where the file does not say what they are.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._blocks: dict[int, NDArray[np.float32]] = {}  # number of a block -> its channels' second moments
        self._next = -1
        self._before = np.zeros((len(names), 1), np.float32)

    def hear(self, start: int, sound: Floats) -> None:
        """Take a part of the sound.

        Args:
            start: its place, samples.
            sound: [channels, samples].
        """
        if start != self._next:
            self._before = sound[:, :1]
        before = np.concatenate([self._before, sound[:, :-1]], axis=1)
        steep: Floats = np.asarray(sound - EMPHASIS * before, np.float32)
        self._before, self._next = sound[:, -1:], start + sound.shape[1]
        for block, part in blocks(start, steep):
            moments = np.asarray(part @ part.T, np.float32)
            self._blocks[block] = self._blocks[block] + moments if block in self._blocks else moments

    def verdict(self) -> Mix:
        """How the sound is to be mixed."""
        n = len(self._names)
        if n == 1 or not self._blocks:
            return Mix(np.full(n, 1 / n, np.float32), {}, "mono" if n == 1 else f"mean of {n} channels")
        order = sorted(self._blocks)
        moments = np.stack([self._blocks[block] for block in order]).astype(np.float64)
        power = np.einsum("bii->bi", moments)
        whole = power.sum(axis=0)
        heard = whole > SILENT * whole.max()
        base = base_weights(self._names, heard)
        mixed = np.einsum("bij,i,j->b", moments, base, base)
        strongest = power.max(axis=1)
        cancelled = mixed < CANCELLED * (power @ base**2)
        hidden = cancelled | (mixed < BURIED * strongest)
        clear = strongest > QUIET * strongest.max(initial=0.0)
        told = self._told(heard)
        weights: Floats = np.asarray(base, np.float32)
        if not (hidden & clear).any():
            return Mix(weights, {}, told)
        strengths = power[hidden & clear].sum(axis=0)
        channel = int((strengths >= EQUAL * strengths.max()).argmax())
        single = np.eye(n, dtype=np.float32)[channel]
        reason = "the channels cancel" if (cancelled & clear).any() else "the mean buries it"
        why = f"channel {channel + 1} of {n} ({reason})"
        if (hidden & clear).sum() >= NEARLY_ALL * clear.sum():
            return Mix(single, {}, why)
        # A quiet second follows the last clear one before it.
        last = np.maximum.accumulate(np.where(clear, np.arange(len(order)), -1))
        taken = {block: single for block, at in zip(order, last, strict=True) if at >= 0 and hidden[at]}
        return Mix(weights, taken, f"{told}; {len(taken)} of {len(order)} s: {why}")

    def _told(self, heard: NDArray[np.bool_]) -> str:
        n, some = len(self._names), int(heard.sum())
        if some == 1:
            return f"channel {int(heard.argmax()) + 1} of {n} (the others are silent)"
        return f"mean of {n} channels" if some in (0, n) else f"mean of {some} of {n} channels (the others are silent)"


class Mix:
    """A mix to one channel.

    Args:
        base: [channels] weights.
        taken: number of a block -> its weights, where they are others.
        told: what was done, for people.
    """

    def __init__(self, base: Floats, taken: dict[int, Floats], told: str) -> None:
        self._base, self._taken = base, taken
        self.told = told

    def apply(self, start: int, sound: Floats) -> Floats:
        """Mix a part of the sound.

        Args:
            start: its place, samples.
            sound: [channels, samples].

        Returns:
            [samples].
        """
        if not self._taken:
            return self._base @ sound
        out, at = [], start
        for block, part in blocks(start, sound):
            now, before = self._weights(block), self._weights(block - 1)
            mixed = now @ part
            place = at - block * BLOCK
            if now is not before and place < RAMP:
                count = min(RAMP - place, part.shape[1])
                share = (np.arange(place, place + count, dtype=np.float32) + 1) / RAMP
                mixed[:count] = share * mixed[:count] + (1 - share) * (before @ part[:, :count])
            out.append(mixed)
            at += part.shape[1]
        return np.concatenate(out)

    def _weights(self, block: int) -> Floats:
        return self._taken.get(block, self._base)


def blocks(start: int, sound: Floats) -> list[tuple[int, Floats]]:
    """A part of a sound [channels, samples] cut at the edges of the blocks, with the number of each block."""
    stop, out = start + sound.shape[1], []
    while start < stop:
        edge = min(stop, (start // BLOCK + 1) * BLOCK)
        out.append((start // BLOCK, sound[:, sound.shape[1] - (stop - start) : sound.shape[1] - (stop - edge)]))
        start = edge
    return out


def base_weights(names: Sequence[str], heard: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of the channels in the mix, summing to 1: those of FFmpeg, silent channels left out.

    Args:
        names: of the channels.
        heard: [channels] which are not silent.
    """
    plain = np.array([1.0 if name == NAMELESS else WEIGHTS.get(name, OTHER) for name in names])
    weights = np.where(heard, plain, 0.0)
    if not weights.any():
        weights = heard.astype(float) if heard.any() else np.ones(len(names))
    return weights / weights.sum()
