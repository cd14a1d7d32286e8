"""Jina embeddings v3: text -> 1024 features (Table 1, IDs 6 and 11).

Belongs here: loading the encoder, merging its adapter, and its features. Does not belong here: heads (`heads`) or
tables (`stages`).

Source: Sturua et al. 2024, "jina-embeddings-v3": XLM-RoBERTa large with rotary positions, and a low-rank adapter a
task. The scene branch uses no adapter and the state of the first token, the text branch the adapter "classification"
and the mean over the tokens. A batch holds texts of one length, so no token is padding.

The repository for transformers 5 keeps each adapter in the format of PEFT: a file of pairs A, B and a configuration
with the rank r and alpha. A linear map becomes W + (alpha / r) B A (Hu et al. 2021, section 4.1), an embedding
W + (alpha / r) (B A)^T. The merged network needs no PEFT and costs nothing at inference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from cer_pipeline.branches.encoders.pretrained import Model, load_pretrained
from cer_pipeline.branches.encoders.specs import FIRST_STATE
from cer_pipeline.errors import CerError

UNUSED: Final = r"lm_head\..*"
ADAPTER: Final = "classification_adapter_model.safetensors"
"""Name in the zoo of `classification/adapter_model.safetensors` of the hub's repository."""
ADAPTER_CONFIG: Final = "classification_adapter_config.json"
_PREFIX: Final = "base_model.model."  # PEFT's wrapper of the model
_ENDINGS: Final = {  # ending of a tensor -> (which factor, whether the map is an embedding)
    ".lora_A.weight": ("A", False),
    ".lora_B.weight": ("B", False),
    ".lora_embedding_A": ("A", True),
    ".lora_embedding_B": ("B", True),
}


def load(folder: Path, precision: str, features: str) -> tuple[Any, Model]:
    """Return the network, and the map from token ids [B, t] to features [B, 1024].

    Args:
        folder: holds config.json and model.safetensors; for `MEAN` also the adapter and its configuration.
        precision: float32 or bfloat16.
        features: `FIRST_STATE` (last state of <s>, no adapter) or `MEAN` (mean of the last states, with the adapter).

    Raises:
        CerError: the files do not hold this encoder or its adapter.
    """
    # The adapter is merged in float32 and the sum is rounded once.
    network = load_pretrained(
        "jina_embeddings_v3.JinaEmbeddingsV3Model", folder, "float32" if features != FIRST_STATE else precision, UNUSED
    )
    if features != FIRST_STATE:
        merge_adapter(network, folder)
        network.to(torch.bfloat16 if precision == "bfloat16" else torch.float32)

    def encode(ids: Any) -> Any:
        states = network(input_ids=ids).last_hidden_state
        return states[:, 0] if features == FIRST_STATE else states.mean(1)

    return network, encode


@torch.no_grad()
def merge_adapter(network: torch.nn.Module, folder: Path) -> None:
    """Add the low-rank changes of the adapter "classification" to the weights of the network.

    Args:
        network: the plain encoder, float32.
        folder: holds `ADAPTER` and `ADAPTER_CONFIG`.

    Raises:
        CerError: a factor is missing, has another shape, or changes what the network does not have.
    """
    config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    scale = config["lora_alpha"] / config["r"]
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    transposed: dict[str, bool] = {}
    for name, value in load_file(folder / ADAPTER).items():
        ending = next((e for e in _ENDINGS if name.endswith(e)), None)
        if ending is None:
            raise CerError(f"the adapter has the unknown tensor {name}", str(folder))
        factor, embedding = _ENDINGS[ending]
        module = name.removesuffix(ending).removeprefix(_PREFIX)
        pairs.setdefault(module, {})[factor] = value.float()
        transposed[module] = embedding
    weights = dict(network.named_parameters())
    for module, pair in pairs.items():
        weight = weights.get(f"{module}.weight")
        if weight is None or pair.keys() != {"A", "B"}:
            raise CerError(f"the adapter does not fit the encoder at {module}", str(folder))
        update = pair["B"] @ pair["A"]
        update = update.T if transposed[module] else update
        if update.shape != weight.shape:
            raise CerError(f"the adapter does not fit the shape of {module}", str(folder))
        weight += scale * update
