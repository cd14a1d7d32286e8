"""The sentence encoder all-MiniLM-L6-v2: text -> vector [384].

Belongs here: loading the network and the tokeniser from a local folder, and encoding texts. Does not belong here: heads
on the vectors (`zero_shot`, trained heads), low-rank changes (`branches.text.head`) or tables (`stages`).

Source: Reimers & Gurevych 2019, "Sentence-BERT", and the model card of sentence-transformers/all-MiniLM-L6-v2: at most
256 word pieces, mean of the token states over the mask, scaled to length 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.torch_threads import deterministic_map
from cer_pipeline.torchvision_ops import prepare_torchvision

ZOO_ID: Final = "minilm"
SIZE: Final = 384
MAX_TOKENS: Final = 256  # with [CLS] and [SEP]; the model card's max_seq_length


def load_network(folder: Path) -> Any:
    """Return the BERT network of the encoder, float32, in evaluation mode.

    Configuration and weights are read from config.json and model.safetensors; no hub code runs, so nothing is fetched.
    """
    import torch
    from safetensors.torch import load_file

    prepare_torchvision()
    from transformers.models.bert import BertConfig, BertModel

    config = BertConfig.from_json_file(folder / "config.json")
    with torch.random.fork_rng(devices=[]):  # the initial values drawn here do not move the caller's random state
        network = BertModel(config, add_pooling_layer=False).float()
    weights = load_file(folder / "model.safetensors")
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return network.eval()


def load_tokenizer(folder: Path, max_tokens: int = MAX_TOKENS) -> Any:
    """Return the tokeniser of tokenizer.json, without padding, with texts cut at `max_tokens`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


class MiniLM:
    """The encoder, loaded once.

    Args:
        folder: holds config.json, model.safetensors and tokenizer.json.
        counters: "calls/minilm" counts the texts that are encoded.
    """

    def __init__(self, folder: Path, counters: Counter[str] | None = None) -> None:
        self._network, self._tokenizer = load_network(folder), load_tokenizer(folder)
        self._counters = Counter[str]() if counters is None else counters

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the vector of one text, float32 [384] of length 1; equal texts have equal bytes."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Iterable[str], threads: int = 1) -> NDArray[np.float32]:
        """Return the vectors of texts [n, 384]. Each text is encoded alone, and equal texts once.

        Args:
            texts: any number.
            threads: texts at a time; the vectors do not depend on it.
        """
        wanted = list(texts)
        distinct = list(dict.fromkeys(wanted))
        vectors = dict(zip(distinct, deterministic_map(self._vector, distinct, threads), strict=True))
        self._counters[f"calls/{ZOO_ID}"] += len(distinct)
        return np.stack([vectors[text] for text in wanted]) if wanted else np.empty((0, SIZE), np.float32)

    def _vector(self, text: str) -> NDArray[np.float32]:
        import torch

        ids = self._tokenizer.encode(text).ids  # never empty: [CLS] and [SEP] are always there
        with torch.inference_mode():
            states = self._network(input_ids=torch.tensor([ids])).last_hidden_state[0]
            mean = states.mean(0)  # over every token: a text that is encoded alone has no padding
            return (mean / mean.norm()).numpy()
