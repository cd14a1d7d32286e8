"""CLIP ViT-B/32: images and texts -> 512 features in one space (Table 1, IDs 4, 5, 8, 13 and 14).

Belongs here: loading both towers, the preprocessing of pictures, and the features. Does not belong here: heads
(`heads`), label prompts (`branches.scene.label_clip`) or tables.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision". A picture is
resized by bicubic interpolation so that its shorter side has 224 pixels, cropped at its centre, scaled to 0..1 and
standardised with the mean and standard deviation of CLIP's training pictures (the published preprocessor_config.json).
No part of it needs torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cer_pipeline.branches.encoders.pretrained import Model, load_pretrained
from cer_pipeline.branches.encoders.specs import POOLED

PIXELS: Final = 224
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)  # of red, green and blue, preprocessor_config.json
STD: Final = (0.26862954, 0.26130258, 0.27577711)
UNUSED: Final = r".*\.position_ids"  # constants in older files


def load_model(folder: Path, precision: str = "float32") -> Any:
    """Return both towers: `transformers.CLIPModel` in evaluation mode.

    Args:
        folder: holds config.json and model.safetensors.
        precision: float32 or bfloat16.

    Raises:
        CerError: the file does not hold this model.
    """
    return load_pretrained("clip.CLIPModel", folder, precision, UNUSED)


def load(folder: Path, precision: str, features: str) -> tuple[Any, Model]:
    """Return the network, and the map from token ids [B, t] to text features [B, 512].

    Args:
        folder: holds config.json and model.safetensors.
        precision: float32 or bfloat16.
        features: `POOLED` (the state of the end token) or `PROJECTED` (that state in the space of the images).
    """
    network = load_model(folder, precision)
    return network, lambda ids: text_features(network, ids, projected=features != POOLED)


def text_features(network: Any, ids: Tensor, projected: bool = True) -> Tensor:
    """Token ids [B, t] -> text features [B, 512]; not scaled to length 1.

    Attention is causal and the end token is pooled, so tokens behind it change nothing.
    """
    pooled = network.text_model(input_ids=ids).pooler_output
    return network.text_projection(pooled) if projected else pooled


def image_features(network: Any, pixels: Tensor) -> Tensor:
    """Pictures [B, 3, 224, 224] from `preprocess` -> image features [B, 512]; not scaled to length 1."""
    pooled = network.vision_model(pixel_values=pixels.to(network.visual_projection.weight.dtype)).pooler_output
    return network.visual_projection(pooled)


def logit_scale(network: Any) -> float:
    """The learned factor of the cosine similarities, about 100."""
    return float(network.logit_scale.float().exp())


def preprocess(rgb: NDArray[np.uint8], side: int = PIXELS) -> Tensor:
    """A picture [height, width, 3] in RGB -> float32 [3, side, side].

    Args:
        rgb: 0..255.
        side: of the square.
    """
    height, width = rgb.shape[:2]
    short = min(height, width)
    # int() as in the published preprocessing: the longer side is rounded down
    size = (
        side if width == short else int(side * width / short),
        side if height == short else int(side * height / short),
    )
    resized = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC), np.float32)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    square = resized[top : top + side, left : left + side] / 255
    standard = (square - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(standard.transpose(2, 0, 1)))
