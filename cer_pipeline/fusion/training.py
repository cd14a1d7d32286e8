"""Training of the fusion on probabilities that its branches gave for units they were not trained on.

Belongs here: the loop, early stopping, modality dropout. Does not belong here: the modules (`modules`), where
probabilities come from, or any test score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask
from cer_pipeline.fusion.mhpf import DYNAMIC, MHPF, STATIC
from cer_pipeline.fusion.modules import DynamicMHPF, StaticMHPF, likelihood_loss, published_loss

PUBLISHED = "published"
LIKELIHOOD = "likelihood"


@dataclass(frozen=True)
class Settings:
    """How a fusion is trained.

    Args:
        method: static or dynamic.
        loss: published (cross-entropy on probabilities as logits) or likelihood.
        heads: H, per member.
        members: trainings that are joined into one fusion; each stops early on another fold.
        soft: whether targets keep their distribution; otherwise their most likely class counts.
        balance: exponent of the class weights (units / (classes x units of the class)) ** balance: 1 is balanced as
            published, 0 is none.
        dropout: share of units that lose branches at random in every step (likelihood of each present branch 1/2, at
            least one stays).
        rate: learning rate of Adam.
        decay: weight decay (decoupled, on all parameters).
        steps: most steps, each over the whole set.
        patience: steps without a better inner fold after which training stops.
        folds: inner folds; groups are never split.
        seed: of first values, folds and dropout.
    """

    method: str = DYNAMIC
    loss: str = LIKELIHOOD
    heads: int = 4
    members: int = 5
    soft: bool = False
    balance: float = 0.0
    dropout: float = 0.1
    rate: float = 0.02
    decay: float = 0.1
    steps: int = 600
    patience: int = 60
    folds: int = 5
    seed: int = 42


@dataclass(frozen=True)
class Trained:
    """A trained fusion and how its training went.

    Args:
        fusion: the members joined.
        best_steps: for each member, the step that its inner fold chose.
        inner_losses: for each member, the loss on its inner fold at that step.
    """

    fusion: MHPF
    best_steps: tuple[int, ...]
    inner_losses: tuple[float, ...]


def grouped_folds(groups: Sequence[object] | NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for every unit, such that no group lies in two: groups are shuffled and dealt out.

    Raises:
        CerError: fewer groups than folds.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < folds:
        raise CerError(f"{folds} folds need as many groups", f"{len(names)} found", "use more videos or fewer folds")
    order = np.random.default_rng(seed).permutation(len(names))
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % folds
    return fold[member]


def train_mhpf(
    probabilities: Array,
    present: Mask,
    targets: Array,
    groups: Sequence[object] | NDArray[Any],
    branches: Sequence[str],
    classes: Sequence[str],
    settings: Settings,
) -> Trained:
    """Train a fusion; the same arguments give the same bits on one machine.

    Args:
        probabilities: out-of-fold probabilities of the branches [n, M, C].
        present: [n, M]; units without any branch are left out.
        targets: distributions over the classes [n, C].
        groups: source video, speaker or clip of each unit [n]; inner folds never split one.
        branches: M names.
        classes: C labels.
        settings: see `Settings`.

    Returns:
        One fusion of `members` x `heads` heads: a mixture of convex weights is convex.

    Raises:
        CerError: no unit has a branch and a target, a class has no unit, or groups are fewer than folds.
    """
    usable = present.any(axis=1) & np.isfinite(targets).all(axis=1) & (targets.sum(axis=1) > 0)
    if not usable.any():
        raise CerError("no unit has both a branch and a label")
    p, m, t = probabilities[usable], present[usable], targets[usable]
    t = t / t.sum(axis=1, keepdims=True) if settings.soft else np.eye(t.shape[1])[t.argmax(axis=1)]
    counts = t.sum(axis=0)
    if settings.balance and (counts <= 0).any():
        lacking = [c for c, n in zip(classes, counts, strict=True) if n <= 0]
        raise CerError("classes without a training unit", ", ".join(lacking), "add units or leave these classes out")
    weights = (len(t) / (len(counts) * np.maximum(counts, 1.0))) ** settings.balance
    fold = grouped_folds(np.asarray(groups)[usable], settings.folds, settings.seed)
    with _one_thread():
        return _train_members(p, m, t, weights, fold, branches, classes, settings)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over units come out the same whatever the machine's number of cores is; the tensors are small anyway."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_members(
    p: Array,
    m: Mask,
    t: Array,
    weights: Array,
    fold: NDArray[np.int64],
    branches: Sequence[str],
    classes: Sequence[str],
    settings: Settings,
) -> Trained:
    data = tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in (np.where(m[..., None], p, 0.0), m, t))
    balance = torch.from_numpy(weights)
    members = [
        _train_member(
            data, balance, torch.from_numpy(fold != i % settings.folds), replace(settings, seed=settings.seed + i)
        )
        for i in range(settings.members)
    ]
    plain = [module.plain(branches, classes) for module, _, _ in members]
    return Trained(_joined(plain), tuple(s for _, s, _ in members), tuple(v for _, _, v in members))


def _train_member(
    data: tuple[Tensor, ...], class_weights: Tensor, inside: Tensor, settings: Settings
) -> tuple[StaticMHPF | DynamicMHPF, int, float]:
    if settings.method not in (STATIC, DYNAMIC) or settings.loss not in (PUBLISHED, LIKELIHOOD):
        raise CerError("unknown fusion method or loss", f"{settings.method}, {settings.loss}")
    generator = torch.Generator().manual_seed(settings.seed)
    loss = published_loss if settings.loss == PUBLISHED else likelihood_loss
    mine, other = [x[inside] for x in data], [x[~inside] for x in data]
    if settings.method == STATIC:
        module: StaticMHPF | DynamicMHPF = StaticMHPF(settings.heads, *data[0].shape[1:], generator=generator)
    else:
        module = DynamicMHPF(settings.heads, mine[0], mine[1], generator)
    optimiser = torch.optim.AdamW(module.parameters(), lr=settings.rate, weight_decay=settings.decay)
    best, best_step, kept = np.inf, 0, {k: v.clone() for k, v in module.state_dict().items()}
    for step in range(1, settings.steps + 1):
        here = _dropped(mine[1], settings.dropout, generator)
        optimiser.zero_grad()
        loss(module(mine[0], here), mine[2], class_weights).backward()
        optimiser.step()
        with torch.no_grad():
            value = float(loss(module(other[0], other[1]), other[2], class_weights))
        if value < best:
            best, best_step, kept = value, step, {k: v.clone() for k, v in module.state_dict().items()}
        elif step - best_step >= settings.patience:
            break
    module.load_state_dict(kept)
    return module, best_step, best


def _dropped(present: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Presence after modality dropout."""
    n, branches = present.shape
    hit = torch.rand(n, generator=generator) < share
    keep = torch.rand((n, branches), generator=generator) < 0.5
    spared = torch.where(
        present, torch.rand((n, branches), generator=generator), torch.full((n, branches), -1.0)
    ).argmax(1)
    keep[torch.arange(n), spared] = True
    return torch.where(hit[:, None], present & keep, present)


def _joined(members: Sequence[MHPF]) -> MHPF:
    """One fusion of all members' heads; each member has the same total coefficient."""
    first = members[0]
    # Members standardise evidence by their own training folds: fold that into maps over the first one's scale.
    scores, maps = [], []
    for member in members:
        moved, own = member.scores, member.maps
        if member.method == DYNAMIC:
            ratio = first.scale / member.scale
            shift = (first.mean - member.mean) / member.scale
            moved_constant = np.einsum("hmcjk,jk->hmcj", own[..., :-1], shift)
            own = np.concatenate([own[..., :-1] * ratio, own[..., -1:] + moved_constant[..., None]], axis=-1)
        scores.append(moved)
        maps.append(own)
    mixes = [m.mix - np.log(np.exp(m.mix - m.mix.max()).sum()) - m.mix.max() for m in members]
    joined_maps = np.concatenate(maps) if first.method == DYNAMIC else first.maps
    return replace(first, scores=np.concatenate(scores), mix=np.concatenate(mixes), maps=joined_maps)
