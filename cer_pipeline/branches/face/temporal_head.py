"""Temporal heads: a Transformer and a Mamba network over the sequence of a window (Table 1, IDs 2 to 5).

Belongs here: the two networks, and reading them from a head file. Does not belong here: training, tables, features.

Source: published code of "Team RAS in 9th ABAW Competition" (SMIL-SPCRAS/ICCVW_25, video models), as formulas. Common
to both: x = LN(W u + b) per step; L blocks with an outer residual, x <- x + block(x); mean over time; classifier
W2 gelu(LN(W1 x)). Three things differ from the published code, each with its reason:

* Steps that do not count (no face was seen, or padding) never enter: they are moved behind the others and masked out
  of attention, state and mean. The published code averages over padding, so its result depends on the batch.
* The state is discretised as exp(Delta A) (Gu & Dao, "Mamba", 2023, equation 4); the published exp(A) Delta is an
  option.
* A is kept as its logarithm, so that it stays negative and the state bounded; Delta's bias and the skip are two
  parameters, which the published code ties (the option `published` ties them too).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cer_pipeline.branches.face.selective_scan import kernel_scan, kernels_installed, selective_scan
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.zoo.head_file import load_head

TRANSFORMER: Final = "transformer"
MAMBA: Final = "mamba"


@dataclass(frozen=True)
class Shape:
    """Sizes of a temporal head; the defaults are a third of the published ones, which were chosen for 512 features.

    Args:
        network: transformer or mamba.
        inputs: features a step, without the flag.
        hidden: h, width of the sequence.
        middle: o, width of the classifier.
        layers: L, number of blocks.
        heads: attention heads (transformer).
        states: d_state (mamba).
        kernel: steps of the causal convolution (mamba).
        published: whether the state is discretised as in the published code (mamba).
        dropout: in training.
        positions: whether sinusoids of the place of a step are added (an option of the published code, off there).
    """

    network: str
    inputs: int
    hidden: int = 128
    middle: int = 64
    layers: int = 2
    heads: int = 4
    states: int = 4
    kernel: int = 6
    published: bool = False
    dropout: float = 0.15
    positions: bool = False


def compact(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the steps that count to the front, in order, and set the others to 0.

    Args:
        x: [B, T, F].
        mask: [B, T], true where a step counts.
    """
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)
    moved = mask.gather(1, order)
    x = x.gather(1, order.unsqueeze(-1).expand_as(x))
    return torch.where(moved.unsqueeze(-1), x, torch.zeros_like(x)), moved


def sinusoids(steps: int, width: int) -> Tensor:
    """Sinusoids of the place of each step, [steps, width]: sines in even columns, cosines in odd ones.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5.
    """
    rate = torch.exp(torch.arange(0, width, 2) * (-np.log(10000.0) / width))
    angle = torch.arange(steps)[:, None] * rate
    return torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1).reshape(steps, -1)[:, :width]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the steps that count: [B, T, F], [B, T] -> [B, F]. At least one step must count."""
    weights = mask.to(x.dtype).unsqueeze(-1)
    return (torch.where(mask.unsqueeze(-1), x, torch.zeros_like(x))).sum(dim=1) / weights.sum(dim=1)


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward layer of the same width, each normalised after its residual (post-norm)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h = shape.hidden
        self.attention = nn.MultiheadAttention(h, shape.heads, dropout=shape.dropout, batch_first=True)
        self.first_norm = nn.LayerNorm(h)
        self.inner = nn.Linear(h, h)
        self.outer = nn.Linear(h, h)
        self.second_norm = nn.LayerNorm(h)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, h], [B, T] -> [B, T, h]."""
        attended, _ = self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)
        x = self.first_norm(x + self.dropout(attended))
        y = self.outer(self.dropout(functional.gelu(self.inner(x))))
        return self.second_norm(x + self.dropout(y))


class MambaBlock(nn.Module):
    """A gated selective state space: a causal convolution, a state that the input steers, a skip, a gate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h, n = shape.hidden, shape.states
        rank = max(1, h // 16)
        self.published = shape.published
        self.split = nn.Linear(h, 2 * h, bias=False)
        self.convolution = nn.Conv1d(h, h, shape.kernel, groups=h)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, n + 1)).repeat(h, 1))  # A = -[1..n] in every channel
        self.step_down = nn.Linear(h, rank, bias=False)
        self.step_up = nn.Linear(rank, h, bias=False)
        self.step_bias = nn.Parameter(torch.ones(h))
        self.skip = nn.Parameter(torch.ones(h))
        self.to_b = nn.Linear(h, n, bias=False)
        self.to_c = nn.Linear(h, n, bias=False)
        self.norm = nn.LayerNorm(h)
        self.out = nn.Linear(h, h, bias=False)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, h], [B, T] -> [B, T, h]. The steps that count stand first, so that no padding reaches them."""
        del mask  # what is causal cannot see what stands behind it
        a, gate = self.split(x).chunk(2, dim=-1)
        a = functional.pad(a.transpose(1, 2), (self.convolution.kernel_size[0] - 1, 0))
        a = functional.silu(self.convolution(a).transpose(1, 2))
        y = self.norm(self.skip * a + self.dropout(self._scan(a)))
        return self.out(y * functional.silu(gate))

    def _scan(self, a: Tensor) -> Tensor:
        """h_t = A_bar h_{t-1} + Delta B a_t; the output is C h_t. [B, T, h] -> [B, T, h]."""
        step, decay = self.step_up(self.step_down(a)), -torch.exp(self.log_a)
        if self.published:
            return selective_scan(a, step, self.skip, decay, self.to_b(a), self.to_c(a), published=True)
        scan = kernel_scan if a.is_cuda and kernels_installed() else selective_scan
        return scan(a, step, self.step_bias, decay, self.to_b(a), self.to_c(a))


class TemporalHead(nn.Module):
    """Sequence of a window -> logits of the 8 basic emotions."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        block = {TRANSFORMER: TransformerBlock, MAMBA: MambaBlock}[shape.network]
        h = shape.hidden
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.inputs))  # of the training data, so that degrees and
        self.register_buffer("scale", torch.ones(shape.inputs))  # blendshapes come in like sizes
        self.project = nn.Linear(shape.inputs, h)
        self.project_norm = nn.LayerNorm(h)
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape.layers))
        self.inner = nn.Linear(h, shape.middle)
        self.inner_norm = nn.LayerNorm(shape.middle)
        self.last = nn.Linear(shape.middle, len(BASIC))
        self.dropout = nn.Dropout(shape.dropout)
        for module in self.modules():  # published initialisation
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the head.

        Args:
            x: [B, T, inputs].
            mask: [B, T], true where a step counts; at least one a sequence.

        Returns:
            logits [B, 8] in the order of `labels.BASIC`, and the pooled sequence [B, hidden].
        """
        places = sinusoids(x.shape[1], self.shape.hidden).to(x).expand(len(x), -1, -1) if self.shape.positions else None
        where = mask
        x, mask = compact((x - self.mean) / self.scale, mask)
        x = self.project_norm(self.project(x))
        if places is not None:  # a step keeps its place in the window
            x = x + compact(places, where)[0]
        x = self.dropout(x)
        for block in self.blocks:
            x = x + block(x, mask)
        pooled = masked_mean(x, mask)
        y = self.dropout(functional.gelu(self.inner_norm(self.inner(pooled))))
        return self.last(y), pooled

    def probabilities(self, steps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distribution of one window.

        Args:
            steps: [T, inputs + 1]: features, and last the flag, 1 where the step counts.

        Returns:
            [8], of sum 1.
        """
        x = torch.from_numpy(np.ascontiguousarray(steps[:, :-1], dtype=np.float32))[None]
        mask = torch.from_numpy(steps[:, -1] > 0.5)[None]
        with torch.inference_mode():
            logits, _ = self(x, mask)
        return torch.softmax(logits[0].to(torch.float64), dim=-1).numpy()


def state(head: TemporalHead) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors and meta of a head, for `zoo.head_file.save_head`."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in head.state_dict().items()}
    shape = asdict(head.shape)
    if not head.shape.positions:  # files written before this option have no such entry: equal heads keep equal bytes
        del shape["positions"]
    return tensors, {"shape": shape, "labels": list(BASIC)}


def build(tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], where: str = "") -> TemporalHead:
    """A head from its tensors and meta, ready to predict.

    Raises:
        CerError: they do not make a temporal head for the basic emotions.
    """
    try:
        if meta["labels"] != list(BASIC):
            raise ValueError("its labels are not the 8 basic emotions in this project's order")
        head = TemporalHead(Shape(**meta["shape"]))
        head.load_state_dict({k: torch.from_numpy(np.asarray(v, dtype=np.float32)) for k, v in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CerError(f"not a temporal head ({' '.join(str(error).split())})", where, "train it again") from None
    return head.eval()


def load(path: Path, branch: str = "", inputs: int = 0) -> TemporalHead:
    """Read a head file.

    Args:
        path: the file.
        branch: branch that will use the head; empty for any.
        inputs: values of a step of the branch's features, without the flag.

    Raises:
        CerError: the file is missing, damaged, holds no temporal head, or one that was trained for other features.
    """
    tensors, meta = load_head(path)
    head = build(tensors, meta, where=str(path))
    trained = meta.get("branch", branch)
    if branch and (trained != branch or head.shape.inputs != inputs):
        what = f"{trained}, {head.shape.inputs} values a step instead of {branch}, {inputs}: {path}"
        raise CerError("the head was trained for other features", what, f"run `cer train {branch}`")
    return head
