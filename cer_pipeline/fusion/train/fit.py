"""Train MHPF on out-of-fold probabilities of its branches.

Belongs here: the units, classes and subsets of branches that each head is trained on. Does not belong here: the loss
(`objectives`), the source of the probabilities (`data`), or any test score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask
from cer_pipeline.fusion.mhpf import DYNAMIC, MHPF, STATIC, gate_inputs, standardised
from cer_pipeline.fusion.train.objectives import StaticMHPF, fit_gate, likelihood_loss, minimise, published_loss
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training.folds import random_group_folds

PUBLISHED: Final = "published"
LIKELIHOOD: Final = "likelihood"
FLAT: Final = 1e-6  # standard deviation below which a gate input counts as constant and is not scaled


@dataclass(frozen=True)
class Settings:
    """Settings of the training.

    Args:
        method: static or dynamic.
        loss: static: published (cross-entropy on probabilities as logits) or likelihood; dynamic: likelihood.
        heads: H; static heads differ in their initial values, dynamic heads in the inner fold of groups left out.
        soft: whether targets keep their distribution; otherwise their most probable class counts.
        balance: exponent of the class weights (units / (classes x units of the class)) ** balance; 1 is the balance of
            the reference code, 0 is none.
        dropout: weight of the units with modality dropout, which is drawn per head.
        decay: penalty on the maps (dynamic).
        sharpness: s of `mhpf` (dynamic).
        stiffness: k of `mhpf` (dynamic).
        seed: seed of initial values, folds and dropout.
    """

    method: str = DYNAMIC
    loss: str = LIKELIHOOD
    heads: int = 5
    soft: bool = False
    balance: float = 0.5
    dropout: float = 0.1
    decay: float = 0.002
    sharpness: float = 8.0
    stiffness: float = 4.0
    seed: int = 42


def train_mhpf(
    probabilities: Array,
    present: Mask,
    targets: Array,
    groups: Sequence[object] | NDArray[Any],
    branches: Sequence[str],
    classes: Sequence[str],
    settings: Settings,
) -> MHPF:
    """Train a fusion; the same arguments give the same bits on one machine.

    Args:
        probabilities: out-of-fold probabilities of the branches [n, M, C]; values of absent branches are not read.
        present: [n, M]; units without a present branch are left out.
        targets: distributions over the classes [n, C]; units without a target (NaN or 0) are left out.
        groups: source video, speaker or clip of each unit [n]; an inner fold keeps a group whole.
        branches: names [M].
        classes: labels [C]; a class without a unit is not learned (`MHPF.known`).
        settings: see `Settings`.

    Raises:
        CerError: no unit has a branch and a target, all units have the same class, or there are fewer groups than
        heads.
    """
    if settings.method not in (STATIC, DYNAMIC) or settings.loss not in (PUBLISHED, LIKELIHOOD):
        raise CerError("unknown fusion method or loss", f"{settings.method}, {settings.loss}")
    usable = present.any(axis=1) & np.isfinite(targets).all(axis=1) & (targets.sum(axis=1) > 0)
    if not usable.any():
        raise CerError("no unit has both a branch and a label", then="run the branches, and label the corpus")
    p, m, t = np.where(present[..., None], probabilities, 0.0)[usable], present[usable], targets[usable]
    t = t / t.sum(axis=1, keepdims=True) if settings.soft else np.eye(t.shape[1])[t.argmax(axis=1)]
    counts = t.sum(axis=0)
    known = counts > 0
    if known.sum() < 2:
        raise CerError("all training units have the same class", classes[int(counts.argmax())], "label other ones too")
    weights = np.where(known, (len(t) / (known.sum() * np.maximum(counts, 1e-9))) ** settings.balance, 0.0)
    with one_thread():
        fit = _static if settings.method == STATIC else _dynamic
        return fit(p, m, t, np.asarray(groups)[usable], weights, branches, classes, settings)


def dropped(present: Mask, rng: np.random.Generator) -> Mask:
    """Modality dropout: drop every branch with probability 1/2; at least one present branch stays."""
    keep = present & (rng.random(present.shape) < 0.5)
    kept = np.where(present, rng.random(present.shape), -1.0).argmax(axis=1)
    keep[np.arange(len(keep)), kept] = True
    return keep


def _static(
    p: Array,
    m: Mask,
    t: Array,
    _: NDArray[Any],
    weights: Array,
    branches: Sequence[str],
    classes: Sequence[str],
    settings: Settings,
) -> MHPF:
    module = StaticMHPF(settings.heads, p.shape[1], p.shape[2], torch.Generator().manual_seed(settings.seed))
    loss = published_loss if settings.loss == PUBLISHED else likelihood_loss
    values, targets, balance = torch.from_numpy(p), torch.from_numpy(t), torch.from_numpy(weights)
    full = torch.from_numpy(m)
    reduced = torch.from_numpy(dropped(m, np.random.default_rng(settings.seed)))

    def total() -> torch.Tensor:
        whole = loss(module(values, full), targets, balance)
        if settings.dropout == 0.0:
            return whole
        return (1 - settings.dropout) * whole + settings.dropout * loss(module(values, reduced), targets, balance)

    minimise(list(module.parameters()), total)
    scores, mix = module.scores.detach().numpy().copy(), module.mix.detach().numpy().copy()
    none = np.empty(0)
    return MHPF(STATIC, tuple(branches), tuple(classes), _known(weights), scores, mix, none, none, none)


def _dynamic(
    p: Array,
    m: Mask,
    t: Array,
    groups: NDArray[Any],
    weights: Array,
    branches: Sequence[str],
    classes: Sequence[str],
    settings: Settings,
) -> MHPF:
    if settings.loss != LIKELIHOOD:
        raise CerError("the dynamic fusion is trained by its likelihood", settings.loss, "use the loss likelihood")
    mean, scale = _moments(p, m)
    fold = random_group_folds(groups, settings.heads, settings.seed) if settings.heads > 1 else np.full(len(p), -1)
    known = np.array(_known(weights))
    balance = torch.from_numpy(weights[known])
    maps = np.zeros((settings.heads, p.shape[2], p.shape[1], 2 * p.shape[2] + 3))
    free = np.zeros(maps.shape[2:], dtype=bool)
    free[:, -1] = True
    for head in range(settings.heads):
        train = fold != head
        reduced = dropped(m[train], np.random.default_rng([settings.seed, head]))
        # The weight of a single branch is 1 whatever the gate target, so such a unit is left out.
        several = reduced.sum(axis=1) > 1
        rows = [standardised(p[train], m[train], mean, scale)]
        shares = [np.full(train.sum(), 1 - settings.dropout)]
        if settings.dropout > 0.0 and several.any():
            rows.append(standardised(p[train][several], reduced[several], mean, scale))
            shares.append(np.full(several.sum(), settings.dropout))
        inputs = np.concatenate(rows).reshape(-1, free.size)
        shared = np.concatenate([t[train], t[train][several]][: len(rows)])[:, known] * np.concatenate(shares)[:, None]
        z, unpenalised, targets = (torch.from_numpy(np.ascontiguousarray(a)) for a in (inputs, free.ravel(), shared))
        maps[head, known] = fit_gate(z, unpenalised, targets, balance, settings.decay).numpy().reshape(-1, *free.shape)
    return MHPF(
        DYNAMIC,
        tuple(branches),
        tuple(classes),
        _known(weights),
        np.empty(0),
        np.zeros(settings.heads),
        maps,
        mean,
        scale,
        settings.sharpness,
        settings.stiffness,
    )


def _known(weights: Array) -> tuple[bool, ...]:
    return tuple(bool(w > 0) for w in weights)


def _moments(p: Array, m: Mask) -> tuple[Array, Array]:
    """Mean and standard deviation of the gate inputs of every branch over the units where it is present."""
    mask = m[..., None]
    raw = gate_inputs(np.where(mask, p, 1.0 / p.shape[2]))
    count = np.maximum(mask.sum(axis=0), 1)
    mean = np.where(mask, raw, 0.0).sum(axis=0) / count
    scale = np.sqrt(np.where(mask, (raw - mean) ** 2, 0.0).sum(axis=0) / count)
    return mean, np.where(scale > FLAT, scale, 1.0)
