"""Two adjustments of compound distributions that need no label; a profile turns each of them on.

Belongs here: pure functions over the segments of one shard. Does not belong here: tables (`predictions.map_compounds`)
or the mappings that are adjusted (`ppa`, `pfsa`).

* Prior correction: a mapping favours some compounds on every video, such as those of an emotion that heads predict
  often. With m_k the mean of p_k over *all segments of the corpus shard that have a value* (with equal weight, whatever
  the video), p'_k = p_k m_k^-s / sum_j p_j m_j^-s. s = 1 divides by the full mean, as if every compound were equally
  frequent (Saerens et al. 2002, equation 4, towards a uniform prior, without its iteration); s = 0 changes nothing. A
  corpus of one shard is corrected over the corpus, a corpus of several shards per shard.
* Temporal smoothing: p''_w is the weighted mean of p' over the window and its two neighbours in time, with the weights
  1 - a for the window itself and a/2 for each neighbour that has a value, divided by their sum.

Both are linear in p once m is known, so a value still decomposes exactly into contributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.profiles import Profile

Array = NDArray[np.float64]

SECTION = "compound"


@dataclass(frozen=True)
class Adjustment:
    """The adjustments of a profile.

    Args:
        prior_correction: strength s, 0..1.
        smoothing: share a of the two neighbours, 0 to below 1.
    """

    prior_correction: float
    smoothing: float

    @classmethod
    def of(cls, profile: Profile) -> Adjustment:
        """Return the adjustments of a profile, whose model has checked the ranges."""
        section = profile[SECTION]
        return cls(float(section["prior_correction"]), float(section["smoothing"]))

    def __bool__(self) -> bool:
        return self.prior_correction > 0 or self.smoothing > 0


def prior(values: Array) -> Array:
    """Mean distribution [k] over the rows of [n, k] without NaN; uniform where there is none."""
    known = values[np.isfinite(values).all(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(values.shape[1], 1.0 / values.shape[1])


def factors(mean: Array, strength: float) -> Array:
    """m_k^-s [k]; 1 where a mean is 0, because all its probabilities are 0."""
    return np.where(mean > 0, np.where(mean > 0, mean, 1.0) ** -strength, 1.0)


def corrected(values: Array, mean: Array, strength: float) -> Array:
    """Distributions [n, k] after prior correction.

    Args:
        values: distributions; NaN rows stay NaN.
        mean: result of `prior` for the shard.
        strength: s.
    """
    scaled = values * factors(mean, strength)
    total = np.zeros(len(values))
    for k in range(values.shape[1]):  # in fixed order, so that a row does not depend on its batch
        total = total + scaled[:, k]
    return scaled / total[:, None]


def neighbours(videos: Sequence[str], segments: Sequence[int], known: NDArray[np.bool_], share: float) -> list[Array]:
    """Weights of the smoothing: per row [[row, weight], ...] of the rows with a value, which sum to 1.

    Args:
        videos: video of each row.
        segments: window number of each row.
        known: whether a row has a value.
        share: a.
    """
    index = {key: i for i, key in enumerate(zip(videos, segments, strict=True))}
    rows = []
    for i, (video, segment) in enumerate(zip(videos, segments, strict=True)):
        if not known[i]:
            rows.append(np.empty((0, 2)))
            continue
        parts = [(i, 1.0 - share)]
        for step in (-1, 1):
            j = index.get((video, segment + step))
            if share > 0 and j is not None and known[j]:
                parts.append((j, share / 2))
        weights = np.array(sorted(parts))
        weights[:, 1] /= weights[:, 1].sum()
        rows.append(weights)
    return rows


def smoothed(values: Array, weights: Sequence[Array]) -> Array:
    """Distributions [n, k] averaged with those of their neighbours; rows without a value stay NaN.

    Args:
        values: distributions.
        weights: result of `neighbours`.
    """
    out = np.full_like(values, np.nan)
    for i, parts in enumerate(weights):
        if len(parts):
            out[i] = sum(weight * values[int(j)] for j, weight in parts)
    return out


def adjusted(values: Array, videos: Sequence[str], segments: Sequence[int], settings: Adjustment) -> Array:
    """Correct, then smooth, all rows of a shard.

    Args:
        values: distributions [n, k] of every segment of the shard; NaN without a value.
        videos: video of each row.
        segments: window number of each row.
        settings: the adjustments.
    """
    if settings.prior_correction > 0:
        values = corrected(values, prior(values), settings.prior_correction)
    if settings.smoothing > 0:
        known: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        values = smoothed(values, neighbours(videos, segments, known, settings.smoothing))
    return values


@dataclass(frozen=True)
class Linear:
    """The adjustments of one video as a linear map: p''_wk = sum_j share_wj factor_jk p_jk.

    Args:
        factors: [N, 7], per window and compound.
        shares: per window [[window, share], ...], the windows that it is averaged over.
    """

    factors: Array
    shares: Sequence[Array]


def linear(values: Array, segments: Sequence[int], mean: Array, settings: Adjustment) -> Linear:
    """The adjustments of the windows of one video.

    Args:
        values: distributions [N, 7] before any adjustment; NaN without a value.
        segments: window numbers [N].
        mean: result of `prior` for the shard.
        settings: the adjustments.
    """
    scale = np.ones_like(values)
    if settings.prior_correction > 0:
        correction = factors(mean, settings.prior_correction)
        scale = correction / (values * correction).sum(axis=1, keepdims=True)
    known: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    return Linear(scale, neighbours([""] * len(values), segments, known, settings.smoothing))
