"""EmoAffectNet: expression of one face, and its 512 features (Table 1, IDs 1 to 3).

Belongs here: the network, the reading of its weights, its input. Does not belong here: which part of a frame it reads
(`frame_encoder`), or what is made of its output (`expression`, `temporal`).

Architecture: the ResNet-50 of VGGFace2 (Cao et al., "VGGFace2: A dataset for recognising faces across pose and age",
FG 2018) with a layer of 512 units before the last one; Ryumina, Dresvyanskiy and Karpov, "In search of a robust facial
expressions recognition model" (Neurocomputing 514, 2022). It was converted from Keras, from which it has the padding of
its first convolution and the epsilon of its normalisation. The stride of a stage is in its first 1 x 1 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cer_pipeline.branches.face.mini_xception import pad_same
from cer_pipeline.branches.face.specs import EMBEDDING
from cer_pipeline.errors import CerError

SIDE: Final = 224  # input, pixels
CLASSES: Final = 7
MEAN_BGR: Final = (91.4953, 103.8827, 131.0912)  # of VGGFace2; published code
STAGES: Final = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
"""Blocks, width and stride of each stage of a ResNet-50."""
EXPANSION: Final = 4  # output channels of a block over its width
EPSILON: Final = 1e-3  # Keras' default for batch normalisation
COUNTER: Final = "num_batches_tracked"  # of torch's batch normalisation; inference does not read it


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class _Block(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside an identity, or a 1 x 1 convolution where the size changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)
        self.batch_norm1 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.batch_norm2 = _norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.batch_norm3 = _norm(outputs)
        self.i_downsample = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), _norm(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.batch_norm1(self.conv1(x)))
        y = torch.relu(self.batch_norm2(self.conv2(y)))
        return torch.relu(self.batch_norm3(self.conv3(y)) + self.i_downsample(x))


class EmoAffectNet(nn.Module):
    """The network; names of its parameters are those of the published state dict."""

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0][1]
        self.conv_layer_s2_same = nn.Conv2d(3, channels, 7, stride=2, bias=False)
        self.batch_norm1 = _norm(channels)
        for number, (blocks, width, stride) in enumerate(STAGES, 1):
            first = _Block(channels, width, stride)
            channels = EXPANSION * width
            rest = (_Block(channels, width, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.fc1 = nn.Linear(channels, EMBEDDING)
        self.fc2 = nn.Linear(EMBEDDING, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network.

        Args:
            x: [N, 3, 224, 224], see `normalise`.

        Returns:
            [N, 519]: 512 features before their ReLU, then 7 logits in the order of the zoo entry's native labels.
        """
        x = self.conv_layer_s2_same(pad_same(x, 7, 2, 0.0))
        x = functional.max_pool2d(torch.relu(self.batch_norm1(x)), 3, 2)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        features = self.fc1(x.mean(dim=(2, 3)))
        return torch.cat([features, self.fc2(torch.relu(features))], dim=1)


def prepare(crop: NDArray[np.uint8]) -> Tensor:
    """A face as the network's pixels: uint8 [3, 224, 224], RGB, resized by nearest neighbour.

    Args:
        crop: RGB, uint8 [height, width, 3].
    """
    resized = Image.fromarray(crop).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def normalise(pixels: Tensor) -> Tensor:
    """The network's input: pixels 0..255 in the order blue, green, red, minus the mean of each channel.

    Args:
        pixels: uint8 [N, 3, 224, 224], RGB.
    """
    mean = torch.tensor(MEAN_BGR, dtype=torch.float32, device=pixels.device)
    return pixels.flip(1).to(torch.float32) - mean.view(1, 3, 1, 1)


def load(path: Path) -> EmoAffectNet:
    """Read the weights, converted from the published state dict.

    Args:
        path: a safetensors file.

    Raises:
        CerError: the file does not hold exactly the parameters of this network.
    """
    try:
        return build(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        what = " ".join(str(error).split())
        raise CerError(f"not the weights of EmoAffectNet ({what[:200]})", str(path), "pull the model again") from None


def build(state: Mapping[str, Tensor]) -> EmoAffectNet:
    """The network with a state dict, ready to predict. The state dict may lack torch's counters of batches.

    Raises:
        RuntimeError: names or shapes differ from those of the network.
    """
    model = EmoAffectNet()
    counters = {name: value for name, value in model.state_dict().items() if name.endswith(COUNTER)}
    model.load_state_dict({**counters, **state})
    return model.eval()
