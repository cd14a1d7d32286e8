"""Speech intervals: the rules on made-up probabilities, what always holds, and real sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.perception.speech.vad import (
    STEP_S,
    Interval,
    Loudness,
    Rules,
    SileroVad,
    amplified,
    intervals,
    loud_level,
)
from cer_pipeline.profiles import load_profile
from cer_pipeline.zoo import Zoo
from tests.helpers.pictures import waveform_of

RULES = Rules(threshold=0.5, release=0.35, min_speech_s=0.25, min_silence_s=0.1, max_speech_s=28, pad_s=0.0)
probabilities = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), max_size=200)
rules = st.builds(
    Rules,
    threshold=st.just(0.5),
    release=st.sampled_from([0.3, 0.5]),
    min_speech_s=st.sampled_from([0.0, 0.25]),
    min_silence_s=st.sampled_from([0.05, 0.3]),
    max_speech_s=st.sampled_from([0.5, 2.0]),
    pad_s=st.sampled_from([0.0, 0.03, 1.0]),
)


def heard(*parts: tuple[float, int]) -> list[float]:
    """Probabilities from (value, steps) pairs."""
    return [value for value, steps in parts for _ in range(steps)]


def steps(found: list[Interval]) -> list[tuple[int, int]]:
    return [(round(i.start_s / STEP_S), round(i.end_s / STEP_S)) for i in found]


def find(p: list[float], **changes: float) -> list[tuple[int, int]]:
    return steps(intervals(p, len(p) * STEP_S, Rules(**(vars(RULES) | changes))))


def test_speech_lasts_from_the_threshold_to_the_release() -> None:
    assert find(heard((0.4, 5), (0.6, 10), (0.4, 10), (0.1, 10))) == [(5, 25)]


def test_a_short_silence_does_not_end_speech_and_a_long_one_does() -> None:
    assert find(heard((1, 10), (0, 3), (1, 10))) == [(0, 23)]
    assert find(heard((1, 10), (0, 4), (1, 10))) == [(0, 10), (14, 24)]


def test_a_click_is_no_speech() -> None:
    assert find(heard((0, 10), (1, 7), (0, 10))) == []
    assert find(heard((0, 10), (1, 8), (0, 10))) == [(10, 18)]


def test_long_speech_is_cut_where_it_is_least_probable() -> None:
    p = heard((1, 25), (0.6, 1), (1, 20))
    assert find(p, max_speech_s=32 * STEP_S) == [(0, 25), (25, 46)]


def test_padding_stops_at_the_ends_of_the_sound_and_at_the_neighbour() -> None:
    found = intervals(heard((1, 10), (0, 4), (1, 10)), 24 * STEP_S, Rules(**(vars(RULES) | {"pad_s": 0.1})))
    assert steps(found) == [(0, 12), (12, 24)]


def test_the_score_is_the_mean_probability() -> None:
    (found,) = intervals(heard((1, 10), (0.5, 10)), 1, RULES)
    assert found.score == pytest.approx(0.75)


@given(probabilities, rules)
def test_intervals_are_ordered_disjoint_inside_the_sound_and_of_lawful_length(p: list[float], rule: Rules) -> None:
    duration = len(p) * STEP_S
    found = intervals(p, duration, rule)
    edges = [edge for i in found for edge in (i.start_s, i.end_s)]
    assert edges == sorted(edges)
    assert all(0 <= i.start_s < i.end_s <= duration + 1e-9 for i in found)
    assert all(i.end_s - i.start_s <= rule.max_speech_s + 2 * rule.pad_s + 1e-9 for i in found)
    assert all(0 <= i.score <= 1 for i in found)


@given(probabilities)
def test_every_step_of_speech_that_lasts_is_in_an_interval(p: list[float]) -> None:
    found = steps(intervals(p, len(p) * STEP_S, RULES))
    run = 0
    for i, value in enumerate([*p, 0.0]):
        if value >= 0.5:
            run += 1
            continue
        if run * STEP_S >= RULES.min_speech_s:
            assert any(start <= i - run and i <= end for start, end in found)
        run = 0


QUIET = Loudness(level_dbfs=-35.0, gain_db=40.0)


def noise(seconds: float, level_dbfs: float) -> np.ndarray:
    sound = np.random.default_rng(0).normal(size=round(seconds * 16_000))
    return (sound * 10 ** (level_dbfs / 20)).astype(np.float32)


@given(st.floats(0.01, 12), st.floats(-90, -10))
def test_the_level_is_that_of_steady_sound(seconds: float, level_dbfs: float) -> None:
    sound = np.full(round(seconds * 16_000), 10 ** (level_dbfs / 20), np.float32)
    assert 20 * np.log10(loud_level(sound)) == pytest.approx(level_dbfs, abs=0.01)


def test_neither_clicks_nor_pauses_move_the_level() -> None:
    speech = noise(8, -40)
    clicked = speech.copy()
    clicked[5000:5400] = 0.9
    assert loud_level(clicked) == pytest.approx(loud_level(speech), rel=0.03)
    with_pauses = np.concatenate([np.zeros(60 * 16_000, np.float32), speech, np.zeros(60 * 16_000, np.float32)])
    assert loud_level(with_pauses) == pytest.approx(loud_level(speech), rel=0.03)


@given(st.floats(-110, -5))
def test_quiet_sound_is_brought_to_the_level_by_at_most_the_gain_and_loud_sound_stays(level_dbfs: float) -> None:
    sound = noise(2, level_dbfs)
    before = 20 * np.log10(loud_level(sound))
    after = 20 * np.log10(loud_level(amplified(sound, QUIET)))
    assert after == pytest.approx(max(before, min(QUIET.level_dbfs, before + QUIET.gain_db)), abs=0.01)
    if before >= QUIET.level_dbfs:
        assert amplified(sound, QUIET) is sound


@pytest.mark.parametrize("samples", [0, 1, 319, 16_000])
def test_silence_stays_silence(samples: int) -> None:
    silence = np.zeros(samples, np.float32)
    assert np.array_equal(amplified(silence, QUIET), silence)


def test_a_loud_moment_in_quiet_sound_is_clipped_and_does_not_wrap() -> None:
    sound = noise(4, -60)
    sound[100:200] = 0.9
    assert np.abs(amplified(sound, QUIET)).max() == 1


@pytest.fixture(scope="module")
def vad(weights: Zoo) -> SileroVad:
    return SileroVad(weights.path("silero_vad"))


def listen(vad: SileroVad, clip: Path) -> list[Interval]:
    sound = waveform_of(clip)
    return intervals(vad(sound), len(sound) / 16_000, Rules(**load_profile()["speech"]))


@pytest.mark.parametrize("clip", ["small.mp4", "single_face.mp4", "nine_faces.mp4"])
def test_clips_without_speech_have_no_interval(vad: SileroVad, media: Path, clip: str) -> None:
    assert listen(vad, media / clip) == []


def test_speech_is_detected_and_its_pause_is_not(vad: SileroVad, media: Path) -> None:
    found = listen(vad, media / "talking_1.mp4")
    assert found[0].start_s < 0.3
    assert not any(i.start_s < 3.0 < i.end_s for i in found)  # she pauses from 2.6 to 3.4 s
    assert sum(i.end_s - i.start_s for i in found) > 3


def test_the_network_keeps_its_state_over_the_sound(vad: SileroVad, media: Path) -> None:
    sound = waveform_of(media / "obama_speech.mp4")
    late = 4 * 16_000 // 512
    assert not np.array_equal(vad(sound)[late:], vad(sound[late * 512 :]))
    assert np.array_equal(vad(sound), vad(sound))


def stored(sound: np.ndarray, change_db: float) -> np.ndarray:
    """The sound at another level as 16-bit FLAC keeps it."""
    return (np.round(sound * 10 ** (change_db / 20) * 32767) / 32767).astype(np.float32)


def spoken_s(vad: SileroVad, sound: np.ndarray) -> float:
    settings = load_profile()
    loud = amplified(sound, Loudness(**settings["loudness"]))
    found = intervals(vad(loud), len(sound) / 16_000, Rules(**settings["speech"]))
    return sum(i.end_s - i.start_s for i in found)


@pytest.mark.parametrize("clip", ["obama_speech.mp4", "talking_1.mp4"])
def test_speech_is_detected_at_any_level(vad: SileroVad, media: Path, clip: str) -> None:
    sound = waveform_of(media / clip)
    usual = spoken_s(vad, sound)
    for change_db in (-30, -40, -50):
        assert spoken_s(vad, stored(sound, change_db)) == pytest.approx(usual, rel=0.05), change_db


@pytest.mark.parametrize("level_dbfs", [-20, -40, -60, -80])
def test_noise_hum_and_chords_are_no_speech_at_any_level(vad: SileroVad, level_dbfs: float) -> None:
    t = np.arange(4 * 16_000) / 16_000
    brown = np.cumsum(np.random.default_rng(1).normal(size=len(t)))
    sounds = {
        "white noise": np.random.default_rng(0).normal(size=len(t)),
        "brown noise": brown - brown.mean(),
        "hum": sum(np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 3, 5)),
        "chords": sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) * np.exp(-3 * (t % 1)),
    }
    for name, sound in sounds.items():
        quiet = (sound / np.sqrt(np.mean(np.square(sound)))).astype(np.float32)
        assert spoken_s(vad, stored(np.clip(quiet * 0.3, -1, 1), level_dbfs + 10)) == 0, name
