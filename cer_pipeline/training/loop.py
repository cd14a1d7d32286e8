"""The training loop of every head that is trained by gradient steps.

Belongs here: epochs, gradient steps, learning-rate schedules, early stopping, and resuming a stopped run. Does not
belong here: networks, losses (`losses`), the order of the rows and the held-out score (the `train` module of a head),
or the file of a state (`checkpoint`).

A run that resumes to the same result draws no random number that depends on earlier steps: torch is seeded from the
number of the step (`Loop.seed`), and `batches` orders the rows from the number of the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from cer_pipeline.training.checkpoint import Checkpoint, Parameters, Schedule, seed_step
from cer_pipeline.training.progress import Progress, quiet

Batch = np.ndarray[Any, np.dtype[np.int64]]
"""Row numbers of one step."""

Record = dict[str, float]
"""Of one epoch: `epoch`, `loss` (mean over its rows), `rate` (of its last step), and `score` where there is one."""


@dataclass(frozen=True)
class Loop:
    """How long a head is trained.

    Args:
        epochs: at most so many passes over the rows.
        clip: largest norm of the gradient; no limit unless given.
        seed: torch is seeded from it and the number of the step before each step; not at all unless given.
        patience: epochs in a row without a better score after which training stops.
        gain: a score is better where it exceeds the best one by more than this.
        save_every: steps between two checkpoints within an epoch; every epoch ends with one anyway.
    """

    epochs: int
    clip: float = math.inf
    seed: int | None = None
    patience: float = math.inf
    gain: float = 0.0
    save_every: float = math.inf


@dataclass
class _Counters:
    step: int = 0
    done: int = 0  # batches of the running epoch that are done
    loss: float = 0.0  # sum over the rows of the running epoch
    rows: int = 0
    waited: int = 0  # epochs since the best score
    best: float | None = None
    records: list[Record] = field(default_factory=list)

    def is_best(self, score: float, gain: float) -> bool:
        """Count an epoch; return whether its score is the best so far."""
        better = self.best is None or score > self.best + gain
        self.best, self.waited = (score, 0) if better else (self.best, self.waited + 1)
        return better


def warmup_cosine(optimiser: torch.optim.Optimizer, steps: int, warmup: float) -> LRScheduler:
    """A learning rate that rises linearly over a share of all steps, then falls to 0 along half a cosine.

    It starts at a thousandth of the share beyond 0, so that the first step changes something.
    """

    def factor(step: int) -> float:
        share = step / steps
        if share < warmup:
            return (share + 1e-3) / warmup
        return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))

    return LambdaLR(optimiser, factor)


def warmup_linear(optimiser: torch.optim.Optimizer, steps: int, warmup: float) -> LRScheduler:
    """A learning rate that rises linearly from 0 over a share of all steps, then falls linearly to 0."""

    def factor(step: int) -> float:
        share = step / steps
        return share / warmup if share < warmup else (1 - share) / (1 - warmup)

    return LambdaLR(optimiser, factor)


def train(
    parameters: Parameters,
    optimiser: torch.optim.Optimizer,
    loop: Loop,
    batches: Callable[[int], Sequence[Batch]],
    loss: Callable[[Batch, int], torch.Tensor],
    schedule: Schedule | None = None,
    score: Callable[[], float] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = quiet,
) -> list[Record]:
    """Train parameters in place; with a score, they end as they were after the best epoch.

    Args:
        parameters: the trained parameters by name; all of them are the optimiser's.
        optimiser: Adam or AdamW.
        loop: how long.
        batches: number of an epoch -> its batches; every epoch has equally many.
        loss: (batch, number of the epoch) -> mean loss over the rows, by a network in training mode.
        schedule: stepped after every step; `ReduceLROnPlateau` after every epoch, with the score.
        score: of held-out rows, after every epoch; the higher, the better.
        checkpoint: file of the state, from which a stopped run goes on.
        progress: called after every checkpoint with the loss and the score, the steps done, and those of all epochs.

    Returns:
        One record an epoch.
    """
    now, best = _Counters(), {}
    if checkpoint and (counters := checkpoint.load(parameters, optimiser, schedule, best, asdict(now))):
        now = _Counters(**counters)

    def save(message: str, per_epoch: int) -> None:
        if checkpoint:
            checkpoint.save(parameters, optimiser, schedule, best, asdict(now))
        progress(message, now.step, loop.epochs * per_epoch)

    while (epoch := len(now.records)) < loop.epochs and now.waited < loop.patience:
        order = batches(epoch)
        rate = 0.0
        for batch in order[now.done :]:
            rate = optimiser.param_groups[0]["lr"]
            if loop.seed is not None:
                seed_step(loop.seed, now.step)
            now.loss += _step(parameters, optimiser, schedule, loss(batch, epoch), loop.clip) * len(batch)
            now.rows += len(batch)
            now.step += 1
            now.done += 1
            if now.step % loop.save_every == 0 and now.done < len(order):
                save(f"loss {now.loss / now.rows:.3f}", len(order))
        record = {"epoch": epoch, "loss": now.loss / now.rows, "rate": rate}
        now.done, now.loss, now.rows = 0, 0.0, 0
        now.records.append(record)
        message = f"loss {record['loss']:.3f}"
        if score:
            record["score"] = value = score()
            message += f", score {value:.3f}"
            if now.is_best(value, loop.gain):
                best |= {name: parameter.detach().clone() for name, parameter in parameters.items()}
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(value)
        save(message, len(order))
    with torch.no_grad():
        for name, value in best.items():
            parameters[name].copy_(value)
    return now.records


def _step(
    parameters: Parameters,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule | None,
    loss: torch.Tensor,
    clip: float,
) -> float:
    """Take one gradient step and return the loss before it."""
    optimiser.zero_grad()
    loss.backward()
    if clip < math.inf:
        torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
    optimiser.step()
    if schedule and not isinstance(schedule, ReduceLROnPlateau):
        schedule.step()
    return loss.item()
