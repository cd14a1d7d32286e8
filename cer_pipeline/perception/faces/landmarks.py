"""MediaPipe FaceLandmarker on one crop: mesh, blendshapes and head pose.

Belongs here: the mesh model, the mapping of its points to pixels of the frame, head pose. Does not belong here:
detection (`detector`), the crop's geometry (`crops`), the rule that accepts a mesh (`stage`), any meaning of an
expression.
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
from cer_pipeline.perception.faces.boxes import Rectangle
from cer_pipeline.perception.faces.crops import Square, tilt, turned, turned_back

EYES: Final = (33, 133, 263, 362)  # of the mesh: outer and inner corner of the person's right eye, then of the left one
MOUTH: Final = (61, 291)  # corners


@dataclass(frozen=True)
class Pose:
    """Direction of the head against the camera, degrees; 0, 0, 0 looks straight into it.

    `yaw` is positive where the head turns to the right of the picture (an upright person's left), `pitch` where it
    looks up, `roll` where it tilts towards the person's left shoulder, -180 to 180.
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
    """The mesh model in IMAGE mode: no state passes from one crop to the next.

    A context manager: the library runs a thread of its own and raises an error where it is not closed before the
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
        result = self._landmarker.detect(
            mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=turned(crop, quarters))
        )
        if not result.face_landmarks:
            return None
        # Normalised by the crop's size; z is in the scale of x (MediaPipe, NormalizedLandmark).
        points = np.array([(p.x, p.y, p.z) for p in result.face_landmarks[0]], np.float64)
        points = turned_back(points, quarters) * square.side
        points[:, 0] += square.left
        points[:, 1] += square.top
        scores = {shape.category_name: shape.score for shape in result.face_blendshapes[0]}
        return Mesh(
            points.astype(np.float32),
            np.array([scores[name] for name in BLENDSHAPES], np.float32),
            pose(_clockwise(quarters) @ np.asarray(result.facial_transformation_matrixes[0], np.float64)),
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
    the camera's space with the same axes. Its rotation is decomposed as R = Ry(yaw) Rx(-pitch) Rz(-roll), so that yaw
    and pitch follow from the viewing direction R z alone.

    Args:
        matrix: [4, 4]; a scale in it is ignored.
    """
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    roll = np.arctan2(-rotation[1, 0], rotation[1, 1])
    return Pose(*(float(np.degrees(angle)) for angle in (yaw, pitch, roll)))


def bounds(points: NDArray[np.float32]) -> Rectangle:
    """The smallest box around a mesh.

    Args:
        points: [478, 3], pixels of the frame.
    """
    left, top, right, bottom = (float(v) for v in (*points[:, :2].min(axis=0), *points[:, :2].max(axis=0)))
    return left, top, right - left, bottom - top


def mesh_tilt(points: NDArray[np.float32]) -> float:
    """Tilt of the face of a mesh in the picture, degrees, see `crops.tilt`.

    Args:
        points: [478, 3], pixels of the frame.
    """
    eyes, mouth = (points[list(ids), :2].mean(axis=0, dtype=np.float64) for ids in (EYES, MOUTH))
    return tilt(eyes, mouth)


@contextmanager
def _native_log_hidden() -> Iterator[None]:
    """Discard the process's stderr while the native library starts: no setting stops the messages that it writes."""
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
