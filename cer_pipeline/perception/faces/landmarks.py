"""MediaPipe FaceLandmarker: is there a face in the crop, and how does it look.

Belongs here: the mesh model on one crop, the way back to pixels of the frame, head pose, the rule that accepts a mesh.
Does not belong here: where to look (`detector`), the crop's geometry (`crops`), any meaning of an expression.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from numpy.typing import NDArray

from cer_pipeline.perception.faces.blendshapes import BLENDSHAPES
from cer_pipeline.perception.faces.crops import Square, lean, turned, turned_back

EYES: Final = (33, 133, 263, 362)  # of the mesh: outer and inner corner of the person's right eye, then of the left one
MOUTH: Final = (61, 291)  # corners


@dataclass(frozen=True)
class Pose:
    """Direction of the head against the camera, degrees; 0, 0, 0 looks straight into it.

    `yaw` is positive where the head turns to the right of the picture (an upright person's left), `pitch` where it
    looks up, `roll` where it leans towards the person's left shoulder, -180 to 180.
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class Mesh:
    """One face.

    Args:
        points: float32 [478, 3], x and y in pixels of the frame, z the depth in the scale of x, smaller is nearer.
        blendshapes: float32 [52], 0..1, in the order of `BLENDSHAPES`.
        pose: direction of the head.
    """

    points: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    pose: Pose


class FaceMesh:
    """The mesh model in IMAGE mode: every crop is judged on its own, no state passes from one to the next.

    A context manager: the library runs a thread of its own and fails loudly where nobody closes it before the
    interpreter ends.

    Args:
        model: the file face_landmarker.task.
        confidence: lowest score of the model's own detection and of its presence test, 0..1.
    """

    def __init__(self, model: Path, *, confidence: float) -> None:
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model), delegate=BaseOptions.Delegate.CPU),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=1,
            min_face_detection_confidence=confidence,
            min_face_presence_confidence=confidence,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with _native_log_hidden():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def __call__(self, crop: NDArray[np.uint8], square: Square, quarters: int = 0) -> Mesh | None:
        """The mesh of the face in a crop; None where the model finds none.

        Args:
            crop: RGB, uint8 [side, side, 3].
            square: where the crop lies in the frame.
            quarters: counter-clockwise quarter turns of the crop before the model sees it; points and pose are those of
                the frame all the same.
        """
        found = self._landmarker.detect(
            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=turned(crop, quarters))
        )
        if not found.face_landmarks:
            return None
        # Normalised by the crop's size; z is in the scale of x (MediaPipe, NormalizedLandmark).
        points = np.array([(p.x, p.y, p.z) for p in found.face_landmarks[0]], np.float64)
        points = turned_back(points, quarters) * square.side
        points[:, 0] += square.left
        points[:, 1] += square.top
        scores = {shape.category_name: shape.score for shape in found.face_blendshapes[0]}
        return Mesh(
            points.astype(np.float32),
            np.array([scores[name] for name in BLENDSHAPES], np.float32),
            pose(_clockwise(quarters) @ np.asarray(found.facial_transformation_matrixes[0], np.float64)),
        )


def _clockwise(quarters: int) -> NDArray[np.float64]:
    """The matrix that turns the camera's space clockwise about the line of sight by quarter turns, [4, 4]."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    matrix = np.eye(4)
    matrix[:2, :2] = [(cos, sin), (-sin, cos)]
    return matrix


def pose(matrix: NDArray[np.float64]) -> Pose:
    """Head pose from MediaPipe's facial transformation matrix.

    The matrix maps the canonical face (x to the right of the picture, y up, z out of the face towards the camera) into
    the camera's space with the same axes. Its rotation is read as turn, then tilt, then lean:
    R = Ry(yaw) Rx(-pitch) Rz(-roll), so that the viewing direction R z alone tells yaw and pitch.

    Args:
        matrix: [4, 4]; a scale in it is ignored.
    """
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    roll = np.arctan2(-rotation[1, 0], rotation[1, 1])
    return Pose(*(float(np.degrees(angle)) for angle in (yaw, pitch, roll)))


def agreement(points: NDArray[np.float32], box: tuple[float, float, float, float]) -> float:
    """Intersection over union of the mesh's bounding box and the detector's box, 0..1.

    A mesh is accepted from a least agreement on. Inside the margin there may be a second face, or a pattern that the
    mesh model takes for one: its mesh lies far from the box that asked, and would put another's expression there.

    Args:
        points: [478, 3], pixels of the frame.
        box: left, top, width, height, pixels of the frame.
    """
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    x, y, w, h = box
    across = min(x + w, right) - max(x, left)
    down = min(y + h, bottom) - max(y, top)
    if across <= 0 or down <= 0:
        return 0.0
    shared = float(across * down)
    return shared / (w * h + float((right - left) * (bottom - top)) - shared)


def mesh_lean(points: NDArray[np.float32]) -> float:
    """How far the face of a mesh leans in the picture, degrees, see `crops.lean`.

    Args:
        points: [478, 3], pixels of the frame.
    """
    eyes, mouth = (points[list(ids), :2].mean(axis=0, dtype=np.float64) for ids in (EYES, MOUTH))
    return lean(eyes, mouth)


@contextmanager
def _native_log_hidden() -> Iterator[None]:
    """Send the process's stderr nowhere while the native library starts: it greets there, and no setting stops it."""
    sys.stderr.flush()
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
