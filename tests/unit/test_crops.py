"""The square around a face."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.perception.crops import Square, cut, expand


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
