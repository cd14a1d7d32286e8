"""Feature-level fusion: one token for every branch, and a learned query that attends to those that are there.

Belongs here: the network, its file, and applying it to the features of segments. Does not belong here: its training
(`fusion.train.feature_level`), or fusion of probabilities (`mhpf`), which is the default because its values split into
parts.

Source: the third variant of the paper's published feature-level fusion (published code, `src/fusion`, V3), as a
formula: token_m = dropout(LN(W_m x_m + b_m)); a learned query token stands before them; a post-norm Transformer encoder
of 2 layers and 4 heads over the width 128; the query's output through LN and Linear(128, 8). What differs: a branch is
masked where it has no value, as its table says, and not where its features happen to be all 0; features are
standardised over the training set; the encoder's inner layer has 256 units instead of PyTorch's 2048, which makes a
head of 1 MB instead of 5.
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
FLAT: Final = 1e-6  # a feature that varies less than this is constant

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Sizes of the network.

    Args:
        width: of a token.
        layers: of the encoder.
        heads: of its attention.
        inner: units of its inner layer (published: 2048).
        dropout: in training, of tokens and inside the encoder.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    inner: int = 256
    dropout: float = 0.1


class FeatureFusion(nn.Module):
    """Features of the branches -> logits of the basic emotions.

    Args:
        sizes: features of every branch, M numbers.
        shape: sizes of the network.
        means: of the features over the training set, M vectors.
        scales: their standard deviations.
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
        # Without nested tensors: they are for speed alone, and take another path when nothing is trained.
        self.encoder = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.width)
        self.last = nn.Linear(shape.width, len(BASIC))

    def forward(self, features: Sequence[Tensor], present: Tensor) -> Tensor:
        """Logits [n, 8].

        Args:
            features: of every branch [n, size]; what stands where a branch is absent is not read.
            present: [n, M].
        """
        tokens = [self.query.expand(len(present), -1)]
        for i, values in enumerate(features):
            here = present[:, i, None]
            known = torch.where(here, (values - self.get_buffer(f"mean_{i}")) / self.get_buffer(f"scale_{i}"), 0.0)
            tokens.append(self.dropout(self.norms[i](self.project[i](known))))
        absent = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        states = self.encoder(torch.stack(tokens, dim=1), src_key_padding_mask=absent)
        return self.last(self.norm(states[:, 0]))


@dataclass(frozen=True)
class FeatureHead:
    """A trained network and what it reads.

    Args:
        network: in evaluation mode.
        branches: M names.
        sizes: features of each.
        known: classes that had a training segment; the others get probability 0.
    """

    network: FeatureFusion
    branches: tuple[str, ...]
    sizes: tuple[int, ...]
    known: tuple[bool, ...]

    def probabilities(self, features: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]) -> Floats:
        """Distributions [n, 8] of segments; NaN where no branch that this head knows has a value.

        Branches are taken by name; those that it was not trained with are not read, those that are not given are
        absent. Segments go through one at a time, so that a row depends on nothing but itself.

        Args:
            features: branch -> [n, size].
            present: branch -> [n].

        Raises:
            CerError: none of the branches is known, or one has another number of features.
        """
        own = [b for b in self.branches if b in features]
        if not own:
            raise CerError("the trained fusion knows none of the branches", ", ".join(features), "train it with these")
        for branch, size in zip(self.branches, self.sizes, strict=True):
            if branch in features and features[branch].shape[1] != size:
                found = features[branch].shape[1]
                raise CerError(f"{branch} has {found} features, the fusion was trained with {size}", then="train again")
        count = len(features[own[0]])
        seen = np.stack([present[b] if b in features else np.zeros(count, bool) for b in self.branches], axis=1)
        out = np.full((count, len(BASIC)), np.nan, np.float32)
        known = torch.tensor(self.known)
        with one_thread(), torch.inference_mode():
            for i in np.flatnonzero(seen.sum(axis=1) > 0):
                inputs = [
                    torch.from_numpy(features[b][i : i + 1]) if b in features else torch.zeros((1, size))
                    for b, size in zip(self.branches, self.sizes, strict=True)
                ]
                logits = self.network(inputs, torch.from_numpy(seen[i : i + 1]))
                out[i] = logits.masked_fill(~known, -torch.inf).softmax(-1)[0].numpy()
        return out


def save(path: Path, head: FeatureHead, meta: Mapping[str, Any]) -> None:
    """Write a head; `meta` is what else its header says."""
    tensors = {name: value.detach().numpy() for name, value in head.network.state_dict().items()}
    own = {"kind": KIND, "shape": asdict(head.network.shape)}
    own |= {"branches": list(head.branches), "sizes": list(head.sizes), "known": list(head.known)}
    save_head(path, tensors, {**meta, **own})


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
