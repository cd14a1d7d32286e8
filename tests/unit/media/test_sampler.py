"""Which frame a sample shows, which frames are trusted, how a picture is turned: without any media file."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.media.container import TimeLine
from cer_pipeline.media.damage import Damage
from cer_pipeline.media.orientation import Orientation
from cer_pipeline.media.sampler import End, Sampler, Shown
from cer_pipeline.status import Status

SECOND = 1_000_000


def sampled(times, samples, end=None, interval=40_000, damaged_before=None, hold=SECOND // 2, lasts=40_000):
    sampler = Sampler(samples, 5, interval, hold)
    shown = []
    for number, time in enumerate(times):
        shown += sampler.frame(
            Shown(time, number, picture=number, after_damage=number == damaged_before, until_us=time + lasts)
        )
    return shown + list(sampler.finish(end or End((times[-1] if times else 0) + interval)))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-100_000, 5 * SECOND), min_size=1, max_size=80).map(sorted), st.integers(1, 30))
def test_a_sample_shows_the_last_frame_up_to_its_time(times, samples):
    shown = sampled(times, samples, End(times[-1]), hold=10 * SECOND)
    assert [s.index for s in shown] == list(range(samples))
    for sample in shown:
        before = [n for n, t in enumerate(times) if t <= sample.index * SECOND // 5 + 1]
        if before or (sample.index == 0 and times[0] <= SECOND // 5):
            assert sample.shown.number == (before[-1] if before else 0)
        else:
            assert (sample.status, sample.shown) == (Status.NO_VIDEO, None)
            assert "the picture starts at" in sample.reason


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=30).map(sorted),
    st.sampled_from([0, 40_000, SECOND, 3 * SECOND]),
    st.sampled_from([0, SECOND // 2]),
)
def test_no_frame_is_shown_for_longer_than_it_is_held_or_lasts(times, lasts, hold):
    interval = 40_000
    for sample in sampled(times, 30, End(times[-1] + lasts), interval, hold=hold, lasts=lasts)[1:]:
        age = [sample.index * SECOND // 5 - t for t in times if t <= sample.index * SECOND // 5 + 1][-1:]
        expected = bool(age) and age[0] < max(lasts, hold, 1.5 * interval if age[0] < times[-1] else 0) + 1
        if age and sample.index * SECOND // 5 > times[-1]:
            expected = age[0] < max(lasts, hold)
        assert (sample.status == Status.OK) == expected, (sample, times)


def test_a_pause_of_the_picture_is_no_video_unless_the_frame_before_lasts():
    times = [0, 40_000, 80_000, 3 * SECOND]
    paused, lasting = sampled(times, 16), sampled(times, 16, lasts=3 * SECOND)
    assert [s.status for s in paused] == [Status.OK] * 3 + [Status.NO_VIDEO] * 12 + [Status.OK]
    assert paused[5].reason == "no picture came from 0.080 to 3.000 s"
    assert {s.status for s in lasting} == {Status.OK}


def test_before_the_first_frame_there_is_no_video_but_for_a_start_within_the_first_sample():
    late, slightly = sampled([500_000], 4), sampled([80_000], 4)
    assert [s.status for s in late] == [Status.NO_VIDEO] * 3 + [Status.OK]
    assert late[0].reason == "the picture starts at 0.500 s"
    assert [s.shown.number for s in slightly[:3]] == [0, 0, 0]


def test_a_low_rate_shows_each_frame_to_the_next():
    times = [k * 10 * SECOND for k in range(3)]
    assert {s.status for s in sampled(times, 150, interval=10 * SECOND, lasts=0)} == {Status.OK}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-100_000, 5 * SECOND), max_size=80).map(sorted), st.integers(1, 30))
def test_the_time_stamps_of_all_samples_together_are_the_time_line(times, samples):
    shown = sampled(times, samples)
    assert [t for s in shown for t in s.frame_times] == [t / 1e6 for t in times]
    for sample in shown[1:-1]:
        assert all(sample.index / 5 - 2e-6 <= t < (sample.index + 1) / 5 for t in sample.frame_times)


def test_the_last_frame_is_held_for_a_while_then_there_is_no_video():
    shown = sampled([0, 200_000], 10, End(240_000))
    assert [s.status for s in shown] == [Status.OK] * 4 + [Status.NO_VIDEO] * 6
    assert "ends at 0.240 s" in shown[-1].reason


def test_where_the_file_is_cut_off_frames_are_missing_not_held():
    shown = sampled([0, 200_000], 10, End(240_000, missing_until_us=SECOND))
    assert [s.status for s in shown] == [Status.OK] * 2 + [Status.UNDECODABLE] * 3 + [Status.NO_VIDEO] * 5


def test_a_hole_is_damage_only_where_the_file_is_torn():
    times = [0, 40_000, SECOND]
    whole, after_damage = sampled(times, 6, lasts=SECOND), sampled(times, 6, damaged_before=2, lasts=SECOND)
    assert [s.status for s in whole] == [Status.OK] * 6
    assert [s.status for s in after_damage] == [Status.OK] + [Status.UNDECODABLE] * 4 + [Status.OK]


def test_a_damaged_frame_is_not_replaced_by_the_one_before():
    sampler = Sampler(3, 5, 200_000, 0)
    frames = [Shown(0, 0, "a"), Shown(200_000, 1, None, "the frame is damaged"), Shown(400_000, 2, "c")]
    shown = [s for frame in frames for s in sampler.frame(frame)] + list(sampler.finish(End(600_000)))
    assert [(s.status, s.reason) for s in shown] == [
        (Status.OK, None),
        (Status.UNDECODABLE, "the frame is damaged"),
        (Status.OK, None),
    ]
    assert [s.frame_times for s in shown] == [[0.0], [0.2], [0.4]]


def test_a_video_without_a_single_frame_is_undecodable_throughout():
    assert {s.status for s in sampled([], 4)} == {Status.UNDECODABLE}


def line(keys: str, disposable: str = "", times: list[int] | None = None) -> TimeLine:
    count = len(keys)
    return TimeLine(
        times=times or [i * 40_000 for i in range(count)],
        key=[c == "K" for c in keys],
        corrupt=[False] * count,
        hidden=[False] * count,
        disposable=[str(i) in disposable.split() for i in range(count)],
        after_damage=[False] * count,
    )


def test_damage_spreads_up_to_the_next_key_frame():
    damage = Damage(line("K...K..."))
    damage.mark(2)
    assert [i for i in range(8) if damage.is_predicted_from_damage(i)] == [3]


def test_damage_to_a_frame_that_no_other_needs_does_not_spread():
    damage = Damage(line("K...K...", disposable="2"))
    damage.mark(2)
    assert not any(damage.is_predicted_from_damage(i) for i in range(8))


def test_frames_shown_before_their_key_frame_depend_on_the_group_before():
    # packets 3 and 4 follow the key packet 2 in the file but are shown before it
    damage = Damage(line("K.K..", times=[0, 40_000, 160_000, 80_000, 120_000]))
    damage.mark(1)
    assert [i for i in range(5) if damage.is_predicted_from_damage(i)] == [3, 4]


def test_an_error_explains_missing_frames_shortly_before_it_and_no_others():
    damage = Damage(line("K" * 300))
    damage.decoder_error(200)
    assert [damage.explains(i) for i in (100, 136, 200, 201)] == [False, True, True, False]


PICTURE = np.arange(6).reshape(2, 3, 1)


def matrix(a, b, c, d):
    return struct.pack("=9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize(
    ("entries", "degrees", "expected"),
    [
        ((1, 0, 0, 1), 0, PICTURE),
        ((0, 1, -1, 0), 90, np.rot90(PICTURE, -1)),
        ((-1, 0, 0, -1), 180, np.rot90(PICTURE, 2)),
        ((0, -1, 1, 0), 270, np.rot90(PICTURE, 1)),
        ((-1, 0, 0, 1), 0, PICTURE[:, ::-1]),
        ((1, 0, 0, -1), 180, PICTURE[::-1]),
    ],
)
def test_a_display_matrix_turns_and_mirrors_the_picture(entries, degrees, expected):
    orientation = Orientation.of_matrix(matrix(*entries))
    assert orientation.degrees == degrees
    assert np.array_equal(orientation.apply(PICTURE), expected)
    assert orientation.size(3, 2) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("data", [b"", b"\0" * 36, b"\1\2\3"])
def test_a_display_matrix_without_sense_leaves_the_picture_as_it_is(data):
    assert Orientation.of_matrix(data) == Orientation()
