"""The two audio heads: states of a window's sound -> a vector -> probabilities.

Belongs here: the networks and a trained head's use. Does not belong here: losses and training (`training`), the states
(`branches.audio.whisper_encoder`) or tables (`branches.audio.stages`).

Both follow the published ones (code of "Team RAS in 9th ABAW Competition", audio models) in form, not in size: theirs
read 199 states of 768 values and have some 10 million parameters; these read at most 20 steps of 384 and have 0.1
million, so that a shipped head with its members stays below 2 MB. Where theirs average over time, these take average
and standard deviation (Okabe et al. 2018, "Attentive Statistics Pooling"): the variation of a voice
over time is more informative than its mean. A window may be shorter than 4 s: steps behind its end are masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from cer_pipeline.branches.audio.specs import STATE_SIZE
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.zoo.head_file import load_head

MEMBER_VECTOR: Final = 64  # values before the last layer of one member
TEMPERATURE: Final = 1.5  # published: probabilities of the uncertainty head are softmax(mean / 1.5)
LOG_VARIANCE: Final = (-3.0, 3.0)  # published clamp of the log-variances
PARTS: Final = 3  # published: beginning, middle and end each have their own attention


class _Entry(nn.Module):
    """States to common scale, then to the head's width."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(STATE_SIZE))
        self.register_buffer("scale", torch.ones(STATE_SIZE))
        self.linear = nn.Linear(STATE_SIZE, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        return self.linear(self.dropout((states - self.mean) / self.scale))


def block(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, LayerNorm, Dropout."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.LayerNorm(outputs), nn.Dropout(dropout))


class ReBiLSTM(nn.Module):
    """Residual BiLSTM block, attention pooling, fully connected layers (Table 1, ID 10).

    x = entry(states); h = LN(x + W BiLSTM(x)); mean and standard deviation of h_t under the weights
    softmax_t(v tanh(U h_t)); two blocks of Linear-ReLU-LayerNorm-Dropout; one linear layer.

    Args:
        width: values of a step inside the head; the LSTM has half of them in each direction.
        dropout: in the entry and after each block.
    """

    def __init__(self, width: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.entry = _Entry(width, dropout)
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.body = nn.Sequential(block(2 * width, width, dropout), block(width, MEMBER_VECTOR, dropout))
        self.last = nn.Linear(MEMBER_VECTOR, len(TRAINED_CLASSES))

    def vector(self, states: Tensor, steps: Tensor) -> Tensor:
        """States [n, t, 384] and steps [n] -> what the last layer reads [n, 64]."""
        x = self.entry(states)
        packed = nn.utils.rnn.pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        around, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        hidden = self.norm(x + self.project(around))
        scores = self.attention(hidden).squeeze(-1).masked_fill(~inside(steps, x.shape[1]), -torch.inf)
        return self.body(_statistics(hidden, scores.softmax(1)))

    def forward(self, states: Tensor, steps: Tensor) -> Tensor:
        """States [n, t, 384] and steps [n] -> logits [n, 7] in the order of `TRAINED_CLASSES`."""
        return self.last(self.vector(states, steps))


class Uncertainty(nn.Module):
    """Relations within beginning, middle and end, and the whole, to class-wise means and log-variances (Table 1, ID 9).

    Each third of the steps has its own multi-head attention and is averaged; the three go through two blocks of
    Linear-ReLU-LayerNorm-Dropout. Beside them average and standard deviation of all states. Both together give one
    vector, and that a mean and a log-variance for each class.

    Args:
        width: values of a step inside the head.
        dropout: in the entry and after each block.
        heads: of each attention.
    """

    def __init__(self, width: int = 64, dropout: float = 0.3, heads: int = 4) -> None:
        super().__init__()
        self.entry = _Entry(width, dropout)
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(PARTS))
        self.relations = nn.Sequential(block(PARTS * width, width, dropout), block(width, MEMBER_VECTOR, dropout))
        self.whole = block(2 * width, MEMBER_VECTOR, dropout)
        self.body = block(2 * MEMBER_VECTOR, MEMBER_VECTOR, dropout)
        self.last = nn.Linear(MEMBER_VECTOR, len(TRAINED_CLASSES))
        self.variance = nn.Linear(MEMBER_VECTOR, len(TRAINED_CLASSES))
        nn.init.xavier_uniform_(self.last.weight, 0.5)  # published gains and bias: start mild and certain
        nn.init.xavier_uniform_(self.variance.weight, 0.1)
        nn.init.constant_(self.variance.bias, -1.0)

    def vector(self, states: Tensor, steps: Tensor) -> Tensor:
        """States [n, t, 384] and steps [n] -> what the last layers read [n, 64]."""
        x = self.entry(states)
        related = []
        for part, attention in zip(thirds(steps, x.shape[1]), self.attention, strict=True):
            out, _ = attention(x, x, x, key_padding_mask=~part, need_weights=False)
            related.append((out * even(part).unsqueeze(-1)).sum(1))
        whole = self.whole(_statistics(x, even(inside(steps, x.shape[1]))))
        return self.body(torch.cat([self.relations(torch.cat(related, -1)), whole], -1))

    def forward(self, states: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, t, 384] and steps [n] -> means and log-variances [n, 7], in the order of `TRAINED_CLASSES`."""
        vector = self.vector(states, steps)
        return self.last(vector), self.variance(vector).clamp(*LOG_VARIANCE)


KINDS: Final[Mapping[str, type[ReBiLSTM | Uncertainty]]] = {
    "audio_bilstm": ReBiLSTM,
    "audio_uncertainty": Uncertainty,
}
"""Branch name -> network."""


def inside(steps: Tensor, longest: int) -> Tensor:
    """Steps [n] -> mask [n, longest], true on the steps that a window has."""
    return torch.arange(longest, device=steps.device) < steps[:, None]


def thirds(steps: Tensor, longest: int) -> list[Tensor]:
    """Steps [n] -> masks [n, longest] of beginning, middle and end; a window of one or two steps is its own third."""
    at = torch.arange(longest, device=steps.device)
    keep = inside(steps, longest)
    part = at * PARTS // steps[:, None]
    masks = [keep & (part == k) for k in range(PARTS)]
    return [torch.where(mask.any(1, keepdim=True), mask, keep) for mask in masks]


def even(mask: Tensor) -> Tensor:
    """Mask [n, t] -> weights [n, t] that are equal inside and sum to 1."""
    return mask / mask.sum(1, keepdim=True)


def _statistics(x: Tensor, weights: Tensor) -> Tensor:
    """Values [n, t, d] and weights [n, t] that sum to 1 -> mean and standard deviation over steps [n, 2 d]."""
    weight = weights.unsqueeze(-1)
    mean = (x * weight).sum(1)
    variance = ((x - mean.unsqueeze(1)) ** 2 * weight).sum(1)
    # A window of one step has no deviation; the root of 0 would have no gradient.
    return torch.cat([mean, variance.clamp(min=1e-6).sqrt()], -1)


class AudioHead:
    """A trained head, ready to use: some members of one kind whose probabilities are averaged.

    Args:
        tensors: "member/parameter" -> values, any float type.
        meta: `branch`, `members`, `width` and `temperature` (the logits are divided by it).
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        self.meta = dict(meta)
        self.members: list[ReBiLSTM | Uncertainty] = []
        for i in range(meta["members"]):
            network = KINDS[meta["branch"]](width=meta["width"])
            parameters = {name.split("/", 1)[1]: v for name, v in tensors.items() if name.startswith(f"{i}/")}
            network.load_state_dict({name: torch.from_numpy(v.astype(np.float32)) for name, v in parameters.items()})
            self.members.append(network.eval())
        self._last = [
            (m.last.weight.detach().double().numpy(), m.last.bias.detach().double().numpy()) for m in self.members
        ]

    @classmethod
    def load(cls, path: Path) -> AudioHead:
        """Read a head's file.

        Raises:
            CerError: the file is missing or damaged.
        """
        return cls(*load_head(path))

    @torch.inference_mode()
    def features(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """States [t, 384] of one window -> float32 [members x 64]: what the last layers read."""
        with one_thread():
            one, steps = torch.from_numpy(states[None]), torch.tensor([len(states)])
            return torch.cat([m.vector(one, steps) for m in self.members], -1)[0].numpy()

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features [..., members x 64] -> probabilities [..., 8], each summing to 1, 0 for "Other"."""
        parts = np.split(features.astype(np.float64), len(self.members), -1)
        every = [
            softmax((x @ w.T + b) / self.meta["temperature"], axis=-1)
            for x, (w, b) in zip(parts, self._last, strict=True)
        ]
        return spread(np.mean(every, axis=0))


def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [..., 7] in the order of `TRAINED_CLASSES` -> [..., 8] in the order of `BASIC`."""
    full = np.zeros((*values.shape[:-1], len(BASIC)))
    full[..., TRAINED_CLASSES] = values
    return full
