"""The square around a face."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.perception.faces.crops import Square, cut, expand, quarter_turns, tilt, turned, turned_back


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 200), st.integers(1, 200), st.floats(0, 1))
def test_the_margin_hangs_on_the_size_of_the_box_and_not_on_its_place(
    x: int, y: int, w: int, h: int, margin: float
) -> None:
    square = expand(x, y, w, h, margin)
    assert square.side == max(1, round(max(w, h) * (1 + 2 * margin)))
    assert abs(square.left + square.side / 2 - (x + w / 2)) <= 0.5
    assert abs(square.top + square.side / 2 - (y + h / 2)) <= 0.5


@given(st.integers(-15, 25), st.integers(-15, 25), st.integers(1, 20))
def test_the_crop_holds_the_picture_where_there_is_one_and_black_elsewhere(left: int, top: int, side: int) -> None:
    picture = np.arange(1, 1 + 12 * 9 * 3, dtype=np.uint16).astype(np.uint8).reshape(12, 9, 3)
    crop = cut(picture, Square(left, top, side))
    assert crop.shape == (side, side, 3)
    for row in range(side):
        for column in range(side):
            y, x = top + row, left + column
            inside = 0 <= y < 12 and 0 <= x < 9
            assert (crop[row, column] == (picture[y, x] if inside else 0)).all()


@pytest.mark.parametrize(
    ("eyes", "mouth", "degrees"),
    [((50, 40), (50, 70), 0), ((70, 50), (40, 50), 90), ((50, 70), (50, 40), 180), ((40, 50), (70, 50), -90)],
)
def test_the_tilt_of_a_face_is_the_direction_of_its_crown(
    eyes: tuple[int, int], mouth: tuple[int, int], degrees: float
) -> None:
    assert tilt(eyes, mouth) == pytest.approx(degrees)


@given(st.floats(-180, 180))
def test_quarter_turns_leave_a_face_within_45_degrees_of_upright(degrees: float) -> None:
    rest = degrees - 90 * quarter_turns(degrees)
    assert abs((rest + 180) % 360 - 180) <= 45


@pytest.mark.parametrize("degrees", [0.0, 20.0, -44.0, 44.0])
def test_an_upright_face_is_not_turned(degrees: float) -> None:
    assert quarter_turns(degrees) == 0


@given(st.integers(0, 3), st.integers(2, 9), st.integers(0, 8), st.integers(0, 8))
def test_points_of_a_turned_crop_are_mapped_to_where_they_came_from(
    quarters: int, side: int, row: int, column: int
) -> None:
    row, column = row % side, column % side
    crop = np.zeros((side, side, 1), np.uint8)
    crop[row, column] = 1
    there = np.argwhere(turned(crop, quarters)[..., 0])[0]
    seen = np.array([[(there[1] + 0.5) / side, (there[0] + 0.5) / side, 0.25]])
    back = turned_back(seen, quarters)
    np.testing.assert_allclose(back, [[(column + 0.5) / side, (row + 0.5) / side, 0.25]])
