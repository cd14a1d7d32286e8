"""Small random models in the form of the WavLM branches: the encoder's folder and the files of trained heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForAudioFrameClassification

from cer_pipeline.branches.audio.wavlm_heads import NETWORKS
from cer_pipeline.branches.audio.wavlm_specs import ENCODER
from cer_pipeline.zoo.head_file import save_head

SIZE = 32  # values of a state


def tiny_wavlm(folder: Path) -> Path:
    """Write `<folder>/wavlm_base_plus_sd` with the files of its zoo entry; return that folder.

    The convolutions have the kernels and strides of WavLM base, so 4 s give 199 states. As in the hub's repository, the
    file is that of a classifier of frames, with the encoder below the prefix `wavlm.`.
    """
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    path = folder / ENCODER
    WavLMForAudioFrameClassification(config).save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(path)
    return path


def tiny_wavlm_head(path: Path, branch: str, /, *, changed: bool = True, **meta: Any) -> Path:
    """Write a random head for the tiny encoder.

    Args:
        path: file to write.
        branch: branch of the head.
        changed: whether it holds a changed tensor of the encoder.
        meta: entries that replace those of a head of the masked framing.
    """
    torch.manual_seed(1)
    network = NETWORKS[branch]("masked", SIZE)
    tensors = {f"head/{name}": value.numpy() for name, value in network.state_dict().items()}
    if changed:
        rng = np.random.default_rng(2)
        changes = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
        tensors["encoder/encoder.layers.1.attention.out_proj.weight"] = changes
    save_head(path, tensors, {"branch": branch, "encoder": ENCODER, "framing": "masked"} | meta)
    return path
