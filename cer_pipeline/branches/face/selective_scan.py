"""The selective scan of a Mamba block: in plain torch, and through the CUDA kernel of the package mamba-ssm.

Belongs here: the recurrence. Does not belong here: what surrounds it in a block (`temporal_head`).

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), equations 2a, 2b and 4.
"""

from __future__ import annotations

from importlib import util

import torch
from torch import Tensor
from torch.nn import functional


def selective_scan(
    x: Tensor, step: Tensor, bias: Tensor, decay: Tensor, enter: Tensor, read: Tensor, *, published: bool = False
) -> Tensor:
    """h_t = A_bar h_{t-1} + Delta B x_t with Delta = softplus(step + bias); the output is C h_t.

    Args:
        x: input [N, T, h].
        step: what the input adds to the step size [N, T, h].
        bias: of the step size [h].
        decay: A, negative [h, n].
        enter: B [N, T, n].
        read: C [N, T, n].
        published: A_bar is exp(A) Delta, as in the published code, instead of exp(Delta A).

    Returns:
        [N, T, h].
    """
    size = functional.softplus(bias + step).unsqueeze(-1)  # [N, T, h, 1]
    keep = torch.exp(decay) * size if published else torch.exp(size * decay)  # [N, T, h, n]
    add = size * enter.unsqueeze(2) * x.unsqueeze(-1)
    weights = read.unsqueeze(2)
    state = torch.zeros_like(keep[:, 0])
    out = []
    for t in range(x.shape[1]):
        state = keep[:, t] * state + add[:, t]
        out.append((state * weights[:, t]).sum(dim=-1))
    return torch.stack(out, dim=1)


def kernels_installed() -> bool:
    """Whether the package mamba-ssm is installed; it exists for CUDA only."""
    return util.find_spec("mamba_ssm") is not None


def kernel_scan(x: Tensor, step: Tensor, bias: Tensor, decay: Tensor, enter: Tensor, read: Tensor) -> Tensor:
    """As `selective_scan` with A_bar = exp(Delta A), by the CUDA kernel; equal within 1e-5."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # type: ignore[import-not-found]

    # The kernel has the channels before the steps.
    u, delta, b, c = (tensor.transpose(1, 2).contiguous() for tensor in (x, step, enter, read))
    y = selective_scan_fn(u, delta, decay, b, c, D=None, z=None, delta_bias=bias.float(), delta_softplus=True)
    return y.transpose(1, 2)
