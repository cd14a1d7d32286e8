"""The measurements of the rule-based captioner: faces, pictures and sound of a window -> numbers.

Belongs here: arithmetic on arrays, with numpy only. Does not belong here: tables and media (`captioner`) or sentences
(`text`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.perception.captions.rule_based.text import Face, PictureStats, Sound, TimeProfile
from cer_pipeline.perception.faces.blendshapes import INDEX
from cer_pipeline.profiles.sections import Describer
from cer_pipeline.sums import plain_sum

Array = NDArray[Any]

ACTION_BLENDSHAPES: Final[Mapping[str, tuple[str, ...]]] = {
    "brows_raised": ("browOuterUp",),
    "inner_brows_raised": ("browInnerUp",),
    "brows_lowered": ("browDown",),
    "eyes_wide": ("eyeWide",),
    "eyes_closed": ("eyeBlink",),
    "eyes_narrowed": ("eyeSquint",),
    "nose_wrinkled": ("noseSneer",),
    "upper_lip_raised": ("mouthUpperUp",),
    "lip_corners_up": ("mouthSmile",),
    "lip_corners_down": ("mouthFrown",),
    "chin_raised": ("mouthShrugLower",),
    "lips_stretched": ("mouthStretch",),
    "lips_forward": ("mouthPucker", "mouthFunnel"),
    "lips_pressed": ("mouthPress",),
    "lips_drawn_in": ("mouthRollLower", "mouthRollUpper"),
    "mouth_open": ("jawOpen",),
    "cheeks_puffed": ("cheekPuff",),
}
"""The blendshapes of every action of `text.ACTIONS`: mean of left and right, the largest where two are named."""

FRAME_S: Final = 0.04  # window of the pitch analysis: 2.4 periods at 60 Hz, 16 at 400 Hz
HOP_S: Final = 0.01
SILENCE_DBFS: Final = -120.0  # level of digital silence, whose logarithm is not finite


def time_profile(values: Array, place: Array, left_minus_right: Array | None = None) -> TimeProfile:
    """Summarise one quantity over the time of a window.

    Args:
        values: [t] at the samples that have one, t >= 1.
        place: [t] position of each sample inside the window, 0 <= place < 1.
        left_minus_right: [t] difference of the two sides; None for a quantity without sides.
    """
    third = np.minimum((place * 3 + 1e-9).astype(int), 2)  # the small number: 1/3 * 3 may round below 1
    start, middle, end = (float(np.median(values[third == i])) if (third == i).any() else None for i in range(3))
    return TimeProfile(
        level=float(np.median(values)),
        start=start,
        middle=middle,
        end=end,
        asymmetry=0.0 if left_minus_right is None else float(np.median(left_minus_right)),
        spread=float(np.std(values)),
    )


def measure_face(
    blendshapes: Array, angles: Array, heights: Array, times: Array, place: Array, samples: int
) -> Face | None:
    """Measure the subject's face in a window.

    Args:
        blendshapes: [t, 52] scores on the samples that show the subject, in time order.
        angles: [t, 3] yaw, pitch, roll in degrees.
        heights: [t] height of the face over the height of the picture.
        times: [t] time of each, s.
        place: [t] position inside the window, 0 <= place < 1.
        samples: number of samples of the window that have a picture.

    Returns:
        None where t is 0.
    """
    if not len(blendshapes):
        return None
    b = blendshapes.astype(np.float64)
    left = {name: b[:, INDEX[f"eyeLook{name}Left"]] for name in ("Up", "Down", "In", "Out")}
    right = {name: b[:, INDEX[f"eyeLook{name}Right"]] for name in ("Up", "Down", "In", "Out")}
    side = (left["Out"] - left["In"] + right["In"] - right["Out"]) / 2
    up = (left["Up"] - left["Down"] + right["Up"] - right["Down"]) / 2
    yaw, pitch, roll = (time_profile(angles[:, i].astype(np.float64), place) for i in range(3))
    return Face(
        visible_share=len(b) / max(samples, 1),
        actions={name: _action(b, names, place) for name, names in ACTION_BLENDSHAPES.items()},
        gaze_side=time_profile(side, place),
        gaze_up=time_profile(up, place),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        head_speed=head_speed(angles, times),
        height=float(np.median(heights)),
    )


def _action(b: Array, names: Sequence[str], place: Array) -> TimeProfile:
    sides = [
        (b[:, INDEX[n]], b[:, INDEX[n]]) if n in INDEX else (b[:, INDEX[n + "Left"]], b[:, INDEX[n + "Right"]])
        for n in names
    ]
    left = np.max([pair[0] for pair in sides], axis=0)
    right = np.max([pair[1] for pair in sides], axis=0)
    return time_profile((left + right) / 2, place, left - right)


def head_speed(angles: Array, times: Array) -> float:
    """Median speed of the head's rotation, degrees/s: 0 for fewer than two samples."""
    if len(angles) < 2:
        return 0.0
    steps = np.linalg.norm(np.diff(angles.astype(np.float64), axis=0), axis=1)
    return float(np.median(steps / np.maximum(np.diff(times), 1e-6)))


def people_at_once(faces_per_sample: Sequence[int]) -> int:
    """Number of people visible at the same time: reached on at least a quarter of the samples.

    Counting tracks would count a track that breaks twice; the maximum would count every false detection.
    """
    if not faces_per_sample:
        return 0
    return sorted(faces_per_sample, reverse=True)[(len(faces_per_sample) - 1) // 4]


def measure_picture(pixels: Array) -> Array:
    """[h, w, 3] RGB 0..255 -> [4]: brightness, contrast, warmth, colour, as `text.PictureStats` defines them."""
    rgb = pixels.astype(np.float64) / 255
    grey = luma(pixels)
    total = rgb.sum()
    warmth = (rgb[..., 0].sum() - rgb[..., 2].sum()) / total if total > 0 else 0.0
    colour = (rgb.max(-1) - rgb.min(-1)).mean()
    return np.array([grey.mean(), grey.std(), warmth, colour])


def luma(pixels: Array) -> Array:
    """[h, w, 3] RGB 0..255 -> [h, w] luma 0..1 (weights of ITU-R BT.601, as JPEG has them)."""
    return pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255


def summarise_pictures(pictures: Array, motion: Array, cut: float) -> PictureStats | None:
    """Summarise the pictures of a window.

    Args:
        pictures: [t, 4] from `measure_picture`.
        motion: [t] mean absolute change of luma since the sample before; NaN where there is none.
        cut: least change that counts as a cut.

    Returns:
        None where t is 0.
    """
    if not len(pictures):
        return None
    brightness, contrast, warmth, colour = (float(v) for v in np.median(pictures, axis=0))
    steps = motion[1:][np.isfinite(motion[1:])]  # the first change belongs to the window before
    return PictureStats(
        brightness=brightness,
        contrast=contrast,
        warmth=warmth,
        colour=colour,
        motion=float(np.median(steps)) if len(steps) else 0.0,
        cuts=int((steps >= cut).sum()),
    )


def measure_sound(
    wave: Array, rate: int, start_s: float, speech: Sequence[tuple[float, float]] | None, settings: Describer
) -> Sound:
    """Measure the sound of a window.

    Args:
        wave: [n] samples -1..1.
        rate: Hz.
        start_s: time of wave[0] in the video, s.
        speech: speech intervals (start, end) of the video, s, ascending; None where it was not detected for want of a
            model.
        settings: limits of pitch and syllables, section [describer].
    """
    sound = Sound(level_dbfs=level(wave))
    if speech is None:
        return sound
    length = len(wave) / rate
    spans = [(max(a - start_s, 0.0), min(b - start_s, length)) for a, b in speech]
    spans = [(a, b) for a, b in spans if b > a]
    if not spans:
        return replace(sound, speech_share=0.0)
    seconds = plain_sum(b - a for a, b in spans)
    pieces = [wave[round(a * rate) : round(b * rate)] for a, b in spans]
    tracks = [voice_track(piece, rate, settings) for piece in pieces]
    pitch = np.concatenate([t[0] for t in tracks])
    voiced = pitch[np.isfinite(pitch)]
    measured = replace(
        sound,
        speech_share=seconds / length,
        pause_s=max((b[0] - a[1] for a, b in pairwise(spans)), default=0.0),
        voice_dbfs=level(np.concatenate(pieces)),
        syllables_hz=sum(syllables(*track, settings.syllable_dip_db) for track in tracks) / seconds,
    )
    if len(voiced) < 10:  # a tenth of a second: too little for percentiles
        return measured
    low, median, high = np.percentile(voiced, [10, 50, 90])
    return replace(measured, pitch_hz=float(median), pitch_range=float(12 * np.log2(high / low)))


def relate(sounds: Sequence[Sound | None]) -> list[Sound | None]:
    """Sounds with loudness and pitch relative to the median over the video's windows with speech."""
    loud = [s.voice_dbfs for s in sounds if s is not None and s.voice_dbfs is not None]
    pitch = [s.pitch_hz for s in sounds if s is not None and s.pitch_hz is not None]

    def relative(s: Sound | None) -> Sound | None:
        if s is None:
            return None
        if len(loud) > 1 and s.voice_dbfs is not None:
            s = replace(s, louder_db=s.voice_dbfs - float(np.median(loud)))
        if len(pitch) > 1 and s.pitch_hz is not None:
            s = replace(s, higher=12 * math.log2(s.pitch_hz / float(np.median(pitch))))
        return s

    return [relative(s) for s in sounds]


def level(wave: Array) -> float:
    """Mean power, dB relative to full scale; `SILENCE_DBFS` for none."""
    power = float(np.mean(np.square(wave, dtype=np.float64))) if len(wave) else 0.0
    return max(10 * math.log10(power), SILENCE_DBFS) if power > 0 else SILENCE_DBFS


def voice_track(wave: Array, rate: int, settings: Describer) -> tuple[Array, Array]:
    """Pitch and intensity every 10 ms.

    Autocorrelation of the windowed sound over that of the window (Boersma 1993, "Accurate short-term analysis of the
    fundamental frequency and the harmonics-to-noise ratio of a sampled sound"), without its path finding: the shortest
    lag within a tenth of the best is taken, which guards against octave drops, and medians are used afterwards.

    Args:
        wave: [n] samples -1..1.
        rate: Hz.
        settings: range of pitch, least strength, and the level range of voiced frames, section [describer].

    Returns:
        [m] pitch in Hz, NaN where the sound is not voiced; [m] intensity, dB. m is 0 for less than one frame.
    """
    size, hop = round(FRAME_S * rate), round(HOP_S * rate)
    if len(wave) < size:
        return np.empty(0), np.empty(0)
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), size)[::hop]
    power = np.mean(frames**2, axis=1)
    intensity = 10 * np.log10(np.maximum(power, 10 ** (SILENCE_DBFS / 10)))
    taper = np.hanning(size)
    fft = 1 << (2 * size - 1).bit_length()
    spectrum = np.fft.rfft((frames - frames.mean(1, keepdims=True)) * taper, fft)
    auto = np.fft.irfft(np.abs(spectrum) ** 2, fft)[:, :size]
    taper_auto = np.fft.irfft(np.abs(np.fft.rfft(taper, fft)) ** 2, fft)[:size]
    first, last = math.ceil(rate / settings.pitch_ceiling_hz), math.floor(rate / settings.pitch_floor_hz)
    lags = slice(first - 1, last + 2)
    zero = np.maximum(auto[:, :1], 1e-12)
    r = auto[:, lags] / zero / (taper_auto[lags] / taper_auto[0])
    inner = r[:, 1:-1]
    peak = (inner >= r[:, :-2]) & (inner > r[:, 2:])
    strength = np.where(peak, inner, -1.0)
    best = strength.max(1)
    chosen = np.argmax(strength >= 0.9 * best[:, None], axis=1)
    rows = np.arange(len(r))
    a, b, c = r[rows, chosen], r[rows, chosen + 1], r[rows, chosen + 2]
    bend = a - 2 * b + c
    shift = np.where(np.abs(bend) > 1e-12, 0.5 * (a - c) / np.where(np.abs(bend) > 1e-12, bend, 1.0), 0.0)
    pitch = rate / (first + chosen + np.clip(shift, -0.5, 0.5))
    loud = intensity >= intensity.max() - settings.voiced_below_peak_db
    return np.where((best >= settings.pitch_strength) & loud, pitch, np.nan), intensity


def syllables(pitch: Array, intensity: Array, dip_db: float) -> int:
    """Number of syllable nuclei: voiced peaks of intensity with a dip of at least `dip_db` between them.

    After de Jong & Wempe 2009, "Praat script to detect syllable nuclei and measure speech rate automatically",
    with their dip of 2 dB as the default; intensity is smoothed over 50 ms.
    """
    if not len(intensity):
        return 0
    smooth = np.convolve(np.pad(intensity, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    count, low, high, high_at = 0, smooth[0], smooth[0], 0
    rising = True
    for i, value in enumerate(smooth):
        if rising:
            if value > high:
                high, high_at = value, i
            if value <= high - dip_db:
                count += bool(np.isfinite(pitch[max(high_at - 2, 0) : high_at + 3]).any())
                rising, low = False, value
        elif value < low:
            low = value
        elif value >= low + dip_db:
            rising, high, high_at = True, value, i
    return count + (rising and bool(np.isfinite(pitch[max(high_at - 2, 0) : high_at + 3]).any()))
