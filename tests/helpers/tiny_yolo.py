"""A tiny random detector with the input and output of YOLO11n-face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)  # of the three grids: 80 x 80, 40 x 40 and 20 x 20 cells
CELLS = 8400
FILE = "yolov11n-face.onnx"  # of the zoo entry yolo_face
SPREAD = 12.0  # of the logits of the scores: some cells of every picture exceed 0.5


def tiny_yolo(
    folder: Path,
    boxes: Sequence[tuple[float, float, float, float]] = (),
    seed: int = 0,
    fixed_batch: bool = False,
) -> Path:
    """Write the file of the zoo entry `yolo_face`: one convolution for each grid, random weights.

    Args:
        folder: where it is written.
        boxes: centre x, centre y, width and height in pixels of the 640 x 640 input. They are what the model finds in
            every picture, with a score of 1; without any, it finds what the picture and the random weights make.
        seed: of the weights.
        fixed_batch: whether the file declares a batch of one picture.
    """
    rng = np.random.default_rng(seed)
    constants: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, values: NDArray) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    flat = []
    for stride in STRIDES:
        weights = rng.normal(0, SPREAD / stride, (5, 3, stride, stride)).astype(np.float32)
        weights -= weights.mean(axis=(1, 2, 3), keepdims=True)  # an even picture has logits of 0
        kernel = constant(f"kernel_{stride}", weights)
        grid = node("Conv", ["images", kernel], f"grid_{stride}", strides=[stride, stride])
        flat.append(node("Reshape", [grid, constant(f"shape_{stride}", np.array([0, 5, -1]))], f"flat_{stride}"))
    node("Concat", flat, "raw", axis=2)
    node("Split", ["raw", constant("parts", np.array([2, 2, 1]))], "", axis=1)
    nodes[-1].output[:] = ["shift", "size", "logit"]
    x, y, side = np.concatenate([_cells(stride) for stride in STRIDES], axis=1)
    known = np.zeros(CELLS, np.float32)
    place, extent = np.stack([x, y])[None], np.stack([side, side])[None]
    for k, (cx, cy, w, h) in enumerate(boxes):
        known[k], place[0, :, k], extent[0, :, k] = 1, (cx, cy), (w, h)
    free = 1 - known
    scale, small = constant("free", free[None, None]), constant("small", free[None, None] / SPREAD)
    node("Mul", [node("Mul", ["shift", small], "shift_free"), constant("cell", side[None, None])], "moved")
    node("Add", ["moved", constant("place", place)], "centre")
    growth = node("Exp", [node("Mul", ["size", small], "size_free")], "growth")
    node("Mul", [growth, constant("extent", extent)], "sides")
    node("Mul", ["logit", scale], "logit_free")
    bias = np.where(known > 0, 50, -50 if len(boxes) else -2).astype(np.float32)
    node("Sigmoid", [node("Add", ["logit_free", constant("bias", bias[None, None])], "shifted")], "score")
    node("Concat", ["centre", "sides", "score"], "output0", axis=1)

    batch = 1 if fixed_batch else "batch"
    graph = helper.make_graph(
        nodes,
        "tiny_yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 640, 640])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 5, CELLS])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"task": "detect", "stride": "32", "imgsz": "[640, 640]", "names": "{0: 'face'}"})
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / FILE))
    return folder / FILE


def _cells(stride: int) -> NDArray[np.float32]:
    """x and y of the centre of each cell of a grid, row by row, and the typical side of its boxes: [3, cells]."""
    centres = (np.arange(640 // stride) + 0.5) * stride
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, 4.0 * stride)]).astype(np.float32)
