"""The training loop: schedules, early stopping, and runs that go on after a stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training import loop
from cer_pipeline.training.checkpoint import Checkpoint, Schedule
from cer_pipeline.training.loop import Loop
from cer_pipeline.zoo.head_file import load_head, save_head

pytestmark = pytest.mark.slow  # the first optimiser of a process imports torch._dynamo: 4 CPU-seconds

ROWS, SIZE, BATCH = 10, 3, 4
Make = Callable[[torch.optim.Optimizer], Schedule | None]
SCHEDULES: dict[str, Make] = {
    "none": lambda optimiser: None,
    "cosine": lambda optimiser: loop.warmup_cosine(optimiser, 15, 0.2),
    "linear": lambda optimiser: loop.warmup_linear(optimiser, 15, 0.2),
    "annealing": lambda optimiser: CosineAnnealingLR(optimiser, 4),
    "plateau": lambda optimiser: ReduceLROnPlateau(optimiser, "max", patience=0, threshold=0.0),
}


class Stop(Exception):
    """Raised where a run is stopped."""


class Run:
    """A linear network with dropout that is trained on random rows."""

    def __init__(self, make: Make = SCHEDULES["none"], scores: list[float] | None = None) -> None:
        torch.manual_seed(3)
        self.network = torch.nn.Sequential(torch.nn.Linear(SIZE, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        self.x = torch.randn(ROWS, SIZE)
        self.y = self.x.sum(1, keepdim=True)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=0.05)
        self.schedule, self.scores = make(self.optimiser), scores
        self.losses: list[tuple[int, float]] = []
        self.values: list[dict[str, torch.Tensor]] = []  # after every epoch

    def batches(self, epoch: int) -> list[np.ndarray]:
        self.network.train()
        return np.array_split(np.random.default_rng(epoch).permutation(ROWS), math.ceil(ROWS / BATCH))

    def loss(self, batch: np.ndarray, epoch: int) -> torch.Tensor:
        value = ((self.network(self.x[batch]) - self.y[batch]) ** 2).mean()
        self.losses.append((len(batch), value.item()))
        return value

    def score(self) -> float:
        self.values.append({name: value.clone() for name, value in self.network.state_dict().items()})
        if self.scores is not None:
            return self.scores[len(self.values) - 1]
        self.network.eval()
        with torch.no_grad():
            return -float(((self.network(self.x) - self.y) ** 2).mean())

    def train(self, limits: Loop, path: Path | None = None, **more: Any) -> list[loop.Record]:
        parameters = dict(self.network.named_parameters())
        checkpoint = Checkpoint(path, {"run": "a"}) if path else None
        with one_thread():
            return loop.train(
                parameters, self.optimiser, limits, self.batches, self.loss, self.schedule, self.score, checkpoint,
                **more,
            )  # fmt: skip


def rates(make: Make, steps: int) -> list[float]:
    """Learning rate of each step for a base rate of 0.05."""
    run = Run(make)
    assert run.schedule is not None
    found = []
    for _ in range(steps):
        found.append(run.optimiser.param_groups[0]["lr"])
        run.optimiser.step()
        run.schedule.step()  # type: ignore[call-arg]
    return found


@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.1, 0.5])
def test_the_cosine_schedule_follows_its_formula(warmup: float) -> None:
    found = rates(lambda optimiser: loop.warmup_cosine(optimiser, 47, warmup), 47)
    for step, rate in enumerate(found):
        share = step / 47
        after = 0.5 * (1 + np.cos(np.pi * (share - warmup) / (1 - warmup)))
        expected = 0.05 * ((share + 1e-3) / warmup if share < warmup else after)
        assert rate == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("warmup", [0.06, 0.5])
def test_the_linear_schedule_rises_to_the_peak_and_falls_to_zero(warmup: float) -> None:
    found = rates(lambda optimiser: loop.warmup_linear(optimiser, 50, warmup), 51)
    expected = 0.05 * np.interp(np.arange(51) / 50, [0, warmup, 1], [0, 1, 0])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_every_record_holds_the_mean_loss_over_the_rows_and_the_rate_of_the_last_step() -> None:
    run = Run(SCHEDULES["cosine"])
    records = run.train(Loop(epochs=2))
    for epoch, record in enumerate(records):
        of_epoch = run.losses[3 * epoch : 3 * epoch + 3]
        assert record["loss"] == pytest.approx(sum(n * value for n, value in of_epoch) / ROWS)
        assert record["rate"] == pytest.approx(rates(SCHEDULES["cosine"], 15)[3 * epoch + 2], abs=1e-15)
        assert record["epoch"] == epoch


def test_training_stops_after_the_patience_and_returns_to_the_best_epoch() -> None:
    run = Run(scores=[0.1, 0.5, 0.3, 0.5, 0.4, 0.9])
    records = run.train(Loop(epochs=6, patience=3))
    assert [record["score"] for record in records] == [0.1, 0.5, 0.3, 0.5, 0.4]
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, run.values[1][name])


def test_a_score_must_exceed_the_best_one_by_the_gain() -> None:
    records = Run(scores=[0.1, 0.15, 0.25, 0.3]).train(Loop(epochs=4, patience=2, gain=0.1))
    assert len(records) == 4  # 0.25 is the second best score that counts


def test_a_plateau_of_the_score_lowers_the_rate() -> None:
    make: Make = lambda optimiser: ReduceLROnPlateau(optimiser, "max", 0.5, 1, threshold=0.0)  # noqa: E731
    records = Run(make, scores=[0.5, 0.4, 0.4, 0.4, 0.4, 0.4]).train(Loop(epochs=6))
    assert [record["rate"] for record in records] == [0.05, 0.05, 0.05, 0.025, 0.025, 0.0125]


def test_the_gradient_is_clipped() -> None:
    run = Run()
    run.y = run.y * 1e4
    norms: list[float] = []
    run.optimiser.register_step_pre_hook(
        lambda *_: norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in run.network.parameters())))  # type: ignore[operator]
    )
    run.train(Loop(epochs=1, clip=0.5))
    assert norms == pytest.approx([0.5] * 3, rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_was_stopped_anywhere_ends_with_the_same_bits(schedule: str, tmp_path: Path) -> None:
    limits = Loop(epochs=5, seed=1, save_every=2)
    whole = Run(SCHEDULES[schedule])
    records = whole.train(limits)

    def stop(_message: str, done: int, _total: int) -> None:
        if done >= at:
            raise Stop

    for at in (2, 3, 8, 14):  # within an epoch, at its end, later, and before the last step
        path = tmp_path / f"{at}.state"
        with pytest.raises(Stop):
            Run(SCHEDULES[schedule]).train(limits, path, progress=stop)
        resumed = Run(SCHEDULES[schedule])
        assert resumed.train(limits, path) == records
        assert len(resumed.losses) < 15
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, resumed.network.state_dict()[name])


def test_a_finished_run_is_read_and_a_run_with_other_settings_starts_anew(tmp_path: Path) -> None:
    path, limits = tmp_path / "run.state", Loop(epochs=2, seed=1)
    records = Run().train(limits, path)
    again = Run()
    assert again.train(limits, path) == records
    assert again.losses == []
    other = Run()
    with one_thread():
        loop.train(
            dict(other.network.named_parameters()), other.optimiser, limits, other.batches, other.loss,
            checkpoint=Checkpoint(path, {"run": "b"}),
        )  # fmt: skip
    assert len(other.losses) == 6


@pytest.mark.parametrize(
    "lost",
    [
        "tensor value/0.weight",
        "tensor exp_avg/2.bias",
        "meta counters",
        "meta rates",
        "meta schedule",
        "counter waited",
    ],
)
def test_a_run_starts_anew_where_another_version_wrote_its_state(lost: str, tmp_path: Path) -> None:
    path, limits = tmp_path / "run.state", Loop(epochs=2, seed=1)
    records = Run().train(limits, path)
    tensors, meta = load_head(path)
    kind, name = lost.split()
    del {"tensor": tensors, "meta": meta, "counter": meta["counters"]}[kind][name]
    save_head(path, tensors, meta)
    anew = Run()
    assert anew.train(limits, path) == records
    assert len(anew.losses) == 6


def test_a_run_starts_anew_where_its_state_is_damaged_or_has_other_shapes(tmp_path: Path) -> None:
    path, limits = tmp_path / "run.state", Loop(epochs=2, seed=1)
    records = Run().train(limits, path)
    tensors, meta = load_head(path)
    save_head(path, tensors | {"value/0.weight": np.zeros((5, SIZE), np.float32)}, meta)
    for damaged in (path.read_bytes(), b"no state"):
        path.write_bytes(damaged)
        anew = Run()
        assert anew.train(limits, path) == records
        assert len(anew.losses) == 6


def test_progress_reports_the_loss_the_score_and_the_steps() -> None:
    messages: list[tuple[str, int, int]] = []
    Run(scores=[0.25, 0.5]).train(Loop(epochs=2), progress=lambda *what: messages.append(what))
    assert [(done, total) for _, done, total in messages] == [(3, 6), (6, 6)]
    assert messages[0][0].endswith("score 0.250")
