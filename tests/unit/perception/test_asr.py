"""Words: chunks, guards, windows on made-up words; and the words that are heard in real clips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.perception.speech.asr import (
    Transcribed,
    Whisper,
    Word,
    chunks,
    in_window,
    transcribed,
    window_row,
    within_speech,
    without_loops,
)
from cer_pipeline.perception.speech.language import Rules, Span, Stretch
from cer_pipeline.profiles import load_profile
from cer_pipeline.status import Status
from cer_pipeline.zoo import Zoo
from tests.helpers.pictures import waveform_of

TINY, BASE = "whisper_tiny_en", "whisper_base"
SETTINGS = load_profile()["transcripts"]
RULES = Rules(
    sure=SETTINGS["language_sure"],
    least=SETTINGS["language_least"],
    words=SETTINGS["word_probability"],
    compression=SETTINGS["compression"],
)


def said(text: str, start_s: float = 0.0, pace_s: float = 0.5) -> list[Word]:
    """One word every `pace_s` seconds."""
    return [
        Word(f" {word}", start_s + i * pace_s, start_s + (i + 1) * pace_s, 0.9) for i, word in enumerate(text.split())
    ]


def text(words: Sequence[Word]) -> str:
    return "".join(word.word for word in words).strip()


@st.composite
def speech(draw: st.DrawFn) -> list[Span]:
    spans, now = [], 0.0
    for silence, length in draw(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 28)), max_size=10)):
        spans.append((now + silence, now + silence + length))
        now = spans[-1][1]
    return spans


@given(speech())
def test_chunks_hold_all_speech_fit_the_recogniser_and_hold_no_long_silence(spans: list[Span]) -> None:
    found = chunks(spans, 29.5, 2.0)
    assert all(end - start <= 29.5 for start, end in found)
    assert all(any(a <= start and end <= b for a, b in found) for start, end in spans)
    for a, b in found:
        inside = [s for s in spans if a <= s[0] and s[1] <= b]
        assert all(start - end <= 2.0 for (_, end), (start, _) in pairwise(inside))


def test_neighbouring_speech_makes_one_chunk() -> None:
    assert chunks([(0, 2), (3, 5), (9, 10)], 29.5, 2.0) == [(0, 5), (9, 10)]


@pytest.mark.parametrize(
    ("heard", "kept"),
    [
        ("very very very good", "very very very good"),
        ("very very very very very good", "very very very good"),
        ("thank you. Thank you! thank you thank you, bye", "thank you. Thank you! thank you bye"),
        ("a b a b c", "a b a b c"),
        ("", ""),
    ],
)
def test_a_phrase_in_a_loop_is_cut_to_its_first_three(heard: str, kept: str) -> None:
    assert text(without_loops(said(heard), 6, 3)) == kept


@given(st.lists(st.sampled_from("ab"), max_size=30).map(" ".join))
def test_no_loop_is_left_and_no_word_is_added(heard: str) -> None:
    words = said(heard)
    kept = without_loops(words, 4, 2)
    plain = text(kept).split()
    for n in range(1, 5):
        for i in range(len(plain) - 3 * n + 1):
            assert not plain[i : i + n] == plain[i + n : i + 2 * n] == plain[i + 2 * n : i + 3 * n]
    remaining = iter(words)
    assert all(word in remaining for word in kept)


def test_words_outside_speech_are_dropped() -> None:
    words = said("one two three", pace_s=1.0)
    assert text(within_speech(words, [(0.0, 1.9)], 0.2)) == "one two three"
    assert text(within_speech(words, [(0.0, 1.9)], 0.05)) == "one two"
    assert within_speech(words, [], 0.2) == []


@given(st.lists(st.tuples(st.floats(0, 11), st.floats(0, 1)), max_size=10), st.floats(4.1, 11))
def test_every_word_stands_in_every_window_that_holds_its_middle(times: list[tuple[float, float]], d: float) -> None:
    words = [Word(" x", start, start + length, 1) for start, length in times]
    count = int(np.ceil((d - 4) / 2)) + 1
    windows = [(2.0 * i, min(2.0 * i + 4, d)) for i in range(count)]
    held = [in_window(words, window, i == count - 1) for i, window in enumerate(windows)]
    for word in words:
        assert 1 <= sum(word in h for h in held) <= 2
    for window, h in zip(windows[:-1], held[:-1], strict=True):
        assert h == [w for w in words if window[0] <= w.middle_s < window[1]]


def spell(start_s: float, end_s: float, english: float, other: str = "de") -> Stretch:
    return Stretch(((start_s, end_s),), {"en": english, other: 1 - english})


def test_speech_of_another_language_is_not_english_and_has_no_words() -> None:
    found = transcribed(spell(0, 4, 0.01), "", [], RULES, TINY)
    assert (found.status, found.language, found.words) == (Status.NOT_ENGLISH, "de", [])
    assert found.reason == (
        "the language is another one (de 0.99, English 0.01), and whisper_tiny_en knows English only"
    )


def test_doubtful_words_say_which_language_they_are_likelier() -> None:
    doubtful = [Word(" thanks", 0, 1, 0.4)]
    other = transcribed(spell(0, 4, 0.3), "en", doubtful, RULES, TINY)
    assert (other.status, other.words) == (Status.NOT_ENGLISH, [])
    unsure = transcribed(spell(0, 4, 0.7), "en", doubtful, RULES, TINY)
    assert (unsure.status, unsure.words) == (Status.EMPTY_TRANSCRIPT, [])
    assert unsure.reason == "the words are not believed: mean probability 0.40, language English 0.70"
    silent = transcribed(spell(0, 4, 0.3), "en", [], RULES, TINY)
    assert (silent.status, silent.language) == (Status.NOT_ENGLISH, "de")
    assert transcribed(spell(0, 4, 0.7), "en", [], RULES, TINY).status == Status.EMPTY_TRANSCRIPT


def test_a_recogniser_of_all_languages_keeps_sure_words_of_each() -> None:
    found = transcribed(spell(0, 4, 0.01), "de", said("ich bin traurig"), RULES, BASE)
    assert (found.status, found.language, text(found.words)) == (Status.OK, "de", "ich bin traurig")


def test_the_words_of_a_window_are_of_one_language() -> None:
    english = Transcribed(spell(0, 3, 0.99), "en", said("I am so sad", 0, 0.7))
    german = transcribed(spell(4, 8, 0.02), "", [], RULES, TINY)
    first, both, last = (
        window_row([english, german], window, i == 2) for i, window in enumerate([(0, 4), (2, 6), (4, 8)])
    )
    assert first is not None and both is not None and last is not None
    assert (first["status"], first["text"], first["language"]) == ("ok", "I am so sad", "en")
    assert first["english"] == pytest.approx(0.99)
    assert (both["status"], both["text"], both["language"]) == ("ok", "sad", "en")
    assert both["english"] == pytest.approx((1 * 0.99 + 2 * 0.02) / 3)
    assert (last["status"], last["language"]) == ("not_english", "de")
    assert "text" not in last


def test_without_words_the_stretch_with_most_speech_gives_the_reason() -> None:
    short = transcribed(spell(0, 1, 0.99), "en", [], RULES, TINY)
    long = transcribed(spell(1.5, 4, 0.01, "fr"), "", [], RULES, TINY)
    row = window_row([short, long], (0, 4), True)
    assert row is not None
    assert (row["status"], row["language"]) == ("not_english", "fr")
    row = window_row([short, long], (0, 2), False)
    assert row is not None
    assert (row["status"], row["reason"]) == ("empty_transcript", "speech was heard, but no word recognised")


def test_a_window_without_speech_is_left_to_the_reason_of_the_sound() -> None:
    assert window_row([Transcribed(spell(0, 3, 1), "en", said("one"))], (4, 8), True) is None
    assert window_row([], (0, 4), True) is None


def test_a_window_in_two_written_languages_has_the_words_of_the_longer() -> None:
    french = Transcribed(spell(0, 1, 0.0, "fr"), "fr", said("bonjour", 0, 1))
    english = Transcribed(spell(1, 4, 1.0), "en", said("how are you", 1, 1))
    row = window_row([french, english], (0, 4), True)
    assert row is not None
    assert (row["language"], row["text"]) == ("en", "how are you")


def load(weights: Zoo, model: str) -> Whisper:
    chosen = {name: SETTINGS[name] for name in ("compute_type", "beam_size", "no_speech", "log_probability")}
    return Whisper(weights.path(model), **chosen)


@pytest.fixture(scope="module")
def whisper(weights: Zoo) -> Whisper:
    return load(weights, TINY)


@pytest.fixture(scope="module")
def detector(weights: Zoo) -> Whisper:
    return load(weights, BASE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "heard"),
    [
        ("talking_1.mp4", "asking for help when i need it i d like to do better at that"),
        ("talking_2.mp4", "heart of my california congressional district"),
        ("talking_3.mp4", "everyone here today endeavoring towards a better more just future for our"),
        ("talking_4.mp4", "it represents the european central bank and it symbolizes the value of bank notes"),
        ("talking_5.mp4", "bringing in reforms to tighten that regulation and this latest crisis"),
        ("obama_speech.mp4", "today after two years of negotiations the united states together"),
    ],
)
def test_the_words_are_right_and_in_order(whisper: Whisper, media: Path, clip: str, heard: str) -> None:
    sound = waveform_of(media / clip)
    words = whisper(sound)
    assert heard in " ".join(re.findall(r"\w+", text(words).casefold()))
    starts = [word.start_s for word in words]
    assert starts == sorted(starts)
    assert all(0 <= word.start_s <= word.end_s <= len(sound) / 16_000 + 0.5 for word in words)
    assert whisper(sound) == words


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["obama_speech.mp4", "speaker_a.mp4", "talking_1.mp4", "talking_4.mp4"])
def test_english_is_recognised_and_the_same_sound_backwards_has_no_plausible_word(
    whisper: Whisper, detector: Whisper, media: Path, clip: str
) -> None:
    sound = waveform_of(media / clip)[: 5 * 16_000]
    heard = Stretch(((0, 5),), detector.languages(sound))
    assert heard.likeliest == "en"
    assert transcribed(heard, "en", whisper(sound), RULES, TINY).status == Status.OK
    backwards = np.ascontiguousarray(sound[::-1])  # speech of no language
    heard = Stretch(((0, 5),), detector.languages(backwards))
    assert sum(heard.languages.values()) == pytest.approx(1, abs=0.01)
    assert heard.probability("en") < RULES.sure
    assert transcribed(heard, "en", whisper(backwards), RULES, TINY).words == []


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["26_german", "26b_french", "26c_spanish"])
def test_speech_of_another_language_has_no_plausible_word(
    whisper: Whisper, detector: Whisper, media: Path, clip: str
) -> None:
    spoken_by_a_program = media.parents[1] / "cases" / "08-not-english" / "input" / f"{clip}.mp4"
    if not spoken_by_a_program.is_file():
        pytest.skip(f"no speech of another language: {spoken_by_a_program} does not exist")
    sound = waveform_of(spoken_by_a_program)[: 5 * 16_000]
    heard = Stretch(((0, 5),), detector.languages(sound))
    assert heard.likeliest != "en"
    found = transcribed(heard, "en", whisper(sound), RULES, TINY)
    assert (found.status, found.words) == (Status.NOT_ENGLISH, [])
