"""Basic emotions from the movements of a face: action units, prototypes, and when a smile is believed.

Belongs here: the rules of the branch face_static, as pure functions of arrays over the samples of one face track.
Does not belong here: tables (`static`), networks (`mini_xception`), or any number that is a choice (profile, section
[face_static]).

Sources. Action units (AU): Ekman, Friesen, Hager, "Facial Action Coding System" (2002). Prototypes: Friesen & Ekman,
"EMFACS-7" (1983), and Ekman & Friesen, "Unmasking the Face" (1975). Smiles: Ekman & Friesen, "Felt, false, and
miserable smiles" (J. Nonverbal Behavior 6, 1982): a felt smile lasts 2/3 s to 4 s, so what flickers for less is not
one; Ruch & Ekman, "The expressive pattern of laughter" (2001): laughter parts the lips and drops the jaw, so lip
corners drawn back over shut lips and shut eyes are no laughter but the miserable smile or the grimace of weeping.

Limits of MediaPipe's blendshapes (observed on faces at rest and in strong expression): cheekSquint (AU 6),
noseSneer (AU 9) and mouthFrown (AU 15) hardly leave 0; brow and lid scores differ more between people at rest than many
expressions change them. Hence AU 6 is read from the lower lid, the weak channels reach their full value early, and
brows and lids are measured from the person's resting level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.labels import BASIC
from cer_pipeline.perception.faces.blendshapes import INDEX

Array = NDArray[np.float64]

UNITS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "brow_inner_up": ("browInnerUp",),  # AU 1
        "brow_outer_up": ("browOuterUpLeft", "browOuterUpRight"),  # AU 2
        "brow_lower": ("browDownLeft", "browDownRight"),  # AU 4
        "lid_raise": ("eyeWideLeft", "eyeWideRight"),  # AU 5
        "lid_tighten": ("eyeSquintLeft", "eyeSquintRight"),  # AU 7, and AU 6 (see above)
        "nose_wrinkle": ("noseSneerLeft", "noseSneerRight"),  # AU 9
        "upper_lip_raise": ("mouthUpperUpLeft", "mouthUpperUpRight"),  # AU 10
        "lip_corner_pull": ("mouthSmileLeft", "mouthSmileRight"),  # AU 12
        "lip_corner_depress": ("mouthFrownLeft", "mouthFrownRight"),  # AU 15
        "chin_raise": ("mouthShrugLower",),  # AU 17
        "lip_stretch": ("mouthStretchLeft", "mouthStretchRight"),  # AU 20
        "lip_press": ("mouthPressLeft", "mouthPressRight"),  # AU 23, 24
        "jaw_drop": ("jawOpen",),  # AU 26, 27
        "eyes_closed": ("eyeBlinkLeft", "eyeBlinkRight"),  # AU 43
        "gaze_down": ("eyeLookDownLeft", "eyeLookDownRight"),  # AU 64
    }
)
"""Action unit -> the blendshapes that it is read from (their mean)."""

PROTOTYPES: Final[Mapping[str, tuple[Mapping[str, float], ...]]] = MappingProxyType(
    {
        # 4+5+7+23
        "Anger": ({"brow_lower": 1.5, "lid_raise": 0.5, "lid_tighten": 1.0, "lip_press": 1.0},),
        # 9+15, and 10 where the lip corners are not drawn up
        "Disgust": ({"nose_wrinkle": 1.5, "lip_corner_depress": 0.5, "sneer": 1.0},),
        # 1+2+4+5+20+26: the brows and lids of surprise, but drawn together, and the lips stretched
        "Fear": (
            {
                "brow_inner_up": 1.0,
                "brow_outer_up": 0.5,
                "brow_lower": 0.5,
                "lid_raise": 1.0,
                "lip_stretch": 1.0,
                "jaw_drop": 0.5,
            },
        ),
        # 6+12, as far as the smile is believed
        "Happiness": ({"smile": 1.0},),
        # 1+4+15 with the eyes cast down; or the miserable smile and the grimace of weeping, see `smile`
        "Sadness": (
            {"brow_inner_up": 1.0, "brow_lower": 0.5, "lip_corner_depress": 1.0, "eyes_down": 0.5},
            {"grimace": 1.0, "brow_inner_up": 0.5, "brow_lower": 0.5},
        ),
        # 1+2+5+26
        "Surprise": ({"brow_inner_up": 1.0, "brow_outer_up": 1.0, "lid_raise": 1.0, "jaw_drop": 1.0},),
    }
)
"""Emotion -> its patterns, each a weight per measure (an action unit, or what `predict` derives from some). A pattern
scores the weighted mean of its measures, so 1 needs all of them at full value; an emotion scores its best pattern."""


@dataclass(frozen=True)
class Track:
    """One subject face over time.

    Args:
        samples: [n] indices on the 5 Hz grid, ascending.
        blendshapes: [n, 52].
        logits: [n, 7], of the expression network, as a distribution's logits in the order of `native`.
        native: labels of the logits.
    """

    samples: NDArray[np.int64]
    blendshapes: Array
    logits: Array
    native: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """Predictions of the two experts for every sample of a track.

    Args:
        network: [n, 8], the network's distribution after the guard.
        prototypes: [n, 8], from the action units.
        units: [n, 15] action units above rest, 0..1, in the order of `UNITS`.
        rest: [15] resting level that was subtracted, as blendshape scores.
        smile: [n] how far a smile is believed, 0..1.
    """

    network: Array
    prototypes: Array
    units: Array
    rest: Array
    smile: Array


def predict(track: Track, settings: Mapping[str, Any]) -> Prediction:
    """Both experts on every sample of one track. See the functions below for each step.

    Args:
        track: the face.
        settings: section [face_static] of the profile.
    """
    raw = smooth(action_units(track.blendshapes), track.samples)
    rest = resting_level(raw, settings["rest"], settings["rest_typical"], settings["rest_prior_samples"])
    units = ramp(raw, rest, settings["full"])
    measures = dict(zip(UNITS, units.T, strict=True))
    softened = smooth(distribution(track.logits, track.native, settings["network_temperature"]), track.samples)
    softened /= softened.sum(axis=1, keepdims=True)
    believed, grimace = smile(measures, softened[:, BASIC.index("Happiness")], settings["smile_without_lids"])
    measures |= {
        "smile": believed,
        "grimace": grimace,
        "sneer": measures["upper_lip_raise"] * (1 - measures["lip_corner_pull"]),
        "eyes_down": np.maximum(measures["eyes_closed"], measures["gaze_down"]) * measures["brow_inner_up"],
    }
    return Prediction(
        network=guard(softened, believed, settings["unsupported_happiness"]),
        prototypes=prototypes(measures, settings["neutral_score"], settings["prototype_temperature"]),
        units=units,
        rest=rest,
        smile=believed,
    )


def action_units(blendshapes: Array) -> Array:
    """Raw action units: the mean of each unit's blendshapes. [n, 52] -> [n, 15]."""
    return np.stack([blendshapes[:, [INDEX[n] for n in names]].mean(axis=1) for names in UNITS.values()], axis=1)


def smooth(values: Array, samples: NDArray[np.int64]) -> Array:
    """The median of each value over the sample and its neighbours, at most 0.2 s away on the grid.

    An expression lasts half a second or more (Ekman, "Emotions Revealed", 2003), a viseme or a blink does not: of three
    samples in 0.4 s the median keeps the former and drops the latter. At a rim, or beside a gap, where one neighbour is
    missing, the mean of the two is taken. The medians of a distribution need not sum to 1: the caller renormalises.

    Args:
        values: [n, k].
        samples: [n], ascending.
    """
    out = np.empty_like(values)
    for i in range(len(samples)):
        near = [j for j in (i - 1, i, i + 1) if 0 <= j < len(samples) and abs(int(samples[j] - samples[i])) <= 1]
        out[i] = np.median(values[near], axis=0)
    return out


def resting_level(
    raw: Array, cap: Mapping[str, float], typical: Mapping[str, float], prior_samples: float, quantile: float = 0.2
) -> Array:
    """The level of each action unit in this face at rest, from the same track of the same video.

    The 20 % quantile over the track, but never above `cap`, so that an expression that is held throughout a video is
    not taken for rest; pulled towards the level that is typical of people the shorter the track is.

    Args:
        raw: [n, 15] smoothed action units.
        cap: unit -> highest plausible resting level; a unit that is not named rests at 0.
        typical: unit -> typical resting level.
        prior_samples: number of samples whose weight the typical level has.
        quantile: of the track.
    """
    most = np.array([cap.get(name, 0.0) for name in UNITS])
    usual = np.array([typical.get(name, 0.0) for name in UNITS])
    quantiles = np.minimum(np.quantile(raw, quantile, axis=0), most)
    n = len(raw)
    return (n * quantiles + prior_samples * usual) / (n + prior_samples)


def ramp(raw: Array, rest: Array, full: Mapping[str, float]) -> Array:
    """Action units as 0 at rest and 1 at the level of a full expression, linear between. [n, 15] -> [n, 15]."""
    top = np.array([full[name] for name in UNITS])
    return np.clip((raw - rest) / np.maximum(top - rest, 1e-6), 0.0, 1.0)


def smile(measures: Mapping[str, Array], happiness: Array, without_lids: float) -> tuple[Array, Array]:
    """How far drawn lip corners are a smile, and how far they are a grimace.

    A smile is the pull of the lip corners (AU 12), whole with raised cheeks (AU 6, here the lower lid) or bared teeth,
    less without. Closed lids do not show whether the cheeks are raised. Then lips that are parted over the teeth,
    as in laughter, still make a smile; over closed lips the action units of a smile and of the grimace of weeping are
    the same, and the network, which uses the texture of the skin, decides between the two.

    Args:
        measures: action units, [n] each, 0..1.
        happiness: [n] the network's, before the guard.
        without_lids: share of a smile that is believed without a tightened lower lid.

    Returns:
        smile and grimace, [n] each, 0..1; their sum is at most AU 12.
    """
    pull = measures["lip_corner_pull"]
    teeth = measures["upper_lip_raise"]
    doubt = measures["eyes_closed"] * (1 - teeth) * (1 - happiness)
    felt = without_lids + (1 - without_lids) * np.maximum(measures["lid_tighten"], teeth)
    return pull * (1 - doubt) * felt, pull * doubt


def distribution(logits: Array, native: tuple[str, ...], temperature: float) -> Array:
    """The network's distribution over the 8 basic emotions: softened, its order mapped, Other = 0. [n, 7] -> [n, 8].

    Args:
        logits: in the order of `native`.
        native: labels of the columns.
        temperature: above 1, since the network is right far less often than it is sure.
    """
    out = np.zeros((len(logits), len(BASIC)))
    out[:, [BASIC.index(label) for label in native]] = softmax(logits / temperature, axis=-1)
    return out


def guard(network: Array, smile: Array, floor: float) -> Array:
    """Discount the network's Happiness where no smile supports it; the difference goes to Neutral.

    The network takes an open, speaking mouth for a smile. Its Happiness is scaled in proportion to the smile that the
    action units support (half a smile supports it wholly), never less than `floor` of it. The rest is given to Neutral
    and not spread over the other emotions: a face that merely speaks shows none of them.

    Args:
        network: [n, 8].
        smile: [n], 0..1.
        floor: share that remains without any support.
    """
    out = network.copy()
    happy, neutral = BASIC.index("Happiness"), BASIC.index("Neutral")
    remaining = floor + (1 - floor) * np.minimum(1.0, 2 * smile)
    out[:, neutral] += out[:, happy] * (1 - remaining)
    out[:, happy] *= remaining
    return out


def prototypes(measures: Mapping[str, Array], neutral: float, temperature: float) -> Array:
    """Distribution from the scores of the prototypes; Neutral is what remains when none is high, Other = 0.

    Args:
        measures: action units and what is derived from them, 0..1.
        neutral: score of Neutral: a prototype outweighs it from this share of its measures.
        temperature: of the softmax over scores.
    """
    n = len(next(iter(measures.values())))
    scores = np.full((n, len(BASIC)), -np.inf)
    scores[:, BASIC.index("Neutral")] = neutral
    for emotion, patterns in PROTOTYPES.items():
        each = [np.average([measures[name] for name in p], axis=0, weights=list(p.values())) for p in patterns]
        scores[:, BASIC.index(emotion)] = np.max(np.stack(each), axis=0)
    # Drawn-up lip corners contradict every negative prototype (AU 12 belongs to none of them), unless as a grimace.
    for emotion in ("Anger", "Disgust", "Fear", "Sadness"):
        scores[:, BASIC.index(emotion)] *= 1 - measures["smile"]
    return softmax(scores / temperature, axis=-1)
