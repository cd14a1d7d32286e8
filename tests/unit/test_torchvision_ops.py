"""torchvision beside a torch without CUDA: its non-maximum suppression, and the imports that need it."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cer_pipeline
from cer_pipeline.torchvision_ops import nms

NEEDS_OPERATORS = {"transformers", "open_clip", "ultralytics", "torchvision"}
WITHOUT_TORCHVISION = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed (make install EXTRAS=gpu)"
)


def naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    def iou(a: np.ndarray, b: np.ndarray) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        shared = width * height
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def boxes_of(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] + 1], axis=1).astype(np.float64)


@settings(deadline=None)
@given(
    corners=arrays.arrays(np.int16, st.tuples(st.integers(0, 30), st.just(4)), elements=st.integers(0, 40)),
    threshold=st.floats(0.05, 0.95),
    data=st.data(),
)
def test_nms_keeps_the_boxes_that_a_plain_loop_keeps(corners: np.ndarray, threshold: float, data: st.DataObject):
    boxes = boxes_of(corners)
    ranks = data.draw(arrays.arrays(np.int8, len(boxes), elements=st.integers(0, 9)))
    scores = ranks / 10  # equal scores occur
    kept = nms(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), threshold)
    assert kept.tolist() == naive_nms(boxes, scores, threshold)


def test_nms_of_no_boxes_keeps_none():
    assert nms(torch.empty(0, 4), torch.empty(0), 0.5).tolist() == []


def test_nms_keeps_one_of_two_equal_boxes_and_both_of_two_apart():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], dtype=torch.float32)
    assert nms(boxes, torch.tensor([0.2, 0.9, 0.5]), 0.5).tolist() == [1, 2]


@WITHOUT_TORCHVISION
@pytest.mark.slow
@pytest.mark.parametrize("module", ["transformers.models.clip.modeling_clip", "open_clip", "ultralytics"])
def test_packages_over_torchvision_load_after_the_preparation(module: str, tmp_path: Path):
    if find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed (make install EXTRAS=gpu)")
    code = f"""
import os
os.environ |= dict(YOLO_OFFLINE="True", YOLO_AUTOINSTALL="False", YOLO_CONFIG_DIR={str(tmp_path)!r})
from cer_pipeline.torchvision_ops import prepare_torchvision
first, second = prepare_torchvision(), prepare_torchvision()
assert first == second
import torch, torchvision, {module}
assert first is False or torch.version.cuda is None  # a CUDA machine keeps the native operators
boxes = torch.tensor([[0., 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])
assert torchvision.ops.nms(boxes, torch.tensor([.5, .9, .1]), .5).tolist() == [1, 2]
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_that_imports_a_package_over_torchvision_prepares_it_first():
    without = []
    for path in Path(cer_pipeline.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]:
            node.body = []  # imported by the type checker alone
        imported = {
            alias.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        }
        imported |= {(n.module or "").partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if imported & NEEDS_OPERATORS and path.name != "torchvision_ops.py" and "prepare_torchvision" not in called:
            without.append(str(path))
    assert without == []
