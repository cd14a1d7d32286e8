"""The audio heads and their losses: masks, members, and formulas against plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.branches.audio.heads import KINDS, MEMBER_VECTOR, AudioHead, Uncertainty, inside, thirds
from cer_pipeline.branches.audio.specs import STATE_SIZE
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.training import losses
from cer_pipeline.zoo.head_file import save_head

RNG = np.random.default_rng(0)


def head_file(folder: Path, branch: str, members: int = 2) -> Path:
    """A head with random weights."""
    torch.manual_seed(1)
    tensors = {}
    for i in range(members):
        state = KINDS[branch](width=32).state_dict()
        tensors |= {f"{i}/{name}": value.numpy().astype(np.float16) for name, value in state.items()}
    path = folder / f"{branch}.safetensors"
    save_head(path, tensors, {"branch": branch, "members": members, "width": 32, "temperature": 1.5})
    return path


@pytest.mark.parametrize("branch", sorted(KINDS))
def test_a_window_gives_the_same_whatever_stands_behind_its_end(branch: str) -> None:
    torch.manual_seed(0)
    network = KINDS[branch](width=32).eval()
    states = torch.from_numpy(RNG.normal(size=(3, 20, STATE_SIZE)).astype(np.float32))
    steps = torch.tensor([20, 7, 1])
    changed = states.clone()
    changed[~inside(steps, 20)] = 99.0
    with torch.inference_mode():
        first, second = network.vector(states, steps), network.vector(changed, steps)
        alone = torch.cat([network.vector(states[i : i + 1, :n], torch.tensor([n])) for i, n in enumerate((20, 7, 1))])
    assert torch.equal(first, second)
    assert torch.allclose(first, alone, atol=1e-5)


@pytest.mark.parametrize("branch", sorted(KINDS))
def test_a_head_gives_a_distribution_without_other(branch: str, tmp_path: Path) -> None:
    head = AudioHead.load(head_file(tmp_path, branch))
    features = head.features(RNG.normal(size=(9, STATE_SIZE)).astype(np.float32))
    p = head.probabilities(features)
    assert features.shape == (2 * MEMBER_VECTOR,)
    assert p.shape == (len(BASIC),)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p[BASIC.index("Other")] == 0
    assert (p[list(TRAINED_CLASSES)] > 0).all()


@pytest.mark.parametrize("branch", sorted(KINDS))
def test_a_head_of_members_is_the_mean_of_the_members(branch: str, tmp_path: Path) -> None:
    head = AudioHead.load(head_file(tmp_path, branch))
    states = RNG.normal(size=(13, STATE_SIZE)).astype(np.float32)
    with torch.inference_mode():
        each = []
        for member in head.members:
            out = member(torch.from_numpy(states[None]), torch.tensor([13]))
            logits = out[0] if isinstance(out, tuple) else out
            each.append((logits / 1.5).double().softmax(-1)[0].numpy())
    assert head.probabilities(head.features(states))[list(TRAINED_CLASSES)] == pytest.approx(np.mean(each, 0), abs=1e-6)


@given(n=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_thirds_part_the_steps_of_a_window(n: int) -> None:
    masks = [m[0].numpy() for m in thirds(torch.tensor([n]), 20)]
    assert not any(mask[n:].any() for mask in masks)
    assert all(mask.any() for mask in masks)
    if n >= 3:
        assert (np.sum(masks, axis=0)[:n] == 1).all()
        assert max(m.sum() for m in masks) - min(m.sum() for m in masks) <= 1


def test_log_variances_are_clamped() -> None:
    network = Uncertainty(width=32).eval()
    torch.nn.init.constant_(network.variance.bias, 50.0)
    _, log_variances = network(torch.zeros(1, 20, STATE_SIZE), torch.tensor([20]))
    assert log_variances.max() == 3


def example(n: int = 6, c: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, log-variances, soft targets, weights."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, c)), rng.normal(size=(n, c)), rng.dirichlet(np.ones(c), n), rng.uniform(0.5, 2, c)


def softmax(row: np.ndarray) -> list[float]:
    total = sum(math.exp(v) for v in row)
    return [math.exp(v) / total for v in row]


def test_balanced_cross_entropy_equals_a_plain_loop() -> None:
    logits, _, targets, weights = example()
    total = 0.0
    for row, t in zip(logits, targets, strict=True):
        p = softmax(row)
        weight = sum(w * x for w, x in zip(weights, t, strict=True))
        total += weight * -sum(x * math.log(q) for x, q in zip(t, p, strict=True))
    loss = losses.balanced_cross_entropy(*(torch.from_numpy(v) for v in (logits, targets, weights)))
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-12)


def test_soft_focal_equals_a_plain_loop() -> None:
    logits, _, targets, weights = example()
    total = 0.0
    for row, t in zip(logits, targets, strict=True):
        p = softmax(row)
        weight = sum(w * x for w, x in zip(weights, t, strict=True))
        smooth = [0.9 * x + 0.1 / 4 for x in t]
        total += weight * -sum(x * (1 - q) ** 2 * math.log(q) for x, q in zip(smooth, p, strict=True))
    loss = losses.soft_focal(torch.from_numpy(logits), torch.from_numpy(targets), torch.from_numpy(weights))
    assert loss.item() == pytest.approx(total / len(logits), rel=1e-12)


def test_soft_focal_without_focus_is_balanced_cross_entropy() -> None:
    values = example()
    logits, targets, weights = (torch.from_numpy(values[i]) for i in (0, 2, 3))
    focal = losses.soft_focal(logits, targets, weights, gamma=0.0, smoothing=0.0)
    assert focal.item() == pytest.approx(losses.balanced_cross_entropy(logits, targets, weights).item(), rel=1e-12)


def test_uncertainty_equals_a_plain_loop() -> None:
    means, log_variances, targets, weights = example()
    total, penalty = 0.0, 0.0
    for mu, v, t in zip(means, log_variances, targets, strict=True):
        q = softmax(mu / 1.5)
        weight = sum(w * x for w, x in zip(weights, t, strict=True))
        likelihood = sum((x - m) ** 2 / math.exp(s) + s for x, m, s in zip(t, mu, v, strict=True))
        apart = sum(x * math.log(x / y) for x, y in zip(t, q, strict=True))
        total += weight * (likelihood + 0.5 * apart)
        penalty += sum(s * s for s in v)
    loss = losses.uncertainty(*map(torch.from_numpy, (means, log_variances, targets, weights)), divergence=0.5)
    assert loss.item() == pytest.approx(total / len(means) + 0.01 * penalty / means.size, rel=1e-12)


def test_uncertainty_takes_hard_targets() -> None:
    means, log_variances, _, weights = example(4, 4)
    hard = torch.eye(4, dtype=torch.float64)
    loss = losses.uncertainty(
        torch.from_numpy(means), torch.from_numpy(log_variances), hard, torch.from_numpy(weights), 0.5
    )
    assert torch.isfinite(loss)


def test_class_weights_never_change_which_class_a_soft_target_means() -> None:
    """The published code weighted the target itself, which turns (.55, .45) over to a class of weight 10."""
    targets, weights = torch.tensor([[0.55, 0.45]]), torch.tensor([1.0, 10.0])
    means = torch.zeros(1, 2, requires_grad=True)
    losses.uncertainty(means, torch.zeros(1, 2), targets, weights, divergence=0.5).backward()
    assert means.grad is not None
    assert means.grad[0, 0] < means.grad[0, 1] < 0 or means.grad[0, 0] < 0 < means.grad[0, 1]


def test_class_weights_are_balanced_and_ignore_absent_classes() -> None:
    targets = torch.eye(4)[[0, 0, 0, 1, 2, 2]]
    assert losses.class_weights(targets).tolist() == pytest.approx([6 / 12, 6 / 4, 6 / 8, 0.0])
