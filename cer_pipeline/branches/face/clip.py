"""The image encoder of CLIP ViT-B/32: 512 features of a picture (Table 1, IDs 4 and 5).

Belongs here: the encoder through open_clip or transformers, the reading of its weights, its input. Does not belong
here: which part of a frame it reads (`frame_encoder`), or the text encoder.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021). Both
libraries compute the same network from the same file: open_clip calls it ViT-B-32-quickgelu. Features are those of
`get_image_features` of transformers, with projection and without normalisation, as in the published code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cer_pipeline.errors import CerError
from cer_pipeline.torchvision_ops import prepare_torchvision

SIDE: Final = 224  # input, pixels
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's preprocessing, red, green, blue
DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
OPEN_CLIP: Final = "open_clip"
TRANSFORMERS: Final = "transformers"
PREFIXES: Final = ("vision_model.", "visual_projection.")  # of the image encoder in a file of the whole model
POSITIONS: Final = "vision_model.embeddings.position_ids"  # a constant that older files hold

Encoder = Callable[[Tensor], Tensor]
"""uint8 pixels [N, 3, 224, 224] -> features [N, 512]."""


def prepare(picture: NDArray[np.uint8]) -> Tensor:
    """A picture as the encoder's pixels: the middle square of it, uint8 [3, 224, 224], RGB.

    The shorter side becomes 224 pixels, by bicubic interpolation with antialiasing.

    Args:
        picture: RGB, uint8 [height, width, 3].
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    across, down = (SIDE if side == short else int(SIDE * side / short) for side in (width, height))
    resized = np.asarray(Image.fromarray(picture).resize((across, down), Image.Resampling.BICUBIC))
    top, left = (down - SIDE) // 2, (across - SIDE) // 2
    return torch.from_numpy(resized[top : top + SIDE, left : left + SIDE].copy()).permute(2, 0, 1).contiguous()


def normalise(pixels: Tensor) -> Tensor:
    """The encoder's input: pixels over 255, minus the mean, over the deviation of each channel.

    Args:
        pixels: uint8 [N, 3, 224, 224], RGB.
    """
    mean, deviation = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (pixels.to(torch.float32) / 255 - mean) / deviation


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


def load(folder: Path, library: str, device: torch.device) -> Encoder:
    """Read the image encoder out of the files of the whole model.

    Args:
        folder: holds config.json and model.safetensors, with the names of transformers.
        library: open_clip or transformers.
        device: where it runs.

    Raises:
        CerError: the files do not hold exactly the image encoder of a CLIP model.
    """
    prepare_torchvision()  # both libraries import torchvision where it is installed
    try:
        config = vision_config(json.loads((folder / "config.json").read_text("utf-8")))
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(PREFIXES) and name != POSITIONS]  # noqa: SIM118
            state = {name: file.get_tensor(name).to(torch.float32) for name in names}
        model = (_open_clip if library == OPEN_CLIP else _transformers)(config, state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        what = " ".join(str(error).split())
        raise CerError(f"not the weights of CLIP ({what[:200]})", str(folder), "pull the model again") from None
    model = model.to(device).eval()
    return lambda pixels: model(normalise(pixels))


class _Transformers(nn.Module):
    """The image encoder of transformers, whose output is the projected features."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        self.encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(pixel_values=x).image_embeds


def vision_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the image encoder, from the configuration of the whole model; what it leaves out is that of ViT-B/32."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    given = {key: value for key, value in config.get("vision_config", {}).items() if key in (*sizes, "patch_size")}
    return {"patch_size": 32, **sizes, **given, "image_size": SIDE, "projection_dim": config["projection_dim"]}


def _transformers(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    model = _Transformers(config)
    model.encoder.load_state_dict(state)
    return model


def _open_clip(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    from open_clip.transformer import QuickGELU, VisionTransformer  # pyright: ignore[reportMissingImports]

    width, layers = config["hidden_size"], config["num_hidden_layers"]
    model = VisionTransformer(
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        width=width,
        layers=layers,
        heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] / width,
        output_dim=config["projection_dim"],
        act_layer=QuickGELU,
    )
    model.load_state_dict(renamed(state, layers))
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
