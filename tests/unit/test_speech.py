"""Speech intervals: the rules on made-up probabilities, what always holds, and real sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import waveform_of

from cer_pipeline.perception.speech import STEP_S, Interval, Rules, SileroVad, intervals
from cer_pipeline.profiles import load_profile
from cer_pipeline.zoo import Zoo

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


@pytest.fixture(scope="module")
def vad(weights: Zoo) -> SileroVad:
    return SileroVad(weights.path("silero_vad"))


def listen(vad: SileroVad, clip: Path) -> list[Interval]:
    sound = waveform_of(clip)
    return intervals(vad(sound), len(sound) / 16_000, Rules(**load_profile()["speech"]))


@pytest.mark.parametrize("clip", ["small.mp4", "single_face.mp4", "nine_faces.mp4"])
def test_no_speech_is_heard_where_nobody_speaks(vad: SileroVad, media: Path, clip: str) -> None:
    assert listen(vad, media / clip) == []


def test_speech_is_heard_where_somebody_speaks_and_not_in_the_pause(vad: SileroVad, media: Path) -> None:
    found = listen(vad, media / "talking_1.mp4")
    assert found[0].start_s < 0.3
    assert not any(i.start_s < 3.0 < i.end_s for i in found)  # she pauses from 2.6 to 3.4 s
    assert sum(i.end_s - i.start_s for i in found) > 3


def test_the_network_remembers_what_it_heard(vad: SileroVad, media: Path) -> None:
    sound = waveform_of(media / "obama_speech.mp4")
    late = 4 * 16_000 // 512
    assert not np.array_equal(vad(sound)[late:], vad(sound[late * 512 :]))
    assert np.array_equal(vad(sound), vad(sound))
