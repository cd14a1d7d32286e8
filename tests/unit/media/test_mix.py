"""How channels become one, on sounds made here."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cer_pipeline.media.mix import BLOCK, RAMP, MixAnalysis, base_weights

STEREO = ("FL", "FR")
FIVE_ONE = ("FL", "FR", "FC", "LFE", "SL", "SR")


def voice(seconds: float = 5.0, seed: int = 0) -> np.ndarray:
    """Noise with the amplitude modulation of syllables."""
    return modulated_noise(seconds, seed).copy()


@cache
def modulated_noise(seconds: float, seed: int) -> np.ndarray:
    n = round(seconds * 16_000)
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=n) * (0.2 + np.abs(np.sin(np.arange(n) * 2 * np.pi * 2 / 16_000)))).astype(np.float32)


def hum(seconds: float = 5.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 50 * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


def mixed(names, *channels, step=3_000):
    sound = np.stack(channels).astype(np.float32)
    analysis = MixAnalysis(names)
    for at in range(0, sound.shape[1], step):
        analysis.add(at, sound[:, at : at + step])
    chosen = analysis.mix()
    parts = [chosen.apply(at, sound[:, at : at + step]) for at in range(0, sound.shape[1], step)]
    return chosen.description, np.concatenate(parts)


def test_one_channel_is_taken_as_it_is():
    description, mix = mixed(("FC",), voice())
    assert description == "mono"
    np.testing.assert_array_equal(mix, voice())


def test_channels_that_agree_or_are_unrelated_are_averaged():
    for other in (voice(), 0.5 * voice(), voice(seed=1), np.roll(voice(), 160)):
        description, mix = mixed(STEREO, voice(), other)
        assert description == "mean of 2 channels"
        np.testing.assert_allclose(mix, (voice() + other) / 2, atol=1e-6)


@pytest.mark.parametrize("factor", [-1.0, -0.9, -0.7])
def test_where_channels_cancel_the_strongest_is_taken(factor):
    description, mix = mixed(STEREO, voice(), factor * voice())
    assert description == "channel 1 of 2 (the channels cancel)"
    np.testing.assert_array_equal(mix, voice())


def test_a_voice_that_cancels_below_a_common_hum_is_in_the_mix():
    description, mix = mixed(STEREO, voice() + hum(), hum() - voice())
    assert description == "channel 1 of 2 (the channels cancel)"
    np.testing.assert_allclose(mix, voice() + hum(), atol=1e-6)


def test_a_file_that_cancels_in_one_part_is_averaged_in_the_other():
    left, right = voice(10.0), voice(10.0)
    right[5 * BLOCK :] *= -1
    description, mix = mixed(STEREO, left, right)
    assert description == "mean of 2 channels; 5 of 10 s: channel 1 of 2 (the channels cancel)"
    np.testing.assert_allclose(mix[: 5 * BLOCK], left[: 5 * BLOCK], atol=1e-6)
    np.testing.assert_allclose(mix[5 * BLOCK + RAMP :], left[5 * BLOCK + RAMP :], atol=1e-6)


def test_mixes_are_cross_faded_without_a_step():
    tone = np.sin(2 * np.pi * 100 * np.arange(10 * BLOCK) / 16_000).astype(np.float32) + voice(10.0)
    left, right = tone, tone.copy()
    right[5 * BLOCK :] = -voice(10.0)[5 * BLOCK :] - 0.9 * tone[5 * BLOCK :]
    _, mix = mixed(STEREO, left, right, step=7_777)
    around = np.abs(np.diff(mix))[5 * BLOCK - 400 : 5 * BLOCK + 400]
    assert around.max() < 1.5 * np.abs(np.diff(left)).max()


def test_silent_channels_take_nothing_from_the_others():
    silence = np.zeros_like(voice())
    description, mix = mixed(STEREO, silence, voice())
    assert description == "channel 2 of 2 (the others are silent)"
    np.testing.assert_array_equal(mix, voice())
    description, mix = mixed(("NONE",) * 10, *[silence] * 9, voice())
    assert description == "channel 10 of 10 (the others are silent)"
    np.testing.assert_array_equal(mix, voice())
    description, _ = mixed(FIVE_ONE, voice(), voice(seed=1), voice(seed=2), silence, silence, silence)
    assert description == "mean of 3 of 6 channels (the others are silent)"


def test_one_voice_among_many_noisy_channels_is_not_buried():
    noise = [0.01 * voice(seed=k) for k in range(1, 10)]
    description, mix = mixed(("NONE",) * 10, *noise, voice())
    assert description == "channel 10 of 10 (the mean buries it)"
    np.testing.assert_array_equal(mix, voice())


def test_surround_sound_is_mixed_as_ffmpeg_mixes_it():
    channels = [voice(seed=k) for k in range(6)]
    description, mix = mixed(FIVE_ONE, *channels)
    assert description == "mean of 6 channels"
    weights = np.array([0.5**0.5, 0.5**0.5, 1.0, 0.0, 0.5, 0.5])
    np.testing.assert_allclose(mix, weights @ np.stack(channels) / weights.sum(), atol=1e-6)


def test_a_voice_on_the_channel_of_the_subwoofer_is_in_the_mix():
    quiet = [0.001 * voice(seed=k) for k in range(6)]
    description, mix = mixed(FIVE_ONE, *quiet[:3], voice(), *quiet[3:5])
    assert description.startswith("channel 4 of 6")
    np.testing.assert_array_equal(mix, voice())


def test_silence_is_silence():
    description, mix = mixed(STEREO, np.zeros(BLOCK), np.zeros(BLOCK))
    assert (description, float(np.abs(mix).max())) == ("mean of 2 channels", 0.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(100, 40_000), st.sampled_from([1.0, -1.0, 0.3]))
@example(step=7, factor=-1.0)
def test_the_mix_does_not_depend_on_how_the_sound_is_cut(step, factor):
    left, right = voice(3.0), factor * voice(3.0)
    right[BLOCK : 2 * BLOCK] = voice(3.0)[BLOCK : 2 * BLOCK]
    description, mix = mixed(STEREO, left, right, step=step)
    again, whole = mixed(STEREO, left, right, step=3 * BLOCK)
    assert description == again
    np.testing.assert_allclose(mix, whole, atol=1e-6)


@given(st.lists(st.tuples(st.sampled_from([*FIVE_ONE, "NONE", "TBR"]), st.booleans()), min_size=1, max_size=12))
def test_weights_are_shares(channels):
    weights = base_weights([name for name, _ in channels], np.array([audible for _, audible in channels]))
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
