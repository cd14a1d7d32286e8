"""Temporal heads: the published formulas, step by step, and steps that do not count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cer_pipeline.branches.face import temporal_head as temporal
from cer_pipeline.branches.face.temporal_head import (
    MAMBA,
    TRANSFORMER,
    MambaBlock,
    Shape,
    TemporalHead,
    TransformerBlock,
)
from cer_pipeline.errors import CerError
from cer_pipeline.zoo.head_file import save_head


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small lose time by sharing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


BOTH = pytest.mark.parametrize("network", [TRANSFORMER, MAMBA])


def small(network: str, published: bool = False) -> Shape:
    return Shape(network, inputs=5, hidden=16, middle=6, layers=2, heads=4, states=3, kernel=4, published=published)


def head(network: str, published: bool = False, seed: int = 0) -> TemporalHead:
    torch.manual_seed(seed)
    made = TemporalHead(small(network, published))
    with torch.no_grad():  # so that no parameter sits at a value that hides its effect
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def naive_norm(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps)
    return scaled * array(norm.weight) + array(norm.bias)


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * v * (1 + float(torch.erf(torch.tensor(v / 2**0.5)))) for v in x.ravel()]).reshape(x.shape)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("published", [False, True])
def test_the_mamba_block_is_its_recurrence(published: bool) -> None:
    block: MambaBlock = head(MAMBA, published).blocks[0]  # type: ignore[assignment]
    x = np.random.default_rng(0).normal(size=(7, 16))
    both = x @ array(block.split.weight).T
    a, gate = both[:, :16], both[:, 16:]
    kernel, bias = array(block.convolution.weight)[:, 0], array(block.convolution.bias)  # type: ignore[arg-type]
    mixed = np.zeros_like(a)
    for t in range(7):
        for i in range(4):  # the last tap sees the present step
            if t - 3 + i >= 0:
                mixed[t] += kernel[:, i] * a[t - 3 + i]
    a = silu(mixed + bias)
    low = a @ array(block.step_down.weight).T @ array(block.step_up.weight).T
    delta = np.log1p(np.exp(low + array(block.skip if published else block.step_bias)))
    decay = -np.exp(array(block.log_a))
    b, c = a @ array(block.to_b.weight).T, a @ array(block.to_c.weight).T
    state = np.zeros((16, 3))
    y = np.zeros_like(a)
    for t in range(7):
        for channel in range(16):
            for n in range(3):
                d = delta[t, channel]
                keep = np.exp(decay[channel, n]) * d if published else np.exp(d * decay[channel, n])
                state[channel, n] = keep * state[channel, n] + d * b[t, n] * a[t, channel]
            y[t, channel] = state[channel] @ c[t]
    y = naive_norm(array(block.skip) * a + y, block.norm)
    expected = (y * silu(gate)) @ array(block.out.weight).T
    found = block(torch.from_numpy(x.astype(np.float32))[None], torch.ones(1, 7, dtype=torch.bool))
    np.testing.assert_allclose(array(found[0]), expected, atol=2e-5)


def test_the_transformer_block_is_attention_and_a_layer_each_normalised_after_its_residual() -> None:
    block: TransformerBlock = head(TRANSFORMER).blocks[0]  # type: ignore[assignment]
    x = np.random.default_rng(1).normal(size=(6, 16))
    projected = x @ array(block.attention.in_proj_weight).T + array(block.attention.in_proj_bias)
    q, k, v = np.split(projected, 3, axis=1)
    attended = np.zeros_like(x)
    for h in range(4):
        part = slice(4 * h, 4 * h + 4)
        for t in range(6):
            scores = np.array([q[t, part] @ k[s, part] for s in range(6)]) / 2.0
            weights = np.exp(scores) / np.exp(scores).sum()
            attended[t, part] = sum(weights[s] * v[s, part] for s in range(6))
    out = block.attention.out_proj
    x = naive_norm(x + attended @ array(out.weight).T + array(out.bias), block.first_norm)
    y = gelu(x @ array(block.inner.weight).T + array(block.inner.bias))
    expected = naive_norm(x + y @ array(block.outer.weight).T + array(block.outer.bias), block.second_norm)
    start = np.random.default_rng(1).normal(size=(6, 16)).astype(np.float32)
    found = block(torch.from_numpy(start)[None], torch.ones(1, 6, dtype=torch.bool))
    np.testing.assert_allclose(array(found[0]), expected, atol=2e-5)


@BOTH
def test_a_head_is_projection_blocks_with_outer_residual_mean_and_classifier(network: str) -> None:
    made = head(network)
    x = torch.randn(2, 7, 5)
    mask = torch.ones(2, 7, dtype=torch.bool)
    y = made.project_norm(made.project(x))
    for block in made.blocks:
        y = y + block(y, mask)
    pooled = y.mean(dim=1)
    expected = made.last(torch.nn.functional.gelu(made.inner_norm(made.inner(pooled))))
    logits, features = made(x, mask)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(features, pooled)


@BOTH
def test_steps_that_do_not_count_change_nothing_wherever_they_stand(network: str) -> None:
    made = head(network)
    x = torch.randn(1, 6, 5)
    whole, _ = made(x, torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(made(torch.cat([x, 9 * torch.randn(1, 3, 5)], 1), torch.arange(9)[None] < 6)[0], whole)
    mask = torch.tensor([[False, True, True, False, True, True, False, True, True]])
    for junk in (0.0, 100.0, float("inf")):
        spread = torch.full((1, 9, 5), junk)
        spread[mask] = x[0]
        torch.testing.assert_close(made(spread, mask)[0], whole)


@BOTH
def test_a_sequence_gets_the_same_value_in_any_batch(network: str) -> None:
    made = head(network)
    x, mask = torch.randn(4, 8, 5), torch.rand(4, 8) > 0.4
    mask[:, 0] = True
    together, _ = made(x, mask)
    alone = torch.cat([made(x[[i]], mask[[i]])[0] for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_order_counts_for_mamba_and_not_for_attention_without_positions() -> None:
    x, mask = torch.randn(1, 8, 5), torch.ones(1, 8, dtype=torch.bool)
    for network, same in ((MAMBA, False), (TRANSFORMER, True)):
        made = head(network)
        assert torch.allclose(made(x, mask)[0], made(x.flip(1), mask)[0], atol=1e-4) is same


@BOTH
def test_training_reaches_every_parameter(network: str) -> None:
    made = head(network)
    logits, _ = made(torch.randn(3, 8, 5), torch.ones(3, 8, dtype=torch.bool))
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 4, 6])).backward()
    unreached = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unreached == []


@BOTH
def test_a_head_comes_back_from_its_file_as_it_was(network: str, tmp_path: Path) -> None:
    made = head(network)
    made.mean.copy_(torch.arange(5.0))
    save_head(tmp_path / "head.safetensors", *temporal.state(made))
    again = temporal.load(tmp_path / "head.safetensors")
    steps = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    steps[:, -1] = np.arange(20) % 3 > 0
    p = again.probabilities(steps)
    np.testing.assert_array_equal(p, made.probabilities(steps))
    assert p.shape == (8,)
    assert abs(p.sum() - 1) < 1e-9


def test_a_file_that_holds_no_temporal_head_is_refused_in_one_line(tmp_path: Path) -> None:
    save_head(tmp_path / "other.safetensors", {"w": np.zeros(3, np.float32)}, {"labels": ["a"]})
    with pytest.raises(CerError, match="not a temporal head"):
        temporal.load(tmp_path / "other.safetensors")
    tensors, meta = temporal.state(head(MAMBA))
    tensors.pop("skip", None)
    with pytest.raises(CerError, match="not a temporal head"):
        temporal.build({k: v for k, v in tensors.items() if not k.endswith("skip")}, meta)


def test_sinusoids_mark_the_place_of_every_step() -> None:
    table = temporal.sinusoids(5, 6).numpy()
    for t in range(5):
        for i in range(6):
            angle = t / 10000 ** (2 * (i // 2) / 6)
            assert table[t, i] == pytest.approx(np.sin(angle) if i % 2 == 0 else np.cos(angle), abs=1e-6)


def test_with_positions_the_order_counts_for_attention_and_a_gap_keeps_its_place() -> None:
    torch.manual_seed(0)
    made = TemporalHead(replace(small(TRANSFORMER), positions=True)).eval()
    x, mask = torch.randn(1, 8, 5), torch.ones(1, 8, dtype=torch.bool)
    assert not torch.allclose(made(x, mask)[0], made(x.flip(1), mask)[0], atol=1e-4)
    gap = mask.clone()
    gap[0, 3] = False
    inner = made.project_norm(made.project(x)) + temporal.sinusoids(8, 16)
    y = inner[:, gap[0]]
    for block in made.blocks:
        y = y + block(y, torch.ones(1, 7, dtype=torch.bool))
    torch.testing.assert_close(made(x, gap)[1], y.mean(dim=1))


def test_a_file_names_the_option_of_positions_only_where_it_is_set(tmp_path: Path) -> None:
    assert "positions" not in temporal.state(head(MAMBA))[1]["shape"]
    made = TemporalHead(replace(small(TRANSFORMER), positions=True)).eval()
    save_head(tmp_path / "head.safetensors", *temporal.state(made))
    assert temporal.load(tmp_path / "head.safetensors").shape.positions


def test_a_head_is_loaded_for_its_own_branch_and_size_only(tmp_path: Path) -> None:
    tensors, meta = temporal.state(head(MAMBA))
    save_head(tmp_path / "head.safetensors", tensors, {**meta, "branch": "face_clip_mamba"})
    assert temporal.load(tmp_path / "head.safetensors", "face_clip_mamba", 5).shape.inputs == 5
    for branch, inputs in (("face_clip_mamba", 512), ("face_emoaffectnet_mamba", 5)):
        with pytest.raises(CerError, match=f"trained for other features.*cer train {branch}"):
            temporal.load(tmp_path / "head.safetensors", branch, inputs)
