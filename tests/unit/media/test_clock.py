"""One time line for all streams, on time stamps alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cer_pipeline.media.clock import PacketTimes, place

SECOND = 1_000_000
PAUSE = 10 * SECOND
VIDEO, SOUND = 40_000, 64_000


def stream(times: list[int], duration: int, positions: list[int]) -> PacketTimes:
    stamps = np.array(times, np.int64)
    return PacketTimes(
        np.array(positions, np.int64),
        stamps,
        stamps.copy(),
        np.full(len(times), duration, np.int64),
        np.zeros(len(times), bool),
    )


def file(*parts: tuple[int, float, float]) -> list[PacketTimes]:
    """Picture and sound of parts (start on the clock of the file, s of picture, s of sound), interleaved by time."""
    packets: list[tuple[int, int]] = []
    for start, picture_s, sound_s in parts:
        part = [(start + t, 0) for t in range(0, round(picture_s * SECOND), VIDEO)]
        part += [(start + t, 1) for t in range(0, round(sound_s * SECOND), SOUND)]
        packets += sorted(part)
    streams = []
    for s, duration in enumerate((VIDEO, SOUND)):
        members = [(time, at) for at, (time, which) in enumerate(packets) if which == s]
        streams.append(stream([t for t, _ in members], duration, [at for _, at in members]))
    return streams


def placed(streams: list[PacketTimes], pause: int = PAUSE, stated_end: int | None = None) -> list[list[int]]:
    return [times.tolist() for times in place(streams, pause, stated_end)[0]]


def test_a_plain_file_keeps_its_times():
    streams = file((5 * SECOND, 4.0, 4.0))
    assert placed(streams) == [s.presentation.tolist() for s in streams]
    assert place(streams, PAUSE)[1] == [[], []]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**33 * 100 // 9), st.floats(1.0, 4.0), st.floats(1.0, 4.0)), min_size=1, max_size=4
    )
)
def test_picture_and_sound_of_a_part_stay_together_and_parts_follow_each_other(parts):
    for (start, picture_s, sound_s), (following, _, _) in pairwise(parts):
        step = following - start - round(min(picture_s, sound_s) * SECOND)
        assume(step < -5 * SECOND or step > PAUSE + 5 * SECOND)
    streams = file(*parts)
    video, sound = placed(streams)
    at_v = at_s = 0
    end = None
    for k, (_, picture_s, sound_s) in enumerate(parts):
        n_v, n_s = len(range(0, round(picture_s * SECOND), VIDEO)), len(range(0, round(sound_s * SECOND), SOUND))
        of_video, of_sound = video[at_v : at_v + n_v], sound[at_s : at_s + n_s]
        at_v, at_s = at_v + n_v, at_s + n_s
        assert of_video[0] == of_sound[0]  # both started together
        assert np.diff(of_video).tolist() == [VIDEO] * (n_v - 1)
        assert np.diff(of_sound).tolist() == [SOUND] * (n_s - 1)
        assert k == 0 or of_video[0] == end
        end = max(of_video[-1] + VIDEO, of_sound[-1] + SOUND)


@pytest.mark.parametrize("start", [0, 40 * SECOND, 70 * SECOND, 7200 * SECOND, 2**33 * 100 // 9])
def test_a_clock_that_starts_anew_anywhere_goes_on_for_both_streams(start):
    streams = file((50 * SECOND, 2.0, 2.0), (start, 2.0, 2.0))
    video, sound = placed(streams)
    assert video == [50 * SECOND + VIDEO * k for k in range(50)] + [video[50] + VIDEO * k for k in range(50)]
    assert video[50] == sound[len(sound) // 2] == 50 * SECOND + 32 * SOUND


def test_a_pause_that_is_not_too_long_is_kept():
    streams = file((0, 2.0, 2.0), (9 * SECOND, 2.0, 2.0))
    assert placed(streams) == [s.presentation.tolist() for s in streams]


def test_a_picture_that_pauses_while_the_sound_goes_on_keeps_its_times():
    sound = stream(
        list(range(0, 60 * SECOND, SOUND)), SOUND, list(range(1, 2000, 2))[: len(range(0, 60 * SECOND, SOUND))]
    )
    times = [*range(0, 2 * SECOND, VIDEO), *range(50 * SECOND, 60 * SECOND, VIDEO)]
    positions = [2 * (t // SOUND) for t in times]
    video = stream(times, VIDEO, positions)
    assert placed([video, sound]) == [times, sound.presentation.tolist()]


def test_a_sound_whose_clock_alone_jumps_goes_on_at_its_own_end():
    video, sound = file((0, 30.0, 30.0))
    jumped = sound.presentation.copy()
    jumped[200:] -= 12 * SECOND
    streams = [video, stream(jumped.tolist(), SOUND, sound.position.tolist())]
    assert placed(streams) == [video.presentation.tolist(), sound.presentation.tolist()]


@pytest.mark.parametrize("wild", [-100 * SECOND, 5 * SECOND, 100_000 * SECOND])
@pytest.mark.parametrize("at", [0, 1, 20, -1])
def test_a_lone_packet_with_a_wild_time_stamp_follows_the_one_before(wild, at):
    video, sound = file((200 * SECOND, 3.0, 3.0))
    times = video.presentation.copy()
    times[at] += wild
    streams = [stream(times.tolist(), VIDEO, video.position.tolist()), sound]
    assert placed(streams, stated_end=203 * SECOND) == [video.presentation.tolist(), sound.presentation.tolist()]


def test_a_second_part_without_sound_or_picture_follows_all_of_the_first():
    video, sound = placed(file((500 * SECOND, 2.0, 3.0), (0, 2.0, 0.0)))
    assert video[50] == sound[-1] + SOUND
    video, sound = placed(file((500 * SECOND, 3.0, 2.0), (0, 0.0, 2.0)))
    assert sound[32] == video[-1] + VIDEO


def test_streams_that_are_not_interleaved_keep_their_times():
    video, sound = file((0, 20.0, 20.0))
    apart = [
        stream(video.presentation.tolist(), VIDEO, list(range(len(video)))),
        stream(sound.presentation.tolist(), SOUND, list(range(len(video), len(video) + len(sound)))),
    ]
    assert placed(apart) == [video.presentation.tolist(), sound.presentation.tolist()]


def test_nothing_is_placed_nowhere():
    empty = stream([], VIDEO, [])
    assert placed([]) == []
    assert placed([empty]) == [[]]
    video, _ = file((0, 1.0, 1.0))
    assert placed([video, empty]) == [video.presentation.tolist(), []]


def test_time_stamps_that_are_noise_cost_little_and_never_blow_up():
    rng = np.random.default_rng(0)
    count = 50_000
    streams = [stream(rng.integers(0, 2**50, count).tolist(), VIDEO, list(range(s, 2 * count, 2))) for s in (0, 1)]
    for times in place(streams, PAUSE)[0]:
        assert np.ptp(times) <= count * (VIDEO + PAUSE)
