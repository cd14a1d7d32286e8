"""The two audio heads of the paper over states of WavLM, and the file of a trained one.

Belongs here: the networks, their tensors in a file, probabilities. Does not belong here: the encoder (`wavlm`), tables
(`wavlm_stages`) or training.

Layers and sizes are those of the published code (audio models of "Team RAS in 9th ABAW Competition", Table 1, IDs 9 and
10). Two details differ where the framing is "masked": states behind the end of a shorter window are masked everywhere,
and the beginning, middle and end of a window hold all its states. With "published", all windows are padded with zeros
to 4 s, no state is masked, and of 199 states the last one is in no third.

A file (`zoo.head_file`) holds `head/<parameter>` for every parameter of the network of a branch, and
`encoder/<parameter>` for every tensor of the encoder that training changed, possibly none. Its meta has `branch`,
`encoder` (zoo id), `framing`, and optionally `temperature`, by which the logits are divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from cer_pipeline.branches.audio.heads import LOG_VARIANCE, PARTS, TEMPERATURE, block, even, inside, thirds
from cer_pipeline.branches.audio.wavlm_specs import BILSTM, ENCODER, UNCERTAINTY, VECTOR
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.zoo.head_file import load_head

STATE_SIZE: Final = 768  # values of a state of WavLM base
HIDDEN: Final = 512  # values between the two fully connected blocks
HEADS: Final = 4  # of each attention of the uncertainty head
DROPOUT: Final = 0.3
PUBLISHED: Final = "published"  # framing: no masks, equal thirds without the remainder


class WavlmUncertainty(nn.Module):
    """Attention within thirds and the mean of all states, to class-wise means and log-variances (Table 1, ID 9).

    Each third of the states has its own multi-head attention, whose output is averaged. The three averages go through
    two blocks of Linear-ReLU-LayerNorm-Dropout, to 512 and 256 values. The mean of all states goes through one block to
    256 values. Both together go through one block to 256, and these give a mean and a log-variance for each class.

    Args:
        framing: "masked" or "published".
        size: values of a state.
    """

    def __init__(self, framing: str, size: int = STATE_SIZE) -> None:
        super().__init__()
        self.framing = framing
        self.attention = nn.ModuleList(nn.MultiheadAttention(size, HEADS, batch_first=True) for _ in range(PARTS))
        self.relations = nn.Sequential(block(PARTS * size, HIDDEN, DROPOUT), block(HIDDEN, VECTOR, DROPOUT))
        self.whole = block(size, VECTOR, DROPOUT)
        self.body = block(2 * VECTOR, VECTOR, DROPOUT)
        self.last = nn.Linear(VECTOR, len(BASIC))
        self.variance = nn.Linear(VECTOR, len(BASIC))
        nn.init.xavier_uniform_(self.last.weight, 0.5)  # published gains and biases
        nn.init.constant_(self.last.bias, 0.0)
        nn.init.xavier_uniform_(self.variance.weight, 0.1)
        nn.init.constant_(self.variance.bias, -1.0)

    def vector(self, states: Tensor, steps: Tensor) -> Tensor:
        """States [n, t, size] and steps [n] -> what the last layers read [n, 256]."""
        longest = states.shape[1]
        whole = inside(steps, longest)
        parts = _equal_thirds(whole) if self.framing == PUBLISHED else thirds(steps, longest)
        related = []
        for part, attention in zip(parts, self.attention, strict=True):
            out, _ = attention(states, states, states, key_padding_mask=~part, need_weights=False)
            related.append((out * even(part).unsqueeze(-1)).sum(1))
        mean = (states * even(whole).unsqueeze(-1)).sum(1)
        return self.body(torch.cat([self.relations(torch.cat(related, -1)), self.whole(mean)], -1))

    def forward(self, states: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, t, size] and steps [n] -> means [n, 8] and log-variances [n, 8] in the order of `BASIC`."""
        vector = self.vector(states, steps)
        return self.last(vector), self.variance(vector).clamp(*LOG_VARIANCE)


class WavlmReBiLSTM(nn.Module):
    """Residual BiLSTM block, attention pooling, fully connected layers (Table 1, ID 10).

    h = LN(x + W BiLSTM(x)); sum of h_t with the weights softmax_t(v tanh(U h_t)); two blocks of
    Linear-ReLU-LayerNorm-Dropout, to 512 and 256 values; one linear layer.

    Args:
        framing: "masked" or "published"; this head treats both alike, since neither has states behind its steps.
        size: values of a state.
    """

    def __init__(self, framing: str, size: int = STATE_SIZE) -> None:
        super().__init__()
        self.framing = framing
        self.lstm = nn.LSTM(size, size, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * size, size)
        self.norm = nn.LayerNorm(size)
        self.attention = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1))
        self.body = nn.Sequential(block(size, HIDDEN, DROPOUT), block(HIDDEN, VECTOR, DROPOUT))
        self.last = nn.Linear(VECTOR, len(BASIC))

    def vector(self, states: Tensor, steps: Tensor) -> Tensor:
        """States [n, t, size] and steps [n] -> what the last layer reads [n, 256]."""
        packed = nn.utils.rnn.pack_padded_sequence(states, steps.cpu(), batch_first=True, enforce_sorted=False)
        around, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=states.shape[1]
        )
        hidden = self.norm(states + self.project(around))
        scores = self.attention(hidden).squeeze(-1).masked_fill(~inside(steps, states.shape[1]), -torch.inf)
        return self.body((hidden * scores.softmax(1).unsqueeze(-1)).sum(1))

    def forward(self, states: Tensor, steps: Tensor) -> Tensor:
        """States [n, t, size] and steps [n] -> logits [n, 8] in the order of `BASIC`."""
        return self.last(self.vector(states, steps))


Network = WavlmUncertainty | WavlmReBiLSTM
NETWORKS: Final[Mapping[str, type[Network]]] = {UNCERTAINTY: WavlmUncertainty, BILSTM: WavlmReBiLSTM}
"""Branch name -> network."""
TEMPERATURES: Final[Mapping[str, float]] = {UNCERTAINTY: TEMPERATURE, BILSTM: 1.0}
"""Branch name -> published divisor of the logits before the softmax."""


def _equal_thirds(whole: Tensor) -> list[Tensor]:
    """Masks [n, t] of three runs of t // 3 states; up to two states at the end are in none.

    A window of one or two states is its own third, as in `heads.thirds`.
    """
    size = whole.shape[1] // PARTS
    at = torch.arange(whole.shape[1], device=whole.device).expand_as(whole)
    masks = [(at >= k * size) & (at < (k + 1) * size) for k in range(PARTS)]
    return masks if size else [whole] * PARTS


@dataclass(frozen=True)
class WavlmHead:
    """A trained head.

    Args:
        network: in evaluation mode.
        encoder: tensors of the encoder that training changed, by the name of its parameter.
        temperature: divisor of the logits.
        size: values of a state that the network reads.
    """

    network: Network
    encoder: Mapping[str, Tensor]
    temperature: float
    size: int

    @classmethod
    def load(cls, path: Path, branch: str, framing: str) -> WavlmHead:
        """Read the file of a head.

        Args:
            path: the file.
            branch: branch that uses it.
            framing: framing of the profile.

        Raises:
            CerError: the file is missing or damaged, or the head was trained for another branch, encoder or framing.
        """
        tensors, meta = load_head(path)
        wanted = {"branch": branch, "encoder": ENCODER, "framing": framing}
        differing = [
            f"{name} {meta.get(name)!r} instead of {value!r}"
            for name, value in wanted.items()
            if meta.get(name) != value
        ]
        if differing:
            then = f"run `cer train {branch}`, or change audio_wavlm.framing"
            raise CerError(f"a head trained for {', '.join(differing)}", str(path), then)
        own = _tensors(tensors, "head/")
        norm = "norm.weight" if branch == BILSTM else "whole.0.weight"
        if norm not in own:
            raise CerError(f"a head without the tensor head/{norm}", str(path), f"run `cer train {branch}`")
        size = own[norm].shape[-1]
        network = NETWORKS[branch](framing, size)
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CerError(f"a head of another form ({reason})", str(path), f"run `cer train {branch}`") from None
        temperature = float(meta.get("temperature", TEMPERATURES[branch]))
        return cls(network.eval(), _tensors(tensors, "encoder/"), temperature, size)

    def probabilities(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values that the last layer reads [..., 256] -> probabilities [..., 8], each summing to 1."""
        weight, bias = (p.detach().cpu().double().numpy() for p in (self.network.last.weight, self.network.last.bias))
        return softmax((vector.astype(np.float64) @ weight.T + bias) / self.temperature, axis=-1)


def _tensors(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        for name, values in tensors.items()
        if name.startswith(prefix)
    }
