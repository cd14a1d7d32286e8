"""CenterFace: where faces are in a picture, with five points on each.

Belongs here: the detector's network, the decoding of its maps, non-maximum suppression.
Does not belong here: another detector (`yolo`), whether a box really is a face (`landmarks`) and what happens over time
(`tracks`).

Source: Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point" (arXiv 1911.03599) and its
repository Star-Clouds/CenterFace, whose file `centerface.onnx` this reads. The file declares a fixed batch and size;
the sizes are freed before it is loaded, so that one session takes every picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cer_pipeline.perception.faces.boxes import Rectangle, iou

STRIDE: Final = 4  # pixels of the input per cell of the output maps (paper, section 3.1)
MULTIPLE: Final = 32  # the network halves its input five times
KEYPOINTS: Final = 5  # eyes, nose tip, corners of the mouth
OUTPUTS: Final = ("537", "538", "539", "540")  # heat map, log size, offset, five landmarks


@dataclass(frozen=True)
class Box:
    """A detected face: left and top edge, width and height in pixels of the picture, score 0..1.

    `keypoints` are x and y, pixels of the picture, of the person's right eye, left eye, nose tip, right and left corner
    of the mouth; empty where they were not detected. They may lie outside the box and the picture.
    """

    x: float
    y: float
    w: float
    h: float
    score: float
    keypoints: tuple[float, ...] = ()

    @property
    def rectangle(self) -> Rectangle:
        """Left, top, width, height."""
        return self.x, self.y, self.w, self.h

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.w * self.h


class CenterFace:
    """The detector with its settings.

    Args:
        model: the file centerface.onnx.
        long_side: length of the longer side of the network's input, pixels; pictures are never enlarged to it.
        score: lowest score of a box.
        overlap: IoU above which the weaker one of two boxes is dropped.
        smallest: lowest height of a box, pixels of the picture.
        threads: threads of the runtime; they change no result.
    """

    def __init__(
        self, model: Path, *, long_side: int, score: float, overlap: float, smallest: float, threads: int = 1
    ) -> None:
        self._session = session(free_sizes(model), threads)
        self._input = self._session.get_inputs()[0].name
        self._long_side = long_side
        self._score = score
        self._overlap = overlap
        self._smallest = smallest

    def __call__(self, rgb: NDArray[np.uint8]) -> list[Box]:
        """Faces of one picture, largest first (of equal size: topmost, then leftmost).

        Args:
            rgb: picture, uint8 [height, width, 3].
        """
        blob, scale = letterbox(rgb, self._long_side)
        heat, size, offset, points = (np.asarray(out)[0] for out in self._session.run(OUTPUTS, {self._input: blob}))
        boxes, scores, keypoints = decode(heat, size, offset, points, self._score)
        boxes = clip(boxes / scale, rgb.shape[1], rgb.shape[0])
        keypoints = keypoints.reshape(-1, 2 * KEYPOINTS) / scale
        kept = [
            Box(float(x), float(y), float(w), float(h), float(score), tuple(map(float, five)))
            # To single precision and back: readers of the table compute the same crop from the stored box.
            for (x, y, w, h), score, five in zip(
                boxes.astype(np.float32), scores, keypoints.astype(np.float32), strict=True
            )
            if h >= self._smallest and w > 0
        ]
        return largest_first(suppress(kept, self._overlap))


def session(
    model: bytes | str, threads: int, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """An ONNX model, loaded.

    Args:
        model: content of the file, or its path.
        threads: threads of the runtime; they change no result.
        providers: execution providers of onnxruntime, in the order of preference.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads sleep instead of spinning, which would slow concurrent stages down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=list(providers))


def free_sizes(model: Path) -> bytes:
    """The network with free batch, height and width, and with weights as constants, so that they can be folded.

    Args:
        model: an ONNX file whose first graph input is the picture and whose other inputs repeat the initialisers.
    """
    proto = onnx.load(str(model))
    weights = {tensor.name for tensor in proto.graph.initializer}
    pictures = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(pictures)
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in ((0, "batch"), (2, f"{value.name}_height"), (3, f"{value.name}_width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return proto.SerializeToString()


def letterbox(rgb: NDArray[np.uint8], long_side: int) -> tuple[NDArray[np.float32], float]:
    """The network's input: the picture shrunk to fit, black below and to the right up to multiples of 32.

    Args:
        rgb: picture, uint8 [height, width, 3].
        long_side: longest side of the shrunk picture, pixels.

    Returns:
        float32 [1, 3, height, width] with values 0..255, and the scale from picture to input.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, long_side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    height, width = rgb.shape[:2]
    blob = np.zeros((1, 3, -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE), np.float32)
    blob[0, :, :height, :width] = rgb.transpose(2, 0, 1)
    return blob, scale


def decode(
    heat: NDArray[np.float32],
    size: NDArray[np.float32],
    offset: NDArray[np.float32],
    points: NDArray[np.float32],
    threshold: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Boxes and points from the output maps: every cell above the threshold is the centre of one box.

    With cell (row r, column c): centre = (c + offset_x + 1/2, r + offset_y + 1/2) * 4 and sides = exp(size) * 4
    pixels; channel 0 of both maps is vertical, channel 1 horizontal. Point j lies at (left + points[2 j + 1] * width,
    top + points[2 j] * height) of the box (Star-Clouds/CenterFace).

    Args:
        heat: [1, rows, columns], face-centre score 0..1.
        size: [2, rows, columns], natural logarithm of height and width in cells.
        offset: [2, rows, columns], shift of the centre inside its cell.
        points: [10, rows, columns], vertical and horizontal place of five points, in sides of the box.
        threshold: lowest score.

    Returns:
        Boxes [n, 4] as left, top, width, height in pixels of the input, scores [n], and points [n, 5, 2] as x, y in
        pixels of the input, in row-major order of cells.
    """
    rows, columns = np.nonzero(heat[0] >= threshold)
    sides = np.exp(size[:, rows, columns].astype(np.float64)) * STRIDE
    y = (rows + offset[0, rows, columns].astype(np.float64) + 0.5) * STRIDE - sides[0] / 2
    x = (columns + offset[1, rows, columns].astype(np.float64) + 0.5) * STRIDE - sides[1] / 2
    boxes = np.stack([x, y, sides[1], sides[0]], axis=1)
    shares = points[:, rows, columns].astype(np.float64)
    five = np.stack([x + shares[1::2] * sides[1], y + shares[0::2] * sides[0]], axis=-1).transpose(1, 0, 2)
    return boxes, heat[0, rows, columns].astype(np.float64), five


def clip(boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """The part of every box [n, 4] (left, top, width, height) that lies in the picture."""
    low = np.clip(boxes[:, :2], 0, (width, height))
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, (width, height))
    return np.concatenate([low, high - low], axis=1)


def largest_first(boxes: Iterable[Box]) -> list[Box]:
    """Boxes by area, largest first; of equal size topmost, then leftmost first."""
    return sorted(boxes, key=lambda box: (-box.area, box.y, box.x))


def suppress(boxes: list[Box], overlap: float) -> list[Box]:
    """Greedy non-maximum suppression: the strongest box stays, all that overlap it by more than `overlap` go."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(iou(box.rectangle, other.rectangle) <= overlap for other in kept):
            kept.append(box)
    return kept
