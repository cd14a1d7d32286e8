"""The face detector: decoding against a naive version, suppression, and what it finds in real pictures."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cer_pipeline.perception.faces.boxes import iou
from cer_pipeline.perception.faces.detector import Box, CenterFace, clip, decode, letterbox, suppress

boxes = st.builds(Box, st.floats(0, 100), st.floats(0, 100), st.floats(1, 60), st.floats(1, 60), st.floats(0, 1))


def test_boxes_are_decoded_cell_by_cell() -> None:
    rng = np.random.default_rng(3)
    heat = rng.uniform(0, 1, (1, 6, 9)).astype(np.float32)
    size = rng.normal(0, 1, (2, 6, 9)).astype(np.float32)
    offset = rng.uniform(-1, 1, (2, 6, 9)).astype(np.float32)
    points = rng.uniform(0, 1, (10, 6, 9)).astype(np.float32)
    expected, places = [], []
    for row in range(6):
        for column in range(9):
            if heat[0, row, column] >= 0.7:
                height = 4 * math.exp(size[0, row, column])
                width = 4 * math.exp(size[1, row, column])
                middle_y = 4 * (row + float(offset[0, row, column]) + 0.5)
                middle_x = 4 * (column + float(offset[1, row, column]) + 0.5)
                box = (middle_x - width / 2, middle_y - height / 2, width, height)
                expected.append((*box, float(heat[0, row, column])))
                for j in range(5):
                    down, across = points[2 * j, row, column], points[2 * j + 1, row, column]
                    places.append((box[0] + float(across) * width, box[1] + float(down) * height))
    found, scores, five = decode(heat, size, offset, points, 0.7)
    assert len(expected) > 5
    np.testing.assert_allclose(np.column_stack([found, scores]), expected, rtol=1e-6)
    np.testing.assert_allclose(five.reshape(-1, 2), places, rtol=1e-6)


@given(st.lists(boxes, max_size=12), st.floats(0.1, 0.9))
def test_suppression_keeps_the_strongest_and_nothing_that_overlaps_it(found: list[Box], overlap: float) -> None:
    kept = suppress(found, overlap)
    assert all(iou(a.rectangle, b.rectangle) <= overlap for i, a in enumerate(kept) for b in kept[:i])
    assert all(
        any(iou(box.rectangle, k.rectangle) > overlap and k.score >= box.score for k in kept)
        for box in found
        if box not in kept
    )


def test_the_overlap_of_boxes() -> None:
    assert iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert iou((0, 0, 10, 10), (10, 0, 10, 10)) == 0


def test_boxes_end_at_the_border_of_the_picture() -> None:
    clipped = clip(np.array([[-5.0, -5, 20, 20], [90, 40, 30, 30], [200, 200, 5, 5]]), 100, 50)
    np.testing.assert_array_equal(clipped, [[0, 0, 15, 15], [90, 40, 10, 10], [100, 50, 0, 0]])


@pytest.mark.parametrize(("height", "width"), [(360, 640), (1080, 1920), (33, 31), (700, 20)])
def test_pictures_are_shrunk_padded_and_never_enlarged_or_squeezed(height: int, width: int) -> None:
    blob, scale = letterbox(np.full((height, width, 3), 200, np.uint8), 640)
    inner = blob[0, :, : round(height * scale), : round(width * scale)]
    assert scale == min(1, 640 / max(height, width))
    assert blob.shape[2] % 32 == blob.shape[3] % 32 == 0
    assert (inner == 200).all()
    assert blob.sum() == inner.sum()


def test_real_pictures_show_as_many_faces_as_a_person_sees(
    detector: CenterFace, picture: Callable[[str, float], NDArray[np.uint8]]
) -> None:
    assert len(detector(picture("single_face.mp4", 0.0))) == 1
    assert len(detector(picture("obama_speech.mp4", 4.0))) == 2
    assert len(detector(picture("no_audio_six_faces.mp4", 0.0))) == 5  # the sixth shows the back of her head
    assert detector(picture("no_face.mp4", 1.0)) == []


def test_a_box_is_where_the_face_is_whatever_surrounds_it(
    detector: CenterFace, picture: Callable[[str, float], NDArray[np.uint8]]
) -> None:
    frame = picture("single_face.mp4", 0.0)
    moved = np.zeros((frame.shape[0] + 64, frame.shape[1], 3), np.uint8)
    moved[64:] = frame
    here, there = detector(frame)[0], detector(moved)[0]
    assert (there.x, there.y - 64, there.w, there.h) == pytest.approx((here.x, here.y, here.w, here.h), abs=3)


def test_faces_come_largest_first_and_are_the_same_every_time(
    detector: CenterFace, picture: Callable[[str, float], NDArray[np.uint8]]
) -> None:
    frame = picture("no_audio_six_faces.mp4", 0.0)
    found = detector(frame)
    assert [box.area for box in found] == sorted((box.area for box in found), reverse=True)
    assert detector(frame) == found


@pytest.mark.parametrize("clip", ["single_face.mp4", "obama_speech.mp4", "talking_1.mp4", "speaker_b.mp4"])
def test_the_five_points_lie_on_the_face(
    detector: CenterFace, picture: Callable[[str, float], NDArray[np.uint8]], clip: str
) -> None:
    box = detector(picture(clip, 1.0))[0]
    right_eye, left_eye, nose, right_corner, left_corner = (np.reshape(box.keypoints, (-1, 2)) - (box.x, box.y)) / (
        box.w,
        box.h,
    )
    # A person who faces the camera: the own right is the left of the picture; eyes above the middle, the mouth below.
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_corner[0] < left_corner[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_corner[1], left_corner[1])
    assert max(right_eye[1], left_eye[1]) < 0.5
    assert min(right_corner[1], left_corner[1]) > 0.6


def test_the_points_turn_with_the_picture(
    detector: CenterFace, picture: Callable[[str, float], NDArray[np.uint8]]
) -> None:
    frame = picture("talking_1.mp4", 1.0)
    height, width = frame.shape[:2]
    upright = np.reshape(detector(frame)[0].keypoints, (-1, 2))
    box = detector(np.ascontiguousarray(frame[::-1, ::-1]))[0]
    turned = np.reshape(box.keypoints, (-1, 2))
    assert np.abs((width, height) - turned - upright).mean() < 0.15 * box.h
