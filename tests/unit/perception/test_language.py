"""Which language is spoken: parts of speech, and when words are believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.perception.speech.language import Rules, Span, Stretch, compression, plausible, stretches
from cer_pipeline.profiles import load_profile

SETTINGS = load_profile()["transcripts"]
RULES = Rules(
    sure=SETTINGS["language_sure"],
    least=SETTINGS["language_least"],
    words=SETTINGS["word_probability"],
    compression=SETTINGS["compression"],
)
SURE = [(word, 0.9) for word in ["", "asking", "for", "help", "when", "I", "need", "it"]]


@st.composite
def speech(draw: st.DrawFn) -> list[Span]:
    spans, now = [], draw(st.floats(0, 100))
    for silence, length in draw(st.lists(st.tuples(st.floats(0, 2), st.floats(0.25, 12)), min_size=1, max_size=8)):
        spans.append((now + silence, now + silence + length))
        now = spans[-1][1]
    return spans


@given(speech(), st.floats(1, 15))
def test_the_parts_hold_all_speech_once_and_in_order(spans: list[Span], longest: float) -> None:
    assert [span for part in stretches(spans, longest) for span in part] == spans


LONGEST_SILENCE_S = 2.0  # in `speech`


@given(speech(), st.floats(1, 15))
def test_a_part_is_hardly_longer_than_asked_unless_it_is_one_interval(spans: list[Span], longest: float) -> None:
    for part in stretches(spans, longest):
        lengths = [end - start for start, end in part]
        # The middle of each interval lies in the part; the first and the last may reach out by half of themselves. A
        # short part may have joined on either side, across a silence.
        outside, joined = (lengths[0] + lengths[-1]) / 2, 2 * (longest / 2 + LONGEST_SILENCE_S)
        most = lengths[0] if len(part) == 1 else max(longest, *lengths) + outside + joined
        assert part[-1][1] - part[0][0] <= most + 1e-6


def test_a_first_word_joins_the_sentence_after_it() -> None:
    assert stretches([(0.1, 1.0), (1.2, 6.6)], 5) == [((0.1, 1.0), (1.2, 6.6))]
    assert stretches([(0.0, 6.0), (6.5, 7.0), (9.0, 15.0)], 5) == [((0.0, 6.0), (6.5, 7.0)), ((9.0, 15.0),)]


def test_speech_is_cut_into_equal_parts_and_none_is_a_scrap() -> None:
    words = [(float(k), k + 0.9) for k in range(11)]
    assert [len(part) for part in stretches(words, 5)] == [4, 3, 4]


def test_the_overlap_counts_speech_and_not_the_silence_between() -> None:
    stretch = Stretch(((0, 1), (2, 4)), {"en": 1.0})
    assert stretch.overlap_s((0.5, 3)) == pytest.approx(1.5)
    assert stretch.overlap_s((1, 2)) == 0
    assert (stretch.distance_s(1.5), stretch.distance_s(-1), stretch.distance_s(6)) == (0, 1, 2)


@given(st.text(min_size=1, max_size=30))
def test_a_phrase_in_a_loop_compresses_and_a_sentence_does_not(phrase: str) -> None:
    assert compression(phrase * 30) > compression(phrase)
    assert compression("") == 0


def test_the_compression_of_invented_loops_is_above_the_limit_and_that_of_speech_below() -> None:
    assert compression("Thank you for watching, see you in the next video, " * 6) > RULES.compression
    assert compression("very, very good, and I asked for help when I needed it, again and again") < RULES.compression


@pytest.mark.parametrize(
    ("english", "words", "kept"),
    [
        (0.97, SURE, True),
        (0.97, [(" mumbled", 0.3)], True),  # the language is certain: words are kept as the recogniser gives them
        (0.3, SURE, True),  # the words are too probable to be invented
        (0.3, [(word, 0.5) for word, _ in SURE], False),
        (0.3, [(" see you in the next video", 0.9)] * 6, False),
        (0.3, [], False),
        (0.01, SURE, False),
    ],
)
def test_words_are_plausible_where_the_language_or_the_words_are_probable(
    english: float, words: list[tuple[str, float]], kept: bool
) -> None:
    assert plausible(Stretch(((0, 3),), {"de": 1 - english, "en": english}), "en", words, RULES) is kept
