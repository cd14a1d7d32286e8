"""The sentences of the rule-based captioner name what is measured, and no emotion."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.perception.captions.rule_based.text import (
    ACTIONS,
    Face,
    Measurements,
    PictureStats,
    Sound,
    TimeProfile,
    describe,
)
from cer_pipeline.profiles import load_profile
from cer_pipeline.profiles.sections import Describer

S = Describer(**load_profile()["describer"])

# Stems of the labels, of their synonyms, and of words that name an expression instead of what moves.
EMOTION = re.compile(
    r"\b(neutral|ang(er|r)|rag(e|ing)|fur(y|ious)|annoy|irritat|mad\b|host|aggress|disgust|revol|repuls|contempt|fear"
    r"|afraid|scar(e|y)|fright|terr(or|if)|anx|worr|nerv|panic|happ|joy|glad|cheer|delight|amus|plea[st]|smil|grin"
    r"|laugh|giggl|sad|sorrow|grie|unhapp|depress|gloom|melanchol|cry|cries|weep|wept|sob|tear|surpris|astonish|amaz"
    r"|startl|shock|frown|scowl|grimac|sneer|pout|glare|tens|calm|relax|serious|excit|emotion|mood|feel|upset|distress"
    r"|hate|love|disappoint|bored|interest|confus|proud|pride|shame|guilt|express|other\b)",
    re.IGNORECASE,
)

unit = st.floats(0, 1)
signed = st.floats(-1, 1)
degrees = st.floats(-90, 90)


def courses(values: st.SearchStrategy[float]) -> st.SearchStrategy[TimeProfile]:
    part = st.none() | values
    return st.builds(TimeProfile, level=values, start=part, middle=part, end=part, asymmetry=signed, spread=unit)


faces = st.builds(
    Face,
    visible_share=unit,
    actions=st.dictionaries(st.sampled_from(list(ACTIONS)), courses(unit), max_size=4),
    gaze_side=courses(signed),
    gaze_up=courses(signed),
    yaw=courses(degrees),
    pitch=courses(degrees),
    roll=courses(degrees),
    head_speed=st.floats(0, 400),
    height=unit,
)
lights = st.builds(
    PictureStats,
    brightness=unit,
    contrast=st.floats(0, 0.5),
    warmth=signed,
    colour=unit,
    motion=unit,
    cuts=st.integers(0, 9),
)
sounds = st.builds(
    Sound,
    level_dbfs=st.floats(-120, 0),
    speech_share=st.none() | unit,
    pause_s=st.floats(0, 4),
    voice_dbfs=st.none() | st.floats(-120, 0),
    pitch_hz=st.none() | st.floats(60, 500),
    pitch_range=st.none() | st.floats(0, 40),
    syllables_hz=st.none() | st.floats(0, 20),
    louder_db=st.none() | st.floats(-40, 40),
    higher=st.none() | st.floats(-30, 30),
)
anything = st.builds(
    Measurements,
    people=st.none() | st.integers(0, 40),
    face=st.none() | faces,
    pictures=st.none() | lights,
    sound=st.none() | sounds,
)

REST = Face(
    visible_share=1.0,
    actions={name: TimeProfile(0.0, 0.0, 0.0, 0.0) for name in ACTIONS},
    gaze_side=TimeProfile(0.0, 0.0, 0.0, 0.0),
    gaze_up=TimeProfile(0.0, 0.0, 0.0, 0.0),
    yaw=TimeProfile(0.0, 0.0, 0.0, 0.0),
    pitch=TimeProfile(0.0, 0.0, 0.0, 0.0),
    roll=TimeProfile(0.0, 0.0, 0.0, 0.0),
    head_speed=10.0,
    height=0.6,
)
DAY = PictureStats(brightness=0.5, contrast=0.2, warmth=0.02, colour=0.3, motion=0.02)


def face(**actions: float | TimeProfile) -> Face:
    """A face at rest but for some actions."""
    given = {n: v if isinstance(v, TimeProfile) else TimeProfile(v, v, v, v) for n, v in actions.items()}
    return replace(REST, actions={**REST.actions, **given})


def text_of(f: Face, sound: Sound | None = None) -> str:
    return describe(Measurements(people=1, face=f, pictures=DAY, sound=sound), S)


def test_the_list_of_emotion_words_knows_the_labels_and_common_synonyms():
    for word in [*BASIC, *COMPOUND, "smile", "smiling", "frown", "crying", "worried", "terrified", "joyful", "tears"]:
        assert EMOTION.search(word), word
    for word in ["start", "steady", "tilted", "mouth", "another view", "raised", "share"]:
        assert not EMOTION.search(word), word


@settings(max_examples=150, deadline=None)
@given(anything)
def test_no_text_names_an_emotion_and_every_text_is_made_of_sentences(measured: Measurements):
    text = describe(measured, S)
    assert not EMOTION.search(text), text
    assert re.fullmatch(r"([A-Z][^.]*\.)( [A-Z][^.]*\.)*", text), text
    assert "  " not in text and " ," not in text and "{" not in text
    assert text == describe(measured, S)


def test_no_phrase_of_any_sign_names_an_emotion():
    for words in ACTIONS.values():
        assert not EMOTION.search(f"{words.state} {words.onset} {words.offset}")


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_action_above_its_threshold_is_named_with_its_degree_and_none_below(name: str):
    slight, clear = getattr(S, name)
    rest = text_of(REST)
    assert "at rest" in rest
    assert text_of(face(**{name: slight - 0.01})) == rest
    weak, strong = text_of(face(**{name: (slight + clear) / 2})), text_of(face(**{name: clear}))
    assert len({rest, weak, strong}) == 3
    assert "at rest" not in weak
    assert "slightly" in weak or "half" in weak
    assert "slightly" not in strong and "half" not in strong


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_onset_offset_and_peak_of_an_action_are_named(name: str):
    top = min(getattr(S, name)[1] + 0.2, 1.0)
    words = ACTIONS[name]
    assert words.onset in text_of(face(**{name: TimeProfile(top / 2, 0.0, top / 2, top)}))
    assert words.offset in text_of(face(**{name: TimeProfile(top / 2, top, top / 2, 0.0)}))
    passing = text_of(face(**{name: TimeProfile(0.0, 0.0, top, 0.0)}))
    assert f"Midway {words.onset} for a moment." in passing
    unseen = text_of(face(**{name: TimeProfile(top, None, top, top)}))
    assert "Over the window" not in unseen and "Midway" not in unseen


def test_a_face_at_rest_by_day_in_silence():
    silence = Sound(level_dbfs=-80.0)
    assert text_of(REST, silence) == (
        "One person is visible in a close-up. The brows, the eyes and the mouth are at rest. The sound is silent. "
        "The picture is of medium brightness."
    )


def test_lowered_brows_pressed_lips_a_turning_gaze_and_a_flat_voice():
    side = TimeProfile(0.2, 0.0, 0.2, 0.6)
    voice = Sound(
        level_dbfs=-30.0, speech_share=0.5, pause_s=1.4, voice_dbfs=-30.0, pitch_hz=110.0, pitch_range=2.0,
        syllables_hz=2.0, louder_db=-5.0, higher=0.0,
    )  # fmt: skip
    assert text_of(replace(face(brows_lowered=0.7, lips_pressed=0.6), gaze_side=side), voice) == (
        "One person is visible in a close-up. The brows are lowered and drawn together, and the lips are pressed "
        "together. Over the window the gaze turns away. A voice speaks part of the time; it is quieter than before or "
        "after, flat, and slow, with long pauses. The picture is of medium brightness."
    )


def test_raised_lip_corners_with_raised_cheeks_and_teeth():
    text = text_of(face(lip_corners_up=0.8, eyes_narrowed=0.4, upper_lip_raised=0.7))
    assert "The teeth show, the lip corners are pulled up and back, and the cheeks are raised." in text
    assert "cheeks" not in text_of(face(lip_corners_up=0.8, eyes_narrowed=0.1))
    assert "cheeks" not in text_of(face(eyes_narrowed=0.4))


def test_shut_eyes_over_closed_lips_do_not_make_raised_lip_corners():
    text = text_of(face(lip_corners_up=0.7, eyes_closed=0.8, eyes_narrowed=0.5))
    assert "the closed lips are drawn tight and wide" in text and "corners" not in text
    assert "lip corners are pulled up" in text_of(face(lip_corners_up=0.7, eyes_closed=0.8, upper_lip_raised=0.7))


def test_inner_brows_that_are_raised_and_lowered_at_once_are_one_sign():
    text = text_of(face(inner_brows_raised=0.8, brows_lowered=0.6))
    assert text.count("brows") == 1 and "raised and drawn together" in text


def test_a_face_that_is_hidden_at_times_is_reported():
    assert "part of the time the face is not visible" in text_of(replace(REST, visible_share=0.5))
    assert "not visible" not in text_of(REST)


def test_the_gaze_of_closed_eyes_is_not_reported():
    down = replace(face(eyes_closed=0.9), gaze_up=TimeProfile(-0.8, -0.8, -0.8, -0.8))
    assert "gaze" not in text_of(down)
    assert "The gaze is directed down." in text_of(replace(REST, gaze_up=TimeProfile(-0.8, -0.8, -0.8, -0.8)))


def test_a_moving_mouth_is_speech_only_where_somebody_speaks():
    moving = face(mouth_open=TimeProfile(0.1, 0.1, 0.1, 0.1, spread=0.1))
    assert "moves in speech" in text_of(moving, Sound(-30.0, speech_share=0.9, voice_dbfs=-30.0))
    assert "opens and closes" in text_of(moving, Sound(-30.0, speech_share=0.0))


def test_missing_parts_are_named_and_the_others_described():
    text = describe(Measurements(people=0, pictures=DAY, sound=Sound(-30.0, speech_share=0.0)), S)
    assert text.startswith("No face is visible. There is sound, but nobody speaks.")
    assert describe(Measurements(sound=Sound(-20.0, speech_share=1.0, voice_dbfs=-20.0)), S) == (
        "There is no picture. A voice speaks nearly all the time."
    )
    assert "There is no sound." in describe(Measurements(people=9, pictures=DAY), S)
    assert "Nine people are visible." in describe(Measurements(people=9, pictures=DAY), S)
