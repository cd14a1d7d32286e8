"""The image encoder of CLIP ViT-B/32 through open_clip or transformers: 512 features of a face (Table 1, IDs 4 and 5).

Belongs here: the choice of the library, and the tensors of transformers under the names of open_clip. Does not belong
here: loading CLIP, its preprocessing (`branches.encoders.clip`), or which part of a frame is read (`frame_encoder`).

Both libraries compute the same network from the same file: open_clip calls it ViT-B-32-quickgelu. Features are those of
`get_image_features` of transformers, with projection and without normalisation, as in the published code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from cer_pipeline.branches.encoders.clip import image_features, load_model
from cer_pipeline.errors import CerError
from cer_pipeline.torchvision_ops import prepare_torchvision

OPEN_CLIP: Final = "open_clip"
TRANSFORMERS: Final = "transformers"
PREFIXES: Final = ("vision_model.", "visual_projection.")  # of the image encoder in the whole model
POSITIONS: Final = "vision_model.embeddings.position_ids"  # a constant that older versions of transformers keep


@dataclass(frozen=True)
class ImageEncoder:
    """The image encoder.

    Args:
        side: of its input, pixels; see `branches.encoders.clip.preprocess`.
        features: float32 [N, 3, side, side] -> features [N, 512], not normalised.
    """

    side: int
    features: Callable[[Tensor], Tensor]


def choose_library(name: str) -> str:
    """The library of a setting: "auto" is open_clip where it is installed, else transformers.

    Raises:
        CerError: open_clip is named and not installed.
    """
    installed = util.find_spec(OPEN_CLIP) is not None
    if name == OPEN_CLIP and not installed:
        then = 'install the extra "gpu" (`pip install "cer-pipeline[gpu]"`), or set face_clip.library to auto'
        raise CerError("the library of the image encoder is not installed", OPEN_CLIP, then)
    return name if name != "auto" else (OPEN_CLIP if installed else TRANSFORMERS)


def load(folder: Path, library: str, device: torch.device) -> ImageEncoder:
    """Read the image encoder of a CLIP model.

    Args:
        folder: holds config.json and model.safetensors, with the names of transformers.
        library: open_clip or transformers.
        device: where it runs.

    Raises:
        CerError: the files do not hold a CLIP model.
    """
    network = load_model(folder).to(device)
    side = int(network.config.vision_config.image_size)
    if library == TRANSFORMERS:
        return ImageEncoder(side, partial(image_features, network))
    return ImageEncoder(side, _open_clip(network).to(device).eval())


def image_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of the image encoder of a whole CLIP model of transformers."""
    state = network.state_dict()
    return {name: value for name, value in state.items() if name.startswith(PREFIXES) and name != POSITIONS}


def _open_clip(network: Any) -> nn.Module:
    prepare_torchvision()
    from open_clip.transformer import QuickGELU, VisionTransformer  # pyright: ignore[reportMissingImports]

    config = network.config.vision_config
    model = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        output_dim=network.config.projection_dim,
        act_layer=QuickGELU,
    )
    model.load_state_dict(renamed(image_tensors(network), config.num_hidden_layers))
    return model


def renamed(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """An image encoder's tensors of transformers under the names of open_clip.

    open_clip keeps query, key and value in one matrix, and the projection transposed.

    Args:
        state: tensors of the image encoder; every one of them has a name in open_clip.
        layers: of the encoder.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has no name in open_clip.
    """
    left = dict(state)
    out = {
        "class_embedding": left.pop("vision_model.embeddings.class_embedding"),
        "conv1.weight": left.pop("vision_model.embeddings.patch_embedding.weight"),
        "positional_embedding": left.pop("vision_model.embeddings.position_embedding.weight"),
        "proj": left.pop("visual_projection.weight").T.contiguous(),
    }
    pairs = [("ln_pre", "vision_model.pre_layrnorm"), ("ln_post", "vision_model.post_layernorm")]
    for i in range(layers):
        ours, theirs = f"transformer.resblocks.{i}", f"vision_model.encoder.layers.{i}"
        parts = (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"))
        pairs += [(f"{ours}.{a}", f"{theirs}.{b}") for a, b in (*parts, ("attn.out_proj", "self_attn.out_proj"))]
        for kind in ("weight", "bias"):
            three = [left.pop(f"{theirs}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            out[f"{ours}.attn.in_proj_{kind}"] = torch.cat(three)
    for ours, theirs in pairs:
        for kind in ("weight", "bias"):
            out[f"{ours}.{kind}"] = left.pop(f"{theirs}.{kind}")
    if left:
        raise ValueError(f"unknown tensors: {', '.join(sorted(left)[:3])}")
    return out
