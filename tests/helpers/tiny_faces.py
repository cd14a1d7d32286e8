"""Random weights of the models of the face branches of Table 1, under the names of the zoo's files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from cer_pipeline.branches.face import temporal_head as temporal
from cer_pipeline.branches.face.emoaffectnet import EmoAffectNet
from cer_pipeline.branches.face.specs import STEP_SIZES
from cer_pipeline.torchvision_ops import prepare_torchvision
from cer_pipeline.zoo.head_file import save_head

EMOAFFECTNET_FILE = "FER_static_ResNet50_AffectNet.pt"  # of the zoo entry emoaffectnet
CLIP_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def random_emoaffectnet(folder: Path, seed: int = 0) -> Path:
    """Write a state dict of the whole network, 98 MB: its size is fixed by its names and shapes."""
    torch.manual_seed(seed)
    state = EmoAffectNet().state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            state[name] = 0.1 * torch.randn_like(value)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand_like(value)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / EMOAFFECTNET_FILE)
    return folder / EMOAFFECTNET_FILE


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors of a CLIP model with two narrow layers."""
    prepare_torchvision()
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    vision = {**CLIP_SIZES, "patch_size": 32, "image_size": 224}
    text = {**CLIP_SIZES, "max_position_embeddings": 77, "vocab_size": 49408}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    state = {name: 0.2 * torch.randn_like(value) for name, value in CLIPModel(config).state_dict().items()}
    state["logit_scale"] = torch.tensor(4.6052)  # the logarithm of 100, as in the published weights
    state["vision_model.embeddings.position_ids"] = torch.arange(50)[None]  # older files hold these constants
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    written = {"model_type": "clip", "projection_dim": 512, "vision_config": vision, "text_config": text}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 224}, "crop_size": 224}))
    return folder


def tiny_temporal_head(path: Path, branch: str, seed: int = 0) -> Path:
    """Write a narrow head of a temporal face branch."""
    torch.manual_seed(seed)
    network = temporal.MAMBA if branch.endswith("mamba") else temporal.TRANSFORMER
    tensors, meta = temporal.state(temporal.TemporalHead(temporal.Shape(network, STEP_SIZES[branch], hidden=16)))
    save_head(path, tensors, {**meta, "branch": branch})
    return path
