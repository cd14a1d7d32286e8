"""The WavLM encoder on the sound of windows: samples -> 50 states a second.

Belongs here: loading the encoder with the tensors that training changed, and the framing of samples. Does not belong
here: heads (`wavlm_heads`) or tables (`wavlm_stages`).

Source: Chen et al. 2022, "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing": seven
convolutions with a receptive field of 400 samples and a stride of 320, so 199 states for 4 s, and 12 Transformer layers
with gated relative position bias. The samples are not normalised, as in the published code and in the model's own
preprocessor.

A shorter window is encoded at its own length. The first convolution is followed by a normalisation over time, so zeros
behind the sound would change every state, and an attention mask could not undo that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.sound_file import SAMPLE_RATE_HZ
from cer_pipeline.torchvision_ops import prepare_torchvision

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import WavLMModel

WINDOW: Final = 4 * SAMPLE_RATE_HZ  # samples of a whole window
SHORTEST: Final = 400  # samples of the receptive field: one state
UNUSED: Final = ("classifier.", "layer_weights", "projector.")
"""Tensors of the hub's file that are no part of the encoder: the classifier of speakers over its states."""


def framed(sound: NDArray[np.float32], framing: str) -> NDArray[np.float32]:
    """The samples of a window as the encoder reads them.

    Args:
        sound: mono, 16 kHz, -1..1, of any number of samples.
        framing: "masked": at most 4 s, at their own length; "published": 4 s, filled with zeros.
    """
    cut = sound[:WINDOW]
    length = WINDOW if framing == "published" else max(len(cut), SHORTEST)
    return np.pad(cut, (0, length - len(cut))).astype(np.float32)


def load_encoder(folder: Path, changed: Mapping[str, Tensor]) -> WavLMModel:
    """The encoder, in evaluation mode on the CPU.

    Args:
        folder: config.json and model.safetensors.
        changed: tensors that replace those of the file, by the name of the parameter.

    Raises:
        CerError: the folder holds no such model or lacks tensors, or a changed tensor fits no parameter.
    """
    import torch

    prepare_torchvision()
    from transformers import WavLMModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # a run shows its own
    logging.set_verbosity_error()  # the tensors are compared below
    found: Any
    try:
        found = WavLMModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CerError(f"WavLM cannot be loaded ({reason})", str(folder), "run `cer models verify`") from None
    model, report = found
    wrong = sorted(report["missing_keys"]) + [k for k in sorted(report["unexpected_keys"]) if not k.startswith(UNUSED)]
    if wrong:
        raise CerError(f"not the tensors of WavLM: {wrong[0]}", str(folder), "run `cer models verify`")
    parameters = dict(model.named_parameters())
    for name, value in changed.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise CerError(
                "a head trained for another encoder: it changes a tensor that the encoder does not have", name
            )
        parameters[name].data.copy_(value)
    return model.eval()
