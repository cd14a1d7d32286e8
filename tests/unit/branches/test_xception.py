"""mini-XCEPTION: the same network as the published file, and a crop that follows the face."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from cer_pipeline.branches.face import mini_xception as xception
from cer_pipeline.branches.face.mini_xception import SIDE
from cer_pipeline.branches.face.specs import LOGITS, NATIVE, POOLED
from cer_pipeline.zoo import Zoo

WIDTHS = (8, 16, 32, 64, 128)


def naive_conv(x: np.ndarray, kernel: np.ndarray, stride: int, same: bool) -> np.ndarray:
    """Keras' Conv2D on [h, w, c] with kernel [k, k, c, f], by its definition."""
    k = kernel.shape[0]
    if same:
        total = [max((-(-n // stride) - 1) * stride + k - n, 0) for n in x.shape[:2]]
        x = np.pad(x, [(t // 2, t - t // 2) for t in total] + [(0, 0)])
    h, w = ((n - k) // stride + 1 for n in x.shape[:2])
    out = np.zeros((h, w, kernel.shape[3]))
    for i in range(k):
        for j in range(k):
            out += x[i : i + stride * h : stride, j : j + stride * w : stride] @ kernel[i, j]
    return out


def naive_depthwise(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each channel with its own 3 x 3 kernel [3, 3, c, 1], zero-padded by one."""
    return np.stack(
        [naive_conv(x[..., c : c + 1], kernel[:, :, c : c + 1], 1, True)[..., 0] for c in range(x.shape[2])], -1
    )


def naive_pool(x: np.ndarray) -> np.ndarray:
    """Keras' 3 x 3 max-pooling with stride 2 and "same" padding."""
    h, w = (-(-n // 2) for n in x.shape[:2])
    top, left = (max((m - 1) * 2 + 3 - n, 0) // 2 for m, n in zip((h, w), x.shape[:2], strict=True))
    out = np.empty((h, w, x.shape[2]))
    for i in range(h):
        for j in range(w):
            rows = slice(max(0, 2 * i - top), 2 * i - top + 3)
            columns = slice(max(0, 2 * j - left), 2 * j - left + 3)
            out[i, j] = x[rows, columns].max(axis=(0, 1))
    return out


def naive_network(file: h5py.File, x: np.ndarray) -> np.ndarray:
    """The network by the layer list of the published file, on [64, 64, 1]: 7 logits."""

    def array(layer: str, name: str) -> np.ndarray:
        return np.asarray(file[f"{layer}/{layer}_1/{name}:0"], dtype=np.float64)

    def norm(x: np.ndarray, number: int) -> np.ndarray:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (array(f"batch_normalization_{number}", n) for n in names)
        return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta

    def separable(x: np.ndarray, number: int) -> np.ndarray:
        layer = f"separable_conv2d_{number}"
        depth = naive_depthwise(x, array(layer, "depthwise_kernel"))
        return naive_conv(depth, array(layer, "pointwise_kernel"), 1, True)

    for number in (1, 2):
        x = np.maximum(norm(naive_conv(x, array(f"conv2d_{number}", "kernel"), 1, False), number), 0)
    for i in range(4):
        shortcut = norm(naive_conv(x, array(f"conv2d_{3 + i}", "kernel"), 2, True), 3 + 3 * i)
        y = np.maximum(norm(separable(x, 1 + 2 * i), 4 + 3 * i), 0)
        x = naive_pool(norm(separable(y, 2 + 2 * i), 5 + 3 * i)) + shortcut
    return (naive_conv(x, array("conv2d_7", "kernel"), 1, True) + array("conv2d_7", "bias")).mean(axis=(0, 1))


def write_random(path: Path) -> None:
    """A file with the layers of the published one and random arrays."""
    rng = np.random.default_rng(5)
    with h5py.File(path, "w") as file:

        def put(layer: str, name: str, *shape: int, spread: float = 0.4) -> None:
            file[f"{layer}/{layer}_1/{name}:0"] = rng.normal(0, spread, shape).astype(np.float32)

        def norm(number: int, channels: int) -> None:
            for name in ("gamma", "beta", "moving_mean"):
                put(f"batch_normalization_{number}", name, channels)
            layer = f"batch_normalization_{number}"
            # Small variances, so that a wrong epsilon shows.
            file[f"{layer}/{layer}_1/moving_variance:0"] = rng.uniform(0.01, 0.5, channels).astype(np.float32)

        put("conv2d_1", "kernel", 3, 3, 1, 8)
        put("conv2d_2", "kernel", 3, 3, 8, 8)
        norm(1, 8)
        norm(2, 8)
        for i, (a, b) in enumerate(pairwise(WIDTHS)):
            put(f"conv2d_{3 + i}", "kernel", 1, 1, a, b)
            for number, inputs in ((1 + 2 * i, a), (2 + 2 * i, b)):
                put(f"separable_conv2d_{number}", "depthwise_kernel", 3, 3, inputs, 1)
                put(f"separable_conv2d_{number}", "pointwise_kernel", 1, 1, inputs, b, spread=0.2)
            for number in (3 + 3 * i, 4 + 3 * i, 5 + 3 * i):
                norm(number, b)
        put("conv2d_7", "kernel", 3, 3, 128, 7, spread=0.1)
        put("conv2d_7", "bias", 7)


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_random`."""
    path = tmp_path_factory.mktemp("keras") / "model.hdf5"
    write_random(path)
    return path


def test_the_network_computes_what_the_layer_list_says(random_file: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE))
    with h5py.File(random_file) as file:
        expected = naive_network(file, x[..., None])
    with torch.inference_mode():
        logits, pooled = xception.load(random_file)(torch.from_numpy(x.astype(np.float32))[None, None])
    assert pooled.shape == (1, POOLED)
    np.testing.assert_allclose(logits[0].numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_file_without_a_layer_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["dense_1/dense_1/kernel:0"] = np.zeros((2, 2), np.float32)
    with pytest.raises(KeyError):
        xception.load(tmp_path / "other.hdf5")


def test_the_real_weights_agree_with_the_quantised_network_of_the_same_publisher(weights: Zoo) -> None:
    interpreter_of = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    path = weights.path("mini_xception")
    quantised = path.with_name("emotion_model_quantized.tflite")
    if not quantised.is_file():
        pytest.skip(f"{quantised.name} does not lie beside the weights (set CER_MODELS to a folder that has it)")
    interpreter = interpreter_of.Interpreter(str(quantised))
    interpreter.allocate_tensors()
    source, target = (side()[0]["index"] for side in (interpreter.get_input_details, interpreter.get_output_details))
    model = xception.load(path)
    rng = np.random.default_rng(1)
    for blur in (1.0, 2.0, 4.0, 8.0):
        x = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), blur)
        x /= np.abs(x).max()
        interpreter.set_tensor(source, x[None, :, :, None])
        interpreter.invoke()
        with torch.inference_mode():
            p = torch.softmax(model(torch.from_numpy(x)[None, None])[0], dim=-1)[0].numpy()
        assert p.argmax() == interpreter.get_tensor(target)[0].argmax()
        np.testing.assert_allclose(p, interpreter.get_tensor(target)[0], atol=0.03)  # 8-bit weights


def test_the_native_order_names_seven_emotions_once() -> None:
    assert LOGITS == 7
    assert sorted(NATIVE) == ["Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise"]


def face(turn: float, scale: float, shift: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and its mesh points (only those that the crop reads), turned, scaled and moved together."""
    y, x = np.mgrid[0:400, 0:400].astype(np.float32)
    centre = np.array([200.0, 200.0])
    angle = np.deg2rad(turn)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(rotation)
    u, v = np.tensordot(back, np.stack([x - centre[0] - shift[0], y - centre[1] - shift[1]]), axes=1)
    picture = 128 + 60 * np.sin(u / 17) + 50 * np.cos(v / 23 + u / 41)
    points = np.zeros((478, 3))
    for ids, at in (((33, 133, 159, 145), (-30, -25)), ((263, 362, 386, 374), (30, -25)), ((61, 291), (0, 35))):
        points[list(ids), :2] = rotation @ np.array(at, float) + centre + shift
    return picture.astype(np.uint8), points


def test_the_crop_follows_the_face_when_it_turns_grows_and_moves() -> None:
    upright = xception.views(*face(0, 1, (0, 0)), sides=[2.0, 2.8], eye_line=0.39)
    moved = xception.views(*face(20, 1.3, (15, -10)), sides=[2.0, 2.8], eye_line=0.39)
    assert upright.shape == (4, SIDE, SIDE)
    assert np.abs(upright - moved).mean() < 0.02
    assert np.abs(upright[0] - upright[2]).mean() > 0.1  # the two sizes do differ


def test_every_second_view_is_the_mirror_image() -> None:
    found = xception.views(*face(5, 1, (0, 0)), sides=[2.0, 2.4, 2.8], eye_line=0.39)
    np.testing.assert_array_equal(found[1::2], found[::2, :, ::-1])
    assert found.min() >= -1
    assert found.max() <= 1
