"""The selective scan: plain torch, the wrapper of the CUDA kernel, and the kernel itself where there is one."""

from __future__ import annotations

import sys
from importlib import util
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from cer_pipeline.branches.face import selective_scan as scans
from cer_pipeline.branches.face import temporal_head as temporal
from cer_pipeline.branches.face.selective_scan import kernel_scan, selective_scan

TOLERANCE = 1e-5


def arguments(device: str = "cpu", seed: int = 0) -> tuple[Tensor, ...]:
    """x, step, bias, decay, enter, read of 3 sequences of 20 steps with 32 channels and 4 states each."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 20, 32), (3, 20, 32), (32,), (32, 4), (3, 20, 4), (3, 20, 4))
    parts = [torch.randn(shape, generator=generator) for shape in shapes]
    parts[3] = -torch.exp(parts[3])
    return tuple(part.to(device) for part in parts)


def documented_kernel(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803 - the names of mamba-ssm
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor:
    """What mamba-ssm documents of its kernel, number by number: u, delta [b, d, l], A [d, n], B, C [b, n, l]."""
    assert D is None and z is None and delta_bias is not None and delta_softplus and not return_last_state
    assert all(tensor.is_contiguous() for tensor in (u, delta, A, B, C))
    out = np.zeros(u.shape)
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            state = np.zeros(A.shape[1])
            for t in range(u.shape[2]):
                size = np.log1p(np.exp(float(delta[b, d, t] + delta_bias[d])))
                state = np.exp(size * A[d].numpy()) * state + size * B[b, :, t].numpy() * float(u[b, d, t])
                out[b, d, t] = float(C[b, :, t].numpy() @ state)
    return torch.from_numpy(out.astype(np.float32))


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package mamba_ssm whose kernel is `documented_kernel`."""
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = documented_kernel  # type: ignore[attr-defined]
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)


def test_the_wrapper_of_the_kernel_equals_the_plain_loop(documented: None) -> None:
    parts = arguments()
    expected = selective_scan(*parts)
    assert expected.abs().max() > 1
    torch.testing.assert_close(kernel_scan(*parts), expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and util.find_spec("mamba_ssm")), reason="needs a CUDA device and mamba-ssm"
)
def test_the_kernel_equals_the_plain_loop_on_a_cuda_device() -> None:
    parts = arguments("cuda")
    expected = selective_scan(*parts)
    torch.testing.assert_close(kernel_scan(*parts), expected, rtol=TOLERANCE, atol=TOLERANCE)
    shape = temporal.Shape(temporal.MAMBA, inputs=512, hidden=32)
    head, x, mask = temporal.TemporalHead(shape).eval(), torch.randn(4, 20, 512), torch.ones(4, 20, dtype=torch.bool)
    with torch.inference_mode():
        on_cpu = head(x, mask)[0]
        on_cuda = head.to("cuda")(x.to("cuda"), mask.to("cuda"))[0].cpu()
    torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(util.find_spec("mambapy") is None, reason="mambapy is not installed: `make install EXTRAS=gpu`")
def test_the_plain_loop_equals_the_parallel_scan_of_mambapy() -> None:
    from mambapy.pscan import pscan  # pyright: ignore[reportMissingImports]

    x, step, bias, decay, enter, read = arguments()
    size = torch.nn.functional.softplus(step + bias)[..., None]
    states = pscan(torch.exp(size * decay), size * enter[:, :, None] * x[..., None])  # type: ignore[operator]
    expected = (states * read[:, :, None]).sum(dim=-1)
    torch.testing.assert_close(selective_scan(x, step, bias, decay, enter, read), expected, rtol=1e-4, atol=1e-4)


def test_a_head_on_the_cpu_never_calls_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "kernels_installed", lambda: True)
    monkeypatch.setattr(temporal, "kernel_scan", lambda *_: pytest.fail("called"))
    head = temporal.TemporalHead(temporal.Shape(temporal.MAMBA, inputs=5, hidden=16)).eval()
    logits, _ = head(torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool))
    assert logits.shape == (2, 8)


def test_the_kernel_is_installed_where_its_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans.util, "find_spec", lambda name: object() if name == "mamba_ssm" else None)
    assert scans.kernels_installed()
    monkeypatch.setattr(scans.util, "find_spec", lambda name: None)
    assert not scans.kernels_installed()
