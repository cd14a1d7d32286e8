"""The text head: low-rank changes to MiniLM's weights and a linear layer on its mean-pooled states.

Belongs here: the adapted encoder, as it is trained (changes added to frozen weights) and as it is used (changes merged
into the weights). Does not belong here: training (`branches.text.train`) or tables (`branches.text.branch`).

A low-rank change is W' = W + (alpha / r) B A with A of r x in and B of out x r (Hu et al. 2021, "LoRA", section 4.1),
on all six linear maps of each of the upper layers. The lower layers are not changed: their states are computed once
before training, which makes a step 2.5 times as fast on a CPU. In float16 three layers at rank 32 and the linear layer
have 1.3 MB; the encoder has 91 MB and is the file that the scene branches use as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from cer_pipeline.branches.sentences.minilm import load_network, load_tokenizer
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.zoo.head_file import load_head

ADAPTED: Final = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""Linear maps of a BERT layer that get a low-rank change, as `transformers.BertModel` names them."""

MAX_TOKENS: Final = 64  # a window of 4 s holds some 15 words; the longest GoEmotions sentence has 33


class LowRank(nn.Module):
    """A frozen linear map plus a trainable low-rank change.

    Args:
        base: the frozen map.
        rank: rank r of the change.
        alpha: scale; the change is multiplied by alpha / r.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))  # so that training starts from the plain encoder
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return self.base(x) + self.scale * (x @ self.a.T) @ self.b.T


class AdaptedEncoder(nn.Module):
    """MiniLM with trainable low-rank changes in its upper layers, mean pooling and a linear layer.

    Args:
        folder: the encoder's folder: config.json and model.safetensors.
        rank: rank of the changes.
        alpha: their scale.
        layers: number of layers that are changed, from the top.
        dropout: share of the pooled values that are zeroed in training.
    """

    def __init__(self, folder: Path, rank: int, alpha: float, layers: int, dropout: float) -> None:
        super().__init__()
        # The dropout of the encoder stays off (eval): it is frozen, and its random numbers take a third of a step.
        self.encoder: Any = load_network(folder).requires_grad_(False)
        self.first = len(self.encoder.encoder.layer) - layers
        for _, parent, leaf in _adapted(self.encoder, self.first):
            setattr(parent, leaf, LowRank(getattr(parent, leaf), rank, alpha))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.encoder.config.hidden_size, len(TRAINED_CLASSES))

    @torch.inference_mode()
    def lower(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids [n, t] and mask [n, t] -> states below the first changed layer [n, t, 384]."""
        states = self.encoder.embeddings(input_ids=tokens)
        return _layers(self.encoder.encoder.layer[: self.first], states, mask)

    def upper(self, states: Tensor, mask: Tensor) -> Tensor:
        """States from `lower`, and the mask -> logits [n, 7] in the order of `TRAINED_CLASSES`."""
        states = _layers(self.encoder.encoder.layer[self.first :], states, mask)
        return self.linear(self.dropout(mean_pool(states, mask)))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by their names in the file of a head."""
        parameters: dict[str, Any] = {}
        for name, parent, leaf in _adapted(self.encoder, self.first):
            module = getattr(parent, leaf)
            parameters[f"{name}.a"], parameters[f"{name}.b"] = module.a, module.b
        parameters["linear.weight"], parameters["linear.bias"] = self.linear.weight, self.linear.bias
        return parameters


class TextClassifier:
    """The linear layer of a trained text head: features -> probabilities. Needs no encoder.

    Args:
        tensors: `linear.weight` [7, 384] and `linear.bias` [7], any float type.
        meta: needs `temperature`, by which the logits are divided.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        self.weight = tensors["linear.weight"].astype(np.float64)
        self.bias = tensors["linear.bias"].astype(np.float64)
        self.temperature = float(meta["temperature"])

    @classmethod
    def load(cls, head: Path) -> TextClassifier:
        """Read a head's file.

        Raises:
            CerError: the head is missing or damaged.
        """
        return cls(*load_head(head))

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Features [..., 384] -> logits [..., 7] in the order of `TRAINED_CLASSES`, float64."""
        return features.astype(np.float64) @ self.weight.T + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Features [..., 384] -> probabilities [..., 8], float64, each summing to 1, 0 for "Other"."""
        full = np.zeros((*features.shape[:-1], len(BASIC)))
        full[..., TRAINED_CLASSES] = softmax(self.logits(features) / self.temperature, axis=-1)
        return full


class TextHead(TextClassifier):
    """A trained text head with its encoder: text -> 384 features -> probabilities of the 8 basic emotions.

    Args:
        tensors: those of `AdaptedEncoder.trained`, any float type.
        meta: needs `rank`, `alpha`, `layers` and `temperature`.
        folder: the folder of the plain encoder, with tokenizer.json.
        max_tokens: longest input; longer texts are cut.
    """

    def __init__(
        self, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any], folder: Path, max_tokens: int = MAX_TOKENS
    ) -> None:
        super().__init__(tensors, meta)
        self.meta = dict(meta)
        self.encoder: Any = load_network(folder)
        scale = meta["alpha"] / meta["rank"]
        with torch.no_grad():
            first = len(self.encoder.encoder.layer) - meta["layers"]
            for name, parent, leaf in _adapted(self.encoder, first):
                a, b = (torch.from_numpy(tensors[f"{name}.{part}"].astype(np.float32)) for part in "ab")
                getattr(parent, leaf).weight += scale * (b @ a)
        self.tokenizer = load_tokenizer(folder, max_tokens)

    @classmethod
    def read(cls, head: Path, folder: Path) -> TextHead:
        """Read a head's file and the plain encoder.

        Args:
            head: `text_minilm.safetensors`.
            folder: the folder of MiniLM.

        Raises:
            CerError: the head is missing or damaged.
        """
        return cls(*load_head(head), folder)

    def features(self, text: str) -> np.ndarray:
        """Return the mean-pooled states of one text: float32 [384]; equal texts have equal bytes."""
        with one_thread():
            return self.batch([text])[0]

    @torch.inference_mode()
    def batch(self, texts: Sequence[str]) -> np.ndarray:
        """Return the same for many texts at once, float32 [n, 384]; equal to `features` only up to rounding."""
        tokens, mask = pad([encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))])
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return mean_pool(states, mask).float().numpy()


def pad(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids of several texts as one [n, longest] tensor, 0 after the end of a text, and its mask."""
    longest = max(len(row) for row in ids)
    tokens = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return tokens, mask


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """States [n, t, d] and mask [n, t] -> mean over the unmasked positions [n, d]."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


def _layers(layers: Iterable[nn.Module], states: Tensor, mask: Tensor) -> Tensor:
    attended = mask.bool()[:, None, None, :]
    for layer in layers:
        out = layer(states, attention_mask=attended)
        states = out[0] if isinstance(out, tuple) else out
    return states


def _adapted(encoder: Any, first: int) -> Iterator[tuple[str, nn.Module, str]]:
    """(name in the file of a head, parent module, attribute) of every adapted linear map, from layer `first` up."""
    for i, layer in enumerate(encoder.encoder.layer):
        if i < first:
            continue
        for path in ADAPTED:
            parent, _, leaf = path.rpartition(".")
            yield f"layer.{i}.{path}", layer.get_submodule(parent), leaf
