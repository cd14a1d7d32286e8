"""YOLO11n-face: where faces are in pictures, in batches, through onnxruntime or through ultralytics.

Belongs here: the detector's input, the decoding of its output, the two libraries that run it. Does not belong here:
non-maximum suppression (`detector`), whether a box really is a face (`landmarks`).

Both read the same ONNX export. Its output holds centre, size and score of 8400 boxes: one for each cell of three grids
of 80 x 80, 40 x 40 and 20 x 20 cells. It has no landmarks, so the boxes have no `keypoints`.

Source: Jocher and Qiu, "Ultralytics YOLO11" (2024): input of 640 x 640 pixels, the picture in the middle of a grey
border; the published code of the paper runs it with a score of 0.01 and an IoU of 0.5.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.perception.faces.detector import Box, clip, largest_first, session, suppress
from cer_pipeline.torchvision_ops import prepare_torchvision

SIDE: Final = 640  # pixels of the square input for which the model was trained and exported
GREY: Final = 114  # of the border
_CPU: Final = "CPUExecutionProvider"

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Placement:
    """Where a picture is in the network's input: left and top edge, width and height of it, in pixels of the input."""

    left: int
    top: int
    width: int
    height: int


class Yolo:
    """The detector through onnxruntime.

    Args:
        model: the ONNX export.
        score: lowest score of a box.
        overlap: IoU above which the weaker one of two boxes is dropped.
        smallest: lowest height of a box, pixels of the picture.
        batch: most pictures of one call of the model.
        threads: threads of the runtime; they change no result.
        cuda: whether the model runs on the first CUDA device.
    """

    def __init__(
        self,
        model: Path,
        *,
        score: float,
        overlap: float,
        smallest: float,
        batch: int = 1,
        threads: int = 1,
        cuda: bool = False,
    ) -> None:
        self._session = session(str(model), threads, (*(["CUDAExecutionProvider"] if cuda else []), _CPU))
        declared = self._session.get_inputs()[0]
        self._input = declared.name
        self._batch = declared.shape[0] if isinstance(declared.shape[0], int) else batch
        self._score, self._overlap, self._smallest = score, overlap, smallest

    def __call__(self, pictures: Sequence[Picture]) -> list[list[Box]]:
        """The faces of each picture, largest first.

        Args:
            pictures: RGB, uint8 [height, width, 3], of any sizes.
        """
        starts = range(0, len(pictures), self._batch)
        return [boxes for i in starts for boxes in self._run(pictures[i : i + self._batch])]

    def _run(self, pictures: Sequence[Picture]) -> Iterator[list[Box]]:
        placed = [letterbox(picture) for picture in pictures]
        blob = np.stack([square.transpose(2, 0, 1) for square, _ in placed]).astype(np.float32) / np.float32(255)
        (outputs,) = self._session.run(None, {self._input: blob})
        for output, picture, (_, place) in zip(np.asarray(outputs), pictures, placed, strict=True):
            sides, scores = decode(output, self._score)
            boxes = [Box(*side, score=score) for side, score in zip(sides.tolist(), scores.tolist(), strict=True)]
            yield in_picture(suppress(boxes, self._overlap), place, picture, self._smallest)


class Ultralytics:
    """The detector through the package ultralytics (AGPL-3.0), without network, telemetry or installation of packages.

    Args:
        model: the ONNX export; its name ends in `.onnx`.
        score: lowest score of a box.
        overlap: IoU above which the weaker one of two boxes is dropped.
        smallest: lowest height of a box, pixels of the picture.
        cuda: whether the model runs on the first CUDA device.

    Raises:
        CerError: the package is not installed.
    """

    def __init__(self, model: Path, *, score: float, overlap: float, smallest: float, cuda: bool = False) -> None:
        self._model = _ultralytics().YOLO(str(model), task="detect")
        self._smallest = smallest
        self._options: dict[str, Any] = {
            "imgsz": SIDE,
            "conf": score,
            "iou": overlap,
            "rect": False,  # a square input, as `letterbox` makes it
            "max_det": 8400,  # all
            "device": 0 if cuda else "cpu",
            "verbose": False,
            "save": False,
        }

    def __call__(self, pictures: Sequence[Picture]) -> list[list[Box]]:
        """The faces of each picture, see `Yolo`."""
        found = []
        for picture in pictures:
            bgr = np.ascontiguousarray(picture[:, :, ::-1])
            boxes = self._model.predict(bgr, **self._options)[0].boxes
            corners = np.asarray(boxes.xyxy.cpu().numpy(), np.float64)
            sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            found.append(_kept(sides, boxes.conf.cpu().numpy().tolist(), self._smallest))
        return found


def letterbox(picture: Picture) -> tuple[Picture, Placement]:
    """The network's input: the picture scaled to fit, in the middle of a grey square.

    Args:
        picture: uint8 [height, width, 3].

    Returns:
        uint8 [640, 640, 3], and the place of the picture in it.
    """
    height, width = picture.shape[:2]
    scale = min(SIDE / height, SIDE / width)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    if (across, down) != (width, height):
        picture = np.asarray(cv2.resize(picture, (across, down), interpolation=cv2.INTER_LINEAR), np.uint8)
    # Half a pixel goes to the right and to the bottom.
    place = Placement((SIDE - across) // 2, (SIDE - down) // 2, across, down)
    square = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    square[place.top : place.top + down, place.left : place.left + across] = picture
    return square, place


def decode(output: NDArray[np.float32], score: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes above a score.

    Args:
        output: [5, n]: x and y of the centre, width, height in pixels of the input, score.
        score: boxes whose score is not above it are left out.

    Returns:
        Boxes [m, 4] as left, top, width, height in pixels of the input, and scores [m].
    """
    x, y, w, h, scores = output[:, output[4] > score].astype(np.float64)
    return np.stack([x - w / 2, y - h / 2, w, h], axis=1), scores


def in_picture(boxes: Sequence[Box], place: Placement, picture: Picture, smallest: float) -> list[Box]:
    """Boxes of the input as boxes of the picture: cut at its border, largest first, without small ones.

    Args:
        boxes: in pixels of the input.
        place: of the picture in the input.
        picture: uint8 [height, width, 3].
        smallest: lowest height, pixels of the picture.
    """
    height, width = picture.shape[:2]
    gain = np.array([width / place.width, height / place.height] * 2)
    sides = np.array([box.rectangle for box in boxes], np.float64).reshape(-1, 4)
    moved = (sides - (place.left, place.top, 0, 0)) * gain
    return _kept(clip(moved, width, height), [box.score for box in boxes], smallest)


def _kept(sides: NDArray[np.float64], scores: Sequence[float], smallest: float) -> list[Box]:
    """Boxes [n, 4] that have a width and the lowest height."""
    # To single precision and back: readers of the table compute the same crop from the stored box.
    single = sides.astype(np.float32).tolist()
    boxes = (Box(*side, score=score) for side, score in zip(single, scores, strict=True))
    return largest_first(box for box in boxes if box.h >= smallest and box.w > 0)


def _ultralytics() -> Any:
    """The package, imported so that it opens no connection, installs nothing and writes to a temporary folder only.

    Raises:
        CerError: it is not installed.
    """
    if util.find_spec("ultralytics") is None:
        then = 'install the extra "gpu" (`pip install "cer-pipeline[gpu]"`), or set faces.detector to yolo'
        raise CerError("the package of this detector is not installed", "ultralytics", then)
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="cer-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    os.environ |= {"YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False"}
    prepare_torchvision()
    import ultralytics  # pyright: ignore[reportMissingImports]

    return ultralytics
