"""Feature-level fusion: one token per branch, and a learned query that attends to the present branches.

Belongs here: the network, its file, and applying it to the features of segments. Does not belong here: its training
(`fusion.train.feature_level`) or the fusion of probabilities (`mhpf`), which is the default because its values
decompose into contributions of the branches.

Source: the third variant of the feature-level fusion in the paper's reference code (`src/fusion`, V3), as a formula:
token_m = dropout(LN(W_m x_m + b_m)); a learned query token precedes them; a post-norm Transformer encoder of 2 layers
and 4 heads has width 128; the output of the query passes LN and Linear(128, 8). Differences: a branch is masked where
its table has no value, and not where its features are all 0; features are standardised over the training set; the inner
layer of the encoder has 256 units instead of PyTorch's 2048, so a head has 1 MB instead of 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.zoo.head_file import load_head, save_head

KIND: Final = "feature_fusion"
FLAT: Final = 1e-6  # standard deviation below which a feature counts as constant

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Sizes of the network.

    Args:
        width: units of a token.
        layers: layers of the encoder.
        heads: attention heads.
        inner: units of the inner layer of the encoder (reference code: 2048).
        dropout: dropout of tokens and inside the encoder, in training.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    inner: int = 256
    dropout: float = 0.1


class FeatureFusion(nn.Module):
    """Map the features of the branches to logits of the basic emotions.

    Args:
        sizes: number of features of every branch [M].
        shape: sizes of the network.
        means: means of the features over the training set, M vectors; 0 by default.
        scales: standard deviations of the features, M vectors; 1 by default.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        shape: Shape,
        means: Sequence[Tensor] | None = None,
        scales: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        for i, size in enumerate(sizes):
            self.register_buffer(f"mean_{i}", torch.zeros(size) if means is None else means[i])
            self.register_buffer(f"scale_{i}", torch.ones(size) if scales is None else scales[i])
        self.project = nn.ModuleList(nn.Linear(size, shape.width) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(shape.width) for _ in sizes)
        self.dropout = nn.Dropout(shape.dropout)
        self.query = nn.Parameter(torch.randn(shape.width) / shape.width**0.5)
        layer = nn.TransformerEncoderLayer(shape.width, shape.heads, shape.inner, shape.dropout, batch_first=True)
        # Without nested tensors: they only save time, and they take another code path in inference.
        self.encoder = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.width)
        self.last = nn.Linear(shape.width, len(BASIC))

    def forward(self, features: Sequence[Tensor], present: Tensor) -> Tensor:
        """Logits [n, 8].

        Args:
            features: one array per branch [n, size]; values of absent branches are not read.
            present: [n, M].
        """
        tokens = [self.query.expand(len(present), -1)]
        for i, values in enumerate(features):
            mask = present[:, i, None]
            known = torch.where(mask, (values - self.get_buffer(f"mean_{i}")) / self.get_buffer(f"scale_{i}"), 0.0)
            tokens.append(self.dropout(self.norms[i](self.project[i](known))))
        absent = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        states = self.encoder(torch.stack(tokens, dim=1), src_key_padding_mask=absent)
        return self.last(self.norm(states[:, 0]))


@dataclass(frozen=True)
class FeatureHead:
    """A trained network and the branches that it reads.

    Args:
        network: in evaluation mode.
        branches: names [M].
        sizes: number of features of each branch [M].
        known: whether a class had a training segment; the other classes get probability 0.
    """

    network: FeatureFusion
    branches: tuple[str, ...]
    sizes: tuple[int, ...]
    known: tuple[bool, ...]

    def probabilities(self, features: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]) -> Floats:
        """Distributions [n, 8] of segments; NaN where no branch of this head has a value.

        Branches are matched by name. A branch that the head was not trained with is not read; a branch of the head that
        is not given is absent. Segments pass the network one at a time, so that a row does not depend on its batch.

        Args:
            features: branch -> [n, size].
            present: branch -> [n].

        Raises:
            CerError: the head has none of the branches, or a branch has another number of features.
        """
        given = [b for b in self.branches if b in features]
        if not given:
            raise CerError("the trained fusion has none of the branches", ", ".join(features), "train it with these")
        for branch, size in zip(self.branches, self.sizes, strict=True):
            if branch in features and features[branch].shape[1] != size:
                count = features[branch].shape[1]
                raise CerError(f"{branch} has {count} features, the fusion was trained with {size}", then="train again")
        count = len(features[given[0]])
        mask = np.stack([present[b] if b in features else np.zeros(count, bool) for b in self.branches], axis=1)
        out = np.full((count, len(BASIC)), np.nan, np.float32)
        known = torch.tensor(self.known)
        with one_thread(), torch.inference_mode():
            for i in np.flatnonzero(mask.sum(axis=1) > 0):
                inputs = [
                    torch.from_numpy(features[b][i : i + 1]) if b in features else torch.zeros((1, size))
                    for b, size in zip(self.branches, self.sizes, strict=True)
                ]
                logits = self.network(inputs, torch.from_numpy(mask[i : i + 1]))
                out[i] = logits.masked_fill(~known, -torch.inf).softmax(-1)[0].numpy()
        return out


def save(path: Path, head: FeatureHead, meta: Mapping[str, Any]) -> None:
    """Write a head; `meta` holds further entries of its header."""
    tensors = {name: value.detach().numpy() for name, value in head.network.state_dict().items()}
    header = {"kind": KIND, "shape": asdict(head.network.shape)}
    header |= {"branches": list(head.branches), "sizes": list(head.sizes), "known": list(head.known)}
    save_head(path, tensors, {**meta, **header})


def load(path: Path) -> FeatureHead:
    """Read a head that `save` wrote.

    Raises:
        CerError: the file is missing, damaged, or holds another kind of head.
    """
    tensors, meta = load_head(path)
    if meta.get("kind") != KIND:
        raise CerError("not a feature-level fusion", str(path), "train one with `cer train feature_fusion`")
    network = FeatureFusion(meta["sizes"], Shape(**meta["shape"]))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return FeatureHead(network.eval(), tuple(meta["branches"]), tuple(meta["sizes"]), tuple(meta["known"]))
