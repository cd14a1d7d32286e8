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
from pictures import waveform_of

from cer_pipeline.perception.asr import Span, Whisper, Word, chunks, in_window, spoken, without_loops
from cer_pipeline.profiles import load_profile
from cer_pipeline.zoo import Zoo


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


def test_neighbouring_speech_is_heard_together() -> None:
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
def test_no_loop_is_left_and_no_word_is_made_up(heard: str) -> None:
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
    assert text(spoken(words, [(0.0, 1.9)], 0.2)) == "one two three"
    assert text(spoken(words, [(0.0, 1.9)], 0.05)) == "one two"
    assert spoken(words, [], 0.2) == []


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


@pytest.fixture(scope="module")
def whisper(weights: Zoo) -> Whisper:
    settings = load_profile()["transcripts"]
    chosen = {name: settings[name] for name in ("compute_type", "beam_size", "no_speech", "log_probability")}
    return Whisper(weights.path("whisper_tiny_en"), **chosen)


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
def test_the_words_read_right_and_come_in_order(whisper: Whisper, media: Path, clip: str, heard: str) -> None:
    sound = waveform_of(media / clip)
    words = whisper(sound)
    assert heard in " ".join(re.findall(r"\w+", text(words).casefold()))
    starts = [word.start_s for word in words]
    assert starts == sorted(starts)
    assert all(0 <= word.start_s <= word.end_s <= len(sound) / 16_000 + 0.5 for word in words)
    assert whisper(sound) == words
