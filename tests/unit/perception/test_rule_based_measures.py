"""The measurements of the rule-based captioner against signals whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.perception.captions.rule_based import measures as m
from cer_pipeline.perception.captions.rule_based.text import ACTIONS, Sound
from cer_pipeline.perception.faces.blendshapes import BLENDSHAPES, INDEX
from cer_pipeline.profiles import load_profile
from cer_pipeline.profiles.sections import Describer

RATE = 16000
SECTION = load_profile()["describer"]
VOICE = Describer(**SECTION)


def test_every_sign_is_measured_by_blendshapes_that_exist():
    assert list(m.ACTION_BLENDSHAPES) == list(ACTIONS)
    for names in m.ACTION_BLENDSHAPES.values():
        for name in names:
            assert name in INDEX or {name + "Left", name + "Right"} <= set(BLENDSHAPES)


def test_course_takes_medians_of_thirds_by_place_in_the_window_not_by_count():
    values = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    place = np.array([0.0, 0.1, 0.2, 0.7, 0.95])
    course = m.time_profile(values, place)
    assert (course.start, course.middle, course.end) == (0.1, None, pytest.approx(0.95))
    assert course.level == 0.2
    assert course.change == pytest.approx(0.85)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=40))
def test_every_sample_falls_in_exactly_one_third(values: list[float]):
    n = len(values)
    parts: list[list[float]] = [[], [], []]
    for k, value in enumerate(values):
        parts[3 * k // n].append(value)
    course = m.time_profile(np.array(values), np.arange(n) / n)
    assert [course.start, course.middle, course.end] == [float(np.median(part)) for part in parts]


def test_a_face_is_measured_on_both_sides_and_its_asymmetry_has_the_sign_of_the_stronger():
    b = np.zeros((4, 52))
    b[:, INDEX["mouthSmileLeft"]] = 0.8
    b[:, INDEX["mouthSmileRight"]] = 0.2
    b[:, INDEX["jawOpen"]] = 0.3
    b[:, INDEX["mouthRollUpper"]] = 0.4
    b[:, INDEX["eyeLookOutLeft"]] = b[:, INDEX["eyeLookInRight"]] = 0.6  # both eyes to the person's left
    b[:, INDEX["eyeLookDownLeft"]] = b[:, INDEX["eyeLookDownRight"]] = 0.5
    angles = np.array([[0, 0, 0], [3, 0, 0], [6, 4, 0], [9, 4, 0]])
    times = np.arange(4) / 5
    face = m.measure_face(b, angles, np.full(4, 0.3), times, np.arange(4) / 4, samples=8)
    assert face is not None
    assert face.actions["lip_corners_up"].level == pytest.approx(0.5)
    assert face.actions["lip_corners_up"].asymmetry == pytest.approx(0.6)
    assert face.actions["mouth_open"].level == pytest.approx(0.3)
    assert face.actions["lips_drawn_in"].level == pytest.approx(0.4)
    assert face.gaze_side.level == pytest.approx(0.6)
    assert face.gaze_up.level == pytest.approx(-0.5)
    assert face.head_speed == pytest.approx(15.0)  # steps of 3, 5 and 3 degrees in 0.2 s
    assert face.visible_share == 0.5
    assert m.measure_face(b[:0], angles[:0], np.empty(0), times[:0], np.empty(0), 8) is None


@pytest.mark.parametrize(
    ("counts", "people"),
    [([], 0), ([0, 0, 0, 0], 0), ([1] * 20, 1), ([1] * 19 + [2], 1), ([1] * 12 + [2] * 8, 2), ([0] * 15 + [3] * 5, 3)],
)
def test_people_are_those_seen_at_once_on_a_quarter_of_the_samples(counts: list[int], people: int):
    assert m.people_at_once(counts) == people


def test_the_light_of_plain_pictures():
    grey = np.full((18, 32, 3), 128, np.uint8)
    assert m.measure_picture(grey) == pytest.approx([128 / 255, 0, 0, 0])
    red = np.zeros((18, 32, 3), np.uint8)
    red[..., 0] = 255
    assert m.measure_picture(red) == pytest.approx([0.299, 0, 1, 1])
    assert m.measure_picture(np.zeros((18, 32, 3), np.uint8)) == pytest.approx([0, 0, 0, 0])
    looks = np.stack([m.measure_picture(grey)] * 4)
    light = m.summarise_pictures(looks, np.array([0.9, 0.01, 0.02, 0.5]), cut=0.2)
    assert light is not None
    assert light.motion == pytest.approx(0.02)
    assert light.cuts == 1  # the step into the window is not its own
    assert m.summarise_pictures(np.empty((0, 4)), np.empty(0), 0.2) is None


def tone(hz: float, seconds: float, harmonics: int = 5) -> np.ndarray:
    """A tone with harmonics of falling strength."""
    t = np.arange(round(seconds * RATE)) / RATE
    parts = np.stack([np.sin(2 * np.pi * hz * k * t) / k for k in range(1, harmonics + 1)])
    return (0.1 * parts.sum(0)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.floats(70, 430), st.integers(1, 8))
def test_pitch_of_harmonic_tones_is_right_to_half_a_percent(hz: float, harmonics: int):
    pitch, _ = m.voice_track(tone(hz, 0.3, harmonics), RATE, VOICE)
    assert np.isfinite(pitch).all()
    assert np.abs(pitch / hz - 1).max() < 0.005


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    pitch, _ = m.voice_track(noise, RATE, VOICE)
    assert np.isfinite(pitch).mean() < 0.05
    pitch, intensity = m.voice_track(np.zeros(RATE, np.float32), RATE, VOICE)
    assert not np.isfinite(pitch).any()
    assert (intensity == m.SILENCE_DBFS).all()
    assert m.voice_track(np.zeros(100, np.float32), RATE, VOICE)[0].size == 0


@pytest.mark.parametrize("rate_hz", [2, 4, 6])
def test_syllables_are_voiced_swells(rate_hz: int):
    t = np.arange(2 * RATE) / RATE
    swells = (tone(150, 2.0) * (0.55 - 0.45 * np.cos(2 * np.pi * rate_hz * t))).astype(np.float32)
    assert m.syllables(*m.voice_track(swells, RATE, VOICE), VOICE.syllable_dip_db) == 2 * rate_hz
    noise = np.random.default_rng(0).normal(0, 0.1, len(t)) * (0.55 - 0.45 * np.cos(2 * np.pi * rate_hz * t))
    assert m.syllables(*m.voice_track(noise.astype(np.float32), RATE, VOICE), VOICE.syllable_dip_db) <= 1


def test_the_level_of_a_sine_is_3_db_below_its_peak():
    assert m.level(np.sin(np.arange(RATE) / 5)) == pytest.approx(-10 * math.log10(2), abs=0.01)
    assert m.level(np.zeros(10)) == m.level(np.empty(0)) == m.SILENCE_DBFS


def test_a_window_of_sound_is_measured_inside_its_speech():
    wave = np.concatenate([tone(120, 1.0), np.zeros(RATE, np.float32), tone(120, 1.0), 0.001 * tone(300, 1.0)])
    sound = m.measure_sound(wave, RATE, 10.0, [(9.0, 11.0), (12.0, 13.0), (20.0, 21.0)], VOICE)
    assert sound.speech_share == pytest.approx(0.5)
    assert sound.pause_s == pytest.approx(1.0)
    assert sound.pitch_hz == pytest.approx(120, rel=0.005)
    assert sound.pitch_range == pytest.approx(0, abs=0.2)
    assert sound.voice_dbfs == pytest.approx(m.level(tone(120, 1.0)), abs=0.1)
    assert m.measure_sound(wave, RATE, 10.0, [], VOICE).speech_share == 0.0
    assert m.measure_sound(wave, RATE, 10.0, None, VOICE).speech_share is None


def test_windows_are_compared_with_the_median_window_of_their_video():
    def voice(db: float, hz: float | None) -> Sound:
        return Sound(level_dbfs=db, speech_share=1.0, voice_dbfs=db, pitch_hz=hz)

    sounds = [voice(-30, 100), None, voice(-20, 200), voice(-30, None), Sound(level_dbfs=-90)]
    a, none, b, c, silent = m.relate(sounds)
    assert none is None
    assert a is not None and b is not None and c is not None and silent is not None
    assert (a.louder_db, b.louder_db, c.louder_db, silent.louder_db) == (0, 10, 0, None)
    assert a.higher == pytest.approx(12 * math.log2(100 / 150))
    assert c.higher is None
    assert m.relate([voice(-20, 100)])[0] == voice(-20, 100)  # nothing to compare with
