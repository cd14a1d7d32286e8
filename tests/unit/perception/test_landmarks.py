"""The face mesh: head pose and its signs, the bounds of a mesh, and real faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cer_pipeline.perception.faces.blendshapes import BLENDSHAPES, INDEX
from cer_pipeline.perception.faces.boxes import iou
from cer_pipeline.perception.faces.crops import Square, cut, expand, quarter_turns
from cer_pipeline.perception.faces.detector import Box, CenterFace
from cer_pipeline.perception.faces.landmarks import FaceMesh, Mesh, bounds, mesh_tilt, pose
from cer_pipeline.perception.faces.stage import box_tilt
from cer_pipeline.tables import N_BLENDSHAPES, N_LANDMARKS
from cer_pipeline.zoo import Zoo

Picture = Callable[[str, float], NDArray[np.uint8]]
NOSE_TIP, RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 1, 33, 263  # of the MediaPipe mesh; right and left are the person's own
angles = st.floats(-80, 80)


@pytest.fixture(scope="module")
def mesh_model(weights: Zoo) -> Iterator[FaceMesh]:
    with FaceMesh(weights.path("face_landmarker"), confidence=0.5) as model:
        yield model


def find(detector: CenterFace, model: FaceMesh, frame: NDArray[np.uint8]) -> tuple[Box, Mesh]:
    """The largest face of a frame and its mesh."""
    box = detector(frame)[0]
    square = expand(box.x, box.y, box.w, box.h, 0.5)
    mesh = model(cut(frame, square), square, quarter_turns(box_tilt(box) or 0.0))
    assert mesh is not None
    return box, mesh


def turned(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """A matrix that rolls, then pitches, then turns a head, built from what the words mean.

    Axes: x to the right of the picture, y up, z towards the camera; the person's left is the picture's right.
    """
    a, b, c = np.radians([yaw, pitch, roll])
    roll_matrix = np.array([[np.cos(c), np.sin(c), 0], [-np.sin(c), np.cos(c), 0], [0, 0, 1]])  # crown moves to +x
    tilt = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])  # gaze moves to +y
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])  # gaze moves to +x
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ tilt @ roll_matrix
    return matrix


@given(angles, angles, angles)
def test_the_pose_is_read_back_from_a_rotation(yaw: float, pitch: float, roll: float) -> None:
    found = pose(turned(yaw, pitch, roll))
    assert (found.yaw, found.pitch, found.roll) == pytest.approx((yaw, pitch, roll), abs=1e-6)


def test_a_scale_in_the_matrix_changes_no_angle() -> None:
    scaled = turned(20, -10, 5)
    scaled[:3, :3] *= 7
    assert pose(scaled).yaw == pytest.approx(20)


def test_the_bounds_of_a_mesh_hold_all_its_points_and_no_more() -> None:
    points = np.zeros((478, 3), np.float32)
    points[:2, :2] = [(10, 20), (40, 60)]
    points[2:, :2] = (25, 30)
    assert bounds(points) == (10, 20, 30, 40)


def test_the_names_of_the_blendshapes_fill_the_column() -> None:
    assert len(set(BLENDSHAPES)) == len(BLENDSHAPES) == N_BLENDSHAPES
    assert BLENDSHAPES[INDEX["mouthSmileLeft"]] == "mouthSmileLeft"


def test_the_mesh_of_a_real_face_lies_on_its_box(detector: CenterFace, mesh_model: FaceMesh, picture: Picture) -> None:
    box, mesh = find(detector, mesh_model, picture("single_face.mp4", 0.0))
    assert mesh.points.shape == (N_LANDMARKS, 3)
    assert iou(bounds(mesh.points), box.rectangle) > 0.7
    assert mesh.points[RIGHT_EYE_OUTER, 0] < mesh.points[NOSE_TIP, 0] < mesh.points[LEFT_EYE_OUTER, 0]
    assert ((mesh.blendshapes >= 0) & (mesh.blendshapes <= 1)).all()


def test_points_are_pixels_of_the_frame_at_the_border_too(
    detector: CenterFace, mesh_model: FaceMesh, picture: Picture
) -> None:
    frame = picture("single_face.mp4", 0.0)
    box, whole = find(detector, mesh_model, frame)
    cut_off = int(box.y)  # the frame now begins at the top of the box: the crop reaches beyond it
    _, at_border = find(detector, mesh_model, np.ascontiguousarray(frame[cut_off:]))
    shifted = at_border.points[:, :2] + [0, cut_off]
    assert np.abs(shifted - whole.points[:, :2]).mean() < 0.05 * box.h


def test_a_smile_raises_the_corners_of_the_mouth(detector: CenterFace, mesh_model: FaceMesh, picture: Picture) -> None:
    _, neutral = find(detector, mesh_model, picture("single_face.mp4", 0.0))
    _, smile = find(detector, mesh_model, picture("single_face.mp4", 2.2))
    corner = INDEX["mouthSmileLeft"]
    assert smile.blendshapes[corner] > neutral.blendshapes[corner] + 0.4


@pytest.mark.parametrize("clip", ["talking_1.mp4", "talking_2.mp4"])
def test_a_head_turned_to_the_persons_left_has_a_positive_yaw(
    detector: CenterFace, mesh_model: FaceMesh, picture: Picture, clip: str
) -> None:
    _, mesh = find(detector, mesh_model, picture(clip, 1.0))
    eyes = (mesh.points[RIGHT_EYE_OUTER, 0] + mesh.points[LEFT_EYE_OUTER, 0]) / 2
    towards_right_of_picture = mesh.points[NOSE_TIP, 0] - eyes
    assert abs(mesh.pose.yaw) > 5
    assert np.sign(mesh.pose.yaw) == np.sign(towards_right_of_picture)


def test_a_mirrored_face_turns_and_tilts_the_other_way(
    detector: CenterFace, mesh_model: FaceMesh, picture: Picture
) -> None:
    frame = picture("talking_1.mp4", 1.0)
    _, mesh = find(detector, mesh_model, frame)
    _, mirrored = find(detector, mesh_model, np.ascontiguousarray(frame[:, ::-1]))
    assert mirrored.pose.yaw == pytest.approx(-mesh.pose.yaw, abs=4)
    assert mirrored.pose.roll == pytest.approx(-mesh.pose.roll, abs=4)
    assert mirrored.pose.pitch == pytest.approx(mesh.pose.pitch, abs=4)


def test_a_picture_turned_clockwise_tilts_the_head_to_the_persons_left(
    detector: CenterFace, mesh_model: FaceMesh, picture: Picture
) -> None:
    frame = picture("speaker_a.mp4", 1.0)
    height, width = frame.shape[:2]
    clockwise = cv2.getRotationMatrix2D((width / 2, height / 2), -20, 1)
    leaning = np.asarray(cv2.warpAffine(frame, clockwise, (width, height)), np.uint8)
    _, upright = find(detector, mesh_model, frame)
    _, leant = find(detector, mesh_model, leaning)
    assert leant.pose.roll - upright.pose.roll == pytest.approx(20, abs=4)


def test_a_person_who_looks_down_has_a_negative_pitch(mesh_model: FaceMesh, picture: Picture) -> None:
    frame = picture("no_audio_six_faces.mp4", 0.0)  # the standing woman looks down at the table
    height, width = frame.shape[:2]
    square = Square(round(0.57 * width), round(0.15 * height), round(0.25 * height))
    mesh = mesh_model(cut(frame, square), square)
    assert mesh is not None
    assert mesh.pose.pitch < -10


def test_a_picture_without_a_face_has_no_mesh(mesh_model: FaceMesh, picture: Picture) -> None:
    frame = picture("no_face.mp4", 1.0)
    square = Square(0, 0, min(frame.shape[:2]))
    assert mesh_model(cut(frame, square), square) is None


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize(
    ("clip", "time_s"), [("single_face.mp4", 2.2), ("talking_1.mp4", 1.0), ("face_noface.mov", 0.4)]
)
def test_a_face_that_lies_or_is_upside_down_has_its_mesh_the_right_way_up(
    detector: CenterFace, mesh_model: FaceMesh, picture: Picture, clip: str, time_s: float, degrees: int
) -> None:
    frame = picture(clip, time_s)
    height, width = frame.shape[:2]
    _, upright = find(detector, mesh_model, frame)
    clockwise = np.ascontiguousarray(np.rot90(frame, -degrees // 90))
    box, lying = find(detector, mesh_model, clockwise)
    assert iou(bounds(lying.points), box.rectangle) > 0.5
    x, y = upright.points[:, 0], upright.points[:, 1]
    expected = {90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}[degrees]
    assert np.abs(lying.points[:, :2] - np.column_stack(expected)).mean() < 0.05 * box.h
    assert abs((lying.pose.roll - upright.pose.roll - degrees + 180) % 360 - 180) < 6
    assert abs((mesh_tilt(lying.points) - mesh_tilt(upright.points) - degrees + 180) % 360 - 180) < 6
    assert np.abs(lying.blendshapes - upright.blendshapes).mean() < 0.05


def test_a_mirrored_upside_down_face_keeps_its_sides(
    detector: CenterFace, mesh_model: FaceMesh, picture: Picture
) -> None:
    frame = picture("talking_1.mp4", 1.0)
    _, mesh = find(detector, mesh_model, np.ascontiguousarray(frame[::-1]))
    # As the crop turned upright shows it: the eye on its left is the right eye, which lies right of the nose here.
    assert mesh.points[LEFT_EYE_OUTER, 0] < mesh.points[NOSE_TIP, 0] < mesh.points[RIGHT_EYE_OUTER, 0]
    assert mesh.points[RIGHT_EYE_OUTER, 1] > mesh.points[NOSE_TIP, 1]
    assert abs(mesh.pose.roll) > 150
