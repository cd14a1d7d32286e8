"""Window arithmetic against a count that walks along the time line, and the figures of the design."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.errors import CerError
from cer_pipeline.media.windows import Layout, count_samples, count_windows, windows
from cer_pipeline.profiles import load_profile

DURATIONS = st.integers(0, 30_000_000).map(lambda us: us / 1e6)


def walked(duration: float) -> list[tuple[Fraction, Fraction, list[int]]]:
    """Start, end and samples of every window, by walking in exact fractions."""
    total = Fraction(round(duration * 10**6), 10**6)
    samples = [0]
    while Fraction(samples[-1] + 1, 5) < total:
        samples.append(samples[-1] + 1)
    found, start = [], Fraction(0)
    while True:
        end = start + 4
        is_tail = end >= total
        stop = total if is_tail else end
        found.append(
            (start, stop, [k for k in samples if start <= Fraction(k, 5) and (is_tail or Fraction(k, 5) < end)])
        )
        if is_tail:
            return found
        start += 2


@settings(deadline=None, max_examples=60)
@given(DURATIONS)
def test_windows_are_those_that_a_walk_along_the_time_line_finds(duration):
    expected = walked(duration)
    found = windows(duration)
    assert len(found) == count_windows(duration) == len(expected)
    for window, (start, stop, samples) in zip(found, expected, strict=True):
        assert (window.start_s, window.end_s) == (float(start), float(stop))
        assert list(range(window.first_sample, window.first_sample + window.samples)) == samples
        assert window.is_tail == (window.index == len(expected) - 1)
    assert count_samples(duration) == expected[-1][2][-1] + 1


@settings(deadline=None, max_examples=60)
@given(DURATIONS)
def test_every_sample_and_every_time_lie_in_one_or_two_windows(duration):
    listed = windows(duration)
    for window in listed[:-1]:
        assert (window.first_sample, window.samples) == (10 * window.index, 20)
    samples = Counter(k for w in listed for k in range(w.first_sample, w.first_sample + w.samples))
    assert sorted(samples) == list(range(count_samples(duration)))
    assert set(samples.values()) <= {1, 2}
    assert [w.start_s for w in listed] == [2.0 * w.index for w in listed]
    ends = [0.0, *(w.end_s for w in listed)]
    assert all(b.start_s <= a.end_s for a, b in pairwise(listed))
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(duration, abs=1e-6)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0.0, 1),
        (0.55, 1),
        (4.0, 1),
        (4.000001, 2),
        (6.0, 2),
        (6.01, 3),
        (8.0, 3),
        (8.000000001, 3),
        (8.064, 4),
        (19.69, 9),
    ],
)
def test_the_number_of_windows_is_that_of_the_formula(duration, expected):
    assert count_windows(duration) == expected


@pytest.mark.parametrize("frames", [1, 119, 120, 121, 300, 900, 107892])
def test_a_duration_at_29_97_fps_is_taken_to_the_microsecond(frames):
    exact = Fraction(frames * 1001, 30000)
    micros = Fraction(round(exact * 10**6), 10**6)
    assert count_samples(float(exact)) == max(1, -(-(micros * 5).numerator // (micros * 5).denominator))
    assert count_windows(float(exact)) == (1 if micros <= 4 else -((4 - micros) // 2) + 1)


def test_without_a_duration_there_are_no_windows():
    assert (count_windows(None), count_samples(None), windows(None)) == (0, 0, [])


def test_a_tail_that_falls_between_two_samples_takes_the_one_before():
    layout = Layout(length_us=4_100_000, hop_us=4_100_000, rate_hz=5)
    tail = windows(4.15, layout)[-1]
    assert (tail.start_s, tail.end_s, tail.first_sample, tail.samples) == (4.1, 4.15, 20, 1)


def test_the_layout_is_that_of_the_profile():
    profile = load_profile(overrides=["windows.hop_s=1.0", "grid.rate_hz=10"])
    assert Layout.of(profile) == Layout(4_000_000, 1_000_000, 10)


@pytest.mark.parametrize("override", ["windows.hop_s=0.0", "windows.hop_s=5.0", "grid.rate_hz=0"])
def test_a_layout_that_leaves_gaps_or_stands_still_is_refused(override):
    with pytest.raises(CerError):
        Layout.of(load_profile(overrides=[override]))
