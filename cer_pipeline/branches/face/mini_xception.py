"""mini-XCEPTION: expression logits of a 64 x 64 gray face.

Belongs here: the network, the reading of its weights, its label order and the crop that it is shown.
Does not belong here: the tables (`face`), or what is made of its output (`static`), which does not trust it where
it is known to be wrong.

Architecture: O. Arriaga, M. Valdenegro-Toro, P. Ploeger, "Real-time Convolutional Neural Networks for Emotion and
Gender Classification" (2017), figure 3, as the shipped Keras file spells it out: two plain 3 x 3 convolutions without
padding; four blocks, each of two separable convolutions and a max-pooling beside a strided 1 x 1 convolution; a 3 x 3
convolution to 7 maps; the mean over the map. Trained by its authors on FER2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cer_pipeline.branches.face.specs import LOGITS

SIDE: Final[int] = 64  # input, pixels
_WIDTHS: Final[tuple[int, ...]] = (8, 16, 32, 64, 128)
_EPSILON: Final[float] = 1e-3  # Keras' default for batch normalisation, and what the file states


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def pad_same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    """Pad as Keras' "same" does: output size ceil(n / stride), the odd pixel of padding at the bottom and right."""
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
    return functional.pad(x, (left, right, top, bottom), value=value)


class _Separable(nn.Module):
    """A 3 x 3 convolution of each channel, then a 1 x 1 convolution across channels; size kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class _Block(nn.Module):
    """Half the side, more channels: separable convolutions and pooling beside a strided shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.shortcut_norm = _norm(outputs)
        self.first = _Separable(inputs, outputs)
        self.first_norm = _norm(outputs)
        self.second = _Separable(outputs, outputs)
        self.second_norm = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        y = functional.max_pool2d(pad_same(y, 3, 2, float("-inf")), 3, 2)
        return y + self.shortcut_norm(self.shortcut(x))


class MiniXception(nn.Module):
    """The network; `forward` gives logits and the pooled map before the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_1 = nn.Conv2d(1, _WIDTHS[0], 3, bias=False)
        self.stem_1_norm = _norm(_WIDTHS[0])
        self.stem_2 = nn.Conv2d(_WIDTHS[0], _WIDTHS[0], 3, bias=False)
        self.stem_2_norm = _norm(_WIDTHS[0])
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in pairwise(_WIDTHS))
        self.last = nn.Conv2d(_WIDTHS[-1], LOGITS, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            x: [N, 1, 64, 64], gray levels in [-1, 1].

        Returns:
            logits [N, 7] in the order of `face.NATIVE`, and the mean over space of the last block's map [N, 128].
        """
        x = torch.relu(self.stem_1_norm(self.stem_1(x)))
        x = torch.relu(self.stem_2_norm(self.stem_2(x)))
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean(dim=(2, 3)), x.mean(dim=(2, 3))


def load(path: Path) -> MiniXception:
    """Read the weights from the published Keras file. Only arrays are read: no Keras, no pickle, no stored config.

    Args:
        path: `emotion_model.hdf5`.

    Raises:
        KeyError: the file does not hold the layers of this network.
        RuntimeError: an array has another shape than this network's.
    """
    import h5py

    model = MiniXception()
    with h5py.File(path, "r") as file:
        root: Any = file.get("model_weights", file)  # a whole model, or its weights alone

        def array(layer: str, name: str) -> np.ndarray:
            return np.asarray(root[f"{layer}/{layer}_1/{name}:0"])

        def norm(number: int, prefix: str) -> dict[str, np.ndarray]:
            names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
            return {f"{prefix}.{k}": array(f"batch_normalization_{number}", v) for k, v in names.items()}

        def plain(number: int, prefix: str) -> dict[str, np.ndarray]:
            return {f"{prefix}.weight": array(f"conv2d_{number}", "kernel").transpose(3, 2, 0, 1)}

        def separable(number: int, prefix: str) -> dict[str, np.ndarray]:
            layer = f"separable_conv2d_{number}"
            return {  # Keras keeps depthwise kernels as (height, width, channel, multiplier)
                f"{prefix}.depthwise.weight": array(layer, "depthwise_kernel").transpose(2, 3, 0, 1),
                f"{prefix}.pointwise.weight": array(layer, "pointwise_kernel").transpose(3, 2, 0, 1),
            }

        arrays = plain(1, "stem_1") | norm(1, "stem_1_norm") | plain(2, "stem_2") | norm(2, "stem_2_norm")
        for i in range(len(model.blocks)):  # the file numbers its layers in the order that they were created
            at = f"blocks.{i}"
            arrays |= plain(3 + i, f"{at}.shortcut") | norm(3 + 3 * i, f"{at}.shortcut_norm")
            arrays |= separable(1 + 2 * i, f"{at}.first") | norm(4 + 3 * i, f"{at}.first_norm")
            arrays |= separable(2 + 2 * i, f"{at}.second") | norm(5 + 3 * i, f"{at}.second_norm")
        arrays |= plain(7, "last") | {"last.bias": array("conv2d_7", "bias")}
    state = {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in arrays.items()}
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict(state | counters)
    return model.eval()


_LEFT_EYE: Final = (33, 133, 159, 145)  # MediaPipe mesh: corners, upper and lower lid, of the eye left in the picture
_RIGHT_EYE: Final = (263, 362, 386, 374)
_MOUTH: Final = (61, 291)  # corners
_EYE_TO_MOUTH: Final = 1.05  # eye distance over the distance from eyes to mouth in a frontal face


def views(
    picture: NDArray[np.uint8], points: NDArray[np.floating], sides: Sequence[float], eye_line: float
) -> NDArray[np.float32]:
    """What the network is shown of one face: upright squares of several sizes, each also mirrored.

    The eyes lie level at a fixed height and the square's side is a multiple of the eye distance, so that the crop
    follows the face and not the detector's box. The answer still hangs on the crop: the caller averages over the views.

    Chosen on ten real clips. A solemn speaker reads as happy with 0.50 to 0.83 in the box of the face (grown by 0 to
    20 %) and with 0.25 to 0.39 here, while visible smiles keep 0.84 to 0.99. When the points are moved by 3 % of the
    eye distance, half the sum of absolute changes of the distribution is 0.13 for one view, 0.115 with its mirror
    image, 0.075 for three sizes with theirs.

    Args:
        picture: gray, uint8 [height, width].
        points: [478, 2 or 3] mesh points, pixels of the picture.
        sides: side of each square, in eye distances.
        eye_line: height of the eyes in the square, share of its side from the top.

    Returns:
        [2 * len(sides), 64, 64], gray levels in [-1, 1]; odd views are the mirror image of the view before.
    """
    left, right, mouth = (points[list(ids), :2].mean(axis=0) for ids in (_LEFT_EYE, _RIGHT_EYE, _MOUTH))
    eyes = (left + right) / 2
    # A turned head brings the eyes together in the picture, a nodding one eyes and mouth; seldom both at once.
    distance = max(float(np.hypot(*(right - left))), _EYE_TO_MOUTH * float(np.hypot(*(mouth - eyes))), 1.0)
    roll = float(np.arctan2(right[1] - left[1], right[0] - left[0]))
    out = []
    for side in sides:
        gray = _upright(picture, eyes, roll, side * distance, eye_line).astype(np.float32) / 127.5 - 1.0
        out += [gray, gray[:, ::-1]]
    return np.stack(out)


def _upright(
    picture: NDArray[np.uint8], eyes: NDArray[np.floating], roll: float, side: float, eye_line: float
) -> NDArray[np.uint8]:
    """A levelled square of a picture at 64 x 64; beyond the picture its rim is repeated."""
    factor = max(1, int(np.ceil(side / SIDE)))  # sampled finely, then averaged: no aliasing
    size = SIDE * factor
    cos, sin = np.cos(roll) * size / side, np.sin(roll) * size / side
    turn = np.array([[cos, sin], [-sin, cos]])
    shift = np.array([0.5 * size, eye_line * size]) - turn @ eyes
    matrix = np.column_stack([turn, shift])
    fine = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    out = fine if factor == 1 else cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(out, dtype=np.uint8)
