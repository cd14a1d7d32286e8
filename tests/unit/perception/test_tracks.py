"""Tracks and subjects: against naive versions, and what always holds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cer_pipeline.perception.faces.tracks import (
    Rectangle,
    Sighting,
    Stillness,
    deformation,
    distance_iou,
    follow,
    motion,
    pair,
    spread,
    subjects,
)

sides = st.floats(5, 60)
boxes = st.tuples(st.floats(0, 200), st.floats(0, 200), sides, sides)


@st.composite
def videos(draw: st.DrawFn) -> list[Sighting]:
    """Up to 12 samples with up to 4 faces each, some of them without a mesh."""
    return [
        Sighting(sample, face, box, draw(st.booleans()))
        for sample in draw(st.sets(st.integers(0, 30), max_size=12))
        for face, box in enumerate(draw(st.lists(boxes, max_size=4)))
    ]


def moving(start: Rectangle, step: float, samples: range, face: int = 0, *, verified: bool = True) -> list[Sighting]:
    x, y, w, h = start
    return [Sighting(k, face, (x + step * (k - samples[0]), y, w, h), verified) for k in samples]


def test_the_distance_iou_of_equal_boxes_is_one_and_of_far_ones_is_negative() -> None:
    assert distance_iou((10, 20, 30, 40), (10, 20, 30, 40)) == pytest.approx(1)
    # Side by side with one width between: no overlap, centres 20 apart, the box around both 30 x 10.
    assert distance_iou((0, 0, 10, 10), (20, 0, 10, 10)) == pytest.approx(-400 / 1000)


@given(boxes, boxes)
def test_the_distance_iou_is_symmetric_and_bounded(a: Rectangle, b: Rectangle) -> None:
    assert distance_iou(a, b) == pytest.approx(distance_iou(b, a))
    assert -1 <= distance_iou(a, b) <= 1 + 1e-9


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4), st.sampled_from([-0.2, 0.0, 0.3]))
def test_pairs_are_the_best_of_all_assignments(old: list[Rectangle], new: list[Rectangle], least: float) -> None:
    def gain(i: int, j: int) -> float:
        return max(0.0, distance_iou(old[i], new[j]) - least)

    short, long, swap = (old, new, False) if len(old) <= len(new) else (new, old, True)
    best = max(
        sum(gain(j, i) if swap else gain(i, j) for i, j in enumerate(order))
        for order in permutations(range(len(long)), len(short))
    )
    pairs = pair(old, new, least)
    assert sum(gain(i, j) for i, j in pairs) == pytest.approx(best)
    assert all(distance_iou(old[i], new[j]) > least for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)


@given(videos(), st.integers(0, 5))
def test_every_verified_face_has_one_track_and_a_track_one_face_a_sample(video: list[Sighting], gap: int) -> None:
    numbers = follow(video, least=0.0, gap=gap)
    assert set(numbers) == {(s.sample, s.face) for s in video if s.verified}
    assert len({(sample, track) for (sample, _), track in numbers.items()}) == len(numbers)
    # Numbers are 0, 1, 2 ... in order of first appearance.
    firsts = list(dict.fromkeys(numbers[key] for key in sorted(numbers)))
    assert firsts == list(range(len(firsts)))


@given(videos())
def test_tracks_do_not_depend_on_the_order_in_which_faces_are_given(video: list[Sighting]) -> None:
    assert follow(video, least=0.0, gap=2) == follow(video[::-1], least=0.0, gap=2)


@given(videos(), st.lists(st.integers(0, 20), max_size=4, unique=True))
def test_a_window_has_at_most_one_subject_and_it_is_the_largest_sum(video: list[Sighting], starts: list[int]) -> None:
    windows = {i: range(start, start + 20) for i, start in enumerate(starts)}
    numbers = follow(video, least=0.0, gap=2)
    chosen = subjects(video, numbers, windows)
    for window, samples in windows.items():
        areas: dict[int, float] = {}
        for s in video:
            if s.verified and s.sample in samples:
                track = numbers[s.sample, s.face]
                areas[track] = areas.get(track, 0) + s.box[2] * s.box[3]
        assert (window in chosen) == bool(areas)
        if areas:
            assert areas[chosen[window]] == pytest.approx(max(areas.values()))


def test_a_face_that_moves_half_its_width_a_sample_is_one_track() -> None:
    assert set(follow(moving((0, 0, 40, 40), 20, range(10)), least=0.0, gap=0).values()) == {0}


def test_two_faces_that_pass_keep_their_tracks() -> None:
    near = moving((0, 0, 60, 60), 10, range(20))
    far = moving((200, 40, 30, 30), -10, range(20), face=1)
    numbers = follow(near + far, least=0.0, gap=0)
    assert {numbers[k, 0] for k in range(20)} == {0}
    assert {numbers[k, 1] for k in range(20)} == {1}


@pytest.mark.parametrize(("missing", "tracks"), [(3, {0}), (4, {0, 1})])
def test_a_track_outlives_a_gap_of_the_stated_number_of_samples_and_no_more(missing: int, tracks: set[int]) -> None:
    video = [s for s in moving((0, 0, 40, 40), 0, range(12)) if not 4 <= s.sample < 4 + missing]
    assert set(follow(video, least=0.0, gap=3).values()) == tracks


def test_a_cut_to_a_face_elsewhere_opens_a_track() -> None:
    video = moving((0, 0, 40, 40), 0, range(5)) + moving((200, 100, 40, 40), 0, range(5, 10))
    assert set(follow(video, least=0.0, gap=5).values()) == {0, 1}


def test_a_person_who_turns_away_and_back_stays_one_track() -> None:
    away = moving((0, 0, 40, 40), 0, range(5, 20), verified=False)
    video = moving((0, 0, 40, 40), 0, range(5)) + away + moving((0, 0, 40, 40), 0, range(20, 25))
    numbers = follow(video, least=0.0, gap=2)
    assert set(numbers.values()) == {0}
    assert not {(k, 0) for k in range(5, 20)} & set(numbers)


def test_a_track_that_was_seen_last_comes_before_one_that_waits() -> None:
    # Somebody behind is hidden by a person who then stands exactly where he was last seen.
    hidden = moving((20, 20, 40, 40), 0, range(3))
    passing = moving((170, 15, 50, 50), -30, range(6), face=1)
    numbers = follow(hidden + passing, least=0.0, gap=5)
    assert {numbers[k, 1] for k in range(6)} == {1}


def test_of_two_tracks_of_equal_area_the_lower_number_is_the_subject() -> None:
    video = moving((0, 0, 40, 40), 0, range(5)) + moving((200, 0, 40, 40), 0, range(5), face=1)
    numbers = follow(video, least=0.0, gap=0)
    assert subjects(video, numbers, {7: range(5)}) == {7: 0}


def test_a_smaller_face_that_stays_outweighs_a_larger_one_that_passes() -> None:
    video = moving((0, 0, 60, 60), 0, range(2)) + moving((200, 0, 40, 40), 0, range(20), face=1)
    numbers = follow(video, least=0.0, gap=0)
    assert subjects(video, numbers, {0: range(20)}) == {0: numbers[0, 1]}


RULE = Stillness(share=0.02, least_px=0.9, moved=0.05, steps=10, height=100.0)
Form = Callable[[int], NDArray[np.float64]]  # sample -> mesh points
FACE = np.random.default_rng(0).normal(size=(478, 2)) * 0.27 / np.sqrt(2)  # of height 1, spread about 0.27
MOUTH = slice(0, 100)


def affine(points: NDArray[np.float64], k: float) -> NDArray[np.float64]:
    """A picture before a camera that shakes, zooms and tilts."""
    turn = np.array([[1 + 0.05 * np.sin(k), 0.08 * np.cos(k)], [-0.06 * np.sin(2 * k), 1 + 0.04 * np.cos(k)]])
    return points @ turn.T + [9 * np.sin(3 * k), 7 * np.cos(2 * k)]


def poster(height: float, jitter: float = 0.0) -> Form:
    noise = np.random.default_rng(1)
    return lambda k: affine(FACE * height, k) + noise.normal(scale=jitter, size=FACE.shape)


def speaker(height: float, *, speaks: Callable[[int], bool] = lambda _: True) -> Form:
    def form(k: int) -> NDArray[np.float64]:
        points = FACE * height
        points[MOUTH, 1] += 0.1 * height * (k % 2) * speaks(k)
        return affine(points, k)

    return form


def scene(samples: int, *faces: tuple[float, Form]) -> tuple[list[Sighting], dict[tuple[int, int], NDArray]]:
    """Faces side by side, each with the height of its box and its mesh."""
    video = [Sighting(k, i, (500.0 * i, 0, h, h)) for k in range(samples) for i, (h, _) in enumerate(faces)]
    return video, {(s.sample, s.face): faces[s.face][1](s.sample) for s in video}


def subject(samples: int, *faces: tuple[float, Form], windows: dict[int, range] | None = None) -> dict[int, int]:
    video, shapes = scene(samples, *faces)
    numbers = {(s.sample, s.face): s.face for s in video}
    return subjects(video, numbers, windows or {0: range(samples)}, *motion(video, shapes, numbers, RULE))


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3), st.floats(-1e3, 1e3))
def test_an_affine_map_is_no_deformation(a: float, b: float, c: float, d: float, shift: float) -> None:
    after = FACE @ np.array([[a, b], [c, d]]) + shift
    assert deformation(FACE, after) < 1e-6


@given(st.floats(0.01, 1), st.floats(1, 400))
def test_a_deformation_is_what_no_affine_map_explains_in_pixels(amount: float, size: float) -> None:
    moved = FACE.copy()
    moved[MOUTH, 1] += amount
    best = np.linalg.lstsq(np.column_stack([FACE, np.ones(len(FACE))]), moved, rcond=None)[0]
    left = moved - np.column_stack([FACE, np.ones(len(FACE))]) @ best
    naive = np.sqrt(sum(x * x + y * y for x, y in left) / len(left))
    assert deformation(FACE * size, moved * size) == pytest.approx(naive * size)


def test_the_spread_is_the_mean_distance_from_the_middle() -> None:
    assert spread(np.array([[0.0, 0], [6, 8]])) == pytest.approx(5)


def test_a_poster_loses_to_a_smaller_face_that_speaks() -> None:
    assert subject(20, (430, poster(430, jitter=0.5)), (150, speaker(150))) == {0: 1}


def test_a_larger_face_that_speaks_stays_the_subject_beside_a_poster() -> None:
    assert subject(20, (200, poster(200)), (300, speaker(300))) == {0: 1}


def test_where_no_face_moves_the_largest_is_the_subject() -> None:
    assert subject(20, (430, poster(430)), (150, poster(150))) == {0: 0}


def test_a_person_who_is_still_for_a_window_and_speaks_later_is_no_poster() -> None:
    listens = speaker(300, speaks=lambda k: k >= 20)
    windows = {0: range(20), 1: range(20, 40)}
    assert subject(40, (300, listens), (150, speaker(150)), windows=windows) == {0: 0, 1: 0}


@pytest.mark.parametrize(("samples", "chosen"), [(10, 0), (11, 1)])
def test_a_track_of_few_samples_is_not_called_still(samples: int, chosen: int) -> None:
    assert subject(samples, (430, poster(430)), (150, speaker(150))) == {0: chosen}


def test_a_face_too_small_for_its_jitter_is_neither_moving_nor_still() -> None:
    video, shapes = scene(20, (60, poster(60, jitter=0.3)), (60, speaker(60, speaks=lambda _: False)))
    numbers = {(s.sample, s.face): s.face for s in video}
    assert motion(video, shapes, numbers, RULE) == (set(), set())


def test_a_poster_alone_in_a_window_is_its_subject() -> None:
    video, shapes = scene(20, (430, poster(430)))
    late, more = scene(40, (0, poster(1)), (150, speaker(150)))
    video += [s for s in late if s.sample >= 20 and s.face == 1]
    shapes |= {key: form for key, form in more.items() if key[0] >= 20 and key[1] == 1}
    numbers = {(s.sample, s.face): s.face for s in video}
    windows = {0: range(20), 1: range(20, 40)}
    assert subjects(video, numbers, windows, *motion(video, shapes, numbers, RULE)) == {0: 0, 1: 1}
