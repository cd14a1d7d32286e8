"""The sentence encoder all-MiniLM-L6-v2: a text -> 384 numbers.

Belongs here: loading it from a local folder and encoding texts. Does not belong here: what is made of the vectors
(`zero_shot`, trained heads) or tables (`stages`).

Source: Reimers & Gurevych 2019, "Sentence-BERT", and the model card of sentence-transformers/all-MiniLM-L6-v2: at most
256 word pieces, mean of the token states over the mask, scaled to length 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.torch_threads import deterministic_map

ZOO_ID: Final = "minilm"
SIZE: Final = 384
MAX_TOKENS: Final = 256  # with [CLS] and [SEP]; the model card's max_seq_length


class MiniLM:
    """The encoder, loaded once.

    Args:
        folder: holds config.json, model.safetensors and tokenizer.json.
        counters: "calls/minilm" counts the texts that were put through the network.
    """

    def __init__(self, folder: Path, counters: Counter[str]) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers.models.bert import BertConfig, BertModel

        # Config and weights are read from the two files by hand: no hub code runs, so no look-up can happen.
        model = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
        weights = load_file(folder / "model.safetensors")
        wanted = model.state_dict().keys()
        model.load_state_dict({name: tensor for name, tensor in weights.items() if name in wanted})
        self._model = model.eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._counters = counters

    def encode(self, text: str) -> NDArray[np.float32]:
        """One text -> float32 [384] of length 1; the same text always gives the same bytes."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Iterable[str], threads: int = 1) -> list[NDArray[np.float32]]:
        """Many texts, each on its own; equal texts are put through once.

        Args:
            texts: any number.
            threads: texts at a time; the vectors do not depend on it.
        """
        wanted = list(texts)
        distinct = list(dict.fromkeys(wanted))
        known = dict(zip(distinct, deterministic_map(self._vector, distinct, threads), strict=True))
        self._counters[f"calls/{ZOO_ID}"] += len(distinct)
        return [known[text] for text in wanted]

    def _vector(self, text: str) -> NDArray[np.float32]:
        import torch

        ids = self._tokenizer.encode(text).ids  # never empty: [CLS] and [SEP] are always there
        with torch.inference_mode():
            states = self._model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            mean = states.mean(0)  # every token counts: a text on its own has no padding
            return (mean / mean.norm()).numpy()
