"""The state of a training run on disk, so that a stopped run goes on to the same result.

Belongs here: parameters, the states of optimiser and schedule, and counters in one file, without pickle. Does not
belong here: the trained head (`zoo.head_file`) or the loop that is resumed (`loop`).

Random numbers are no part of the state: a loop that can be resumed seeds each step from its number (`seed_step`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cer_pipeline.zoo.head_file import load_head, save_head

Parameters = Mapping[str, torch.nn.Parameter]
Schedule = LRScheduler | ReduceLROnPlateau


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one step, so that the step is the same whether or not the run was resumed before it."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a run is kept.

    Args:
        path: file of the state; an earlier one is replaced atomically.
        settings: what tells the run from others, as plain JSON; a state of other settings is not loaded.
    """

    path: Path
    settings: Mapping[str, Any]

    def save(
        self,
        parameters: Parameters,
        optimiser: torch.optim.Optimizer,
        schedule: Schedule | None,
        best: Mapping[str, torch.Tensor],
        counters: Mapping[str, Any],
    ) -> None:
        """Write the state.

        Args:
            parameters: the trained parameters by name; all must be the optimiser's.
            optimiser: Adam or AdamW; its moments of each parameter are written.
            schedule: of the learning rate.
            best: parameters of the best epoch by name.
            counters: plain JSON.
        """
        tensors = {f"best/{name}": value.numpy() for name, value in best.items()}
        for name, parameter in parameters.items():
            tensors[f"value/{name}"] = parameter.detach().numpy()
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = torch.as_tensor(value).detach().numpy()
        stepped = schedule.state_dict() if schedule else {}
        save_head(
            self.path,
            tensors,
            {
                "settings": dict(self.settings),
                "rates": [group["lr"] for group in optimiser.param_groups],
                # JSON has no infinity, which a schedule holds until the first score, and in constants.
                "schedule": {k: v for k, v in stepped.items() if not isinstance(v, float) or math.isfinite(v)},
                "counters": dict(counters),
            },
        )

    def load(
        self,
        parameters: Parameters,
        optimiser: torch.optim.Optimizer,
        schedule: Schedule | None,
        best: dict[str, torch.Tensor],
    ) -> dict[str, Any] | None:
        """Bring the arguments to the saved state.

        Args:
            parameters: as in `save`.
            optimiser: as in `save`, freshly made.
            schedule: as in `save`, freshly made.
            best: filled with the parameters of the best epoch.

        Returns:
            The saved counters; None, with nothing changed, where there is no state or it belongs to other settings.
        """
        if not self.path.is_file():
            return None
        tensors, meta = load_head(self.path)
        if meta.get("settings") != dict(self.settings):
            return None
        moments: dict[str, dict[str, np.ndarray]] = {}
        for name, value in tensors.items():
            kind, _, of = name.partition("/")
            moments.setdefault(of, {})[kind] = value
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(torch.from_numpy(moments[name].pop("value")))
                if "best" in moments[name]:
                    best[name] = torch.from_numpy(moments[name].pop("best").copy())
                if moments[name]:
                    optimiser.state[parameter] = {k: torch.from_numpy(v.copy()) for k, v in moments[name].items()}
        for group, rate in zip(optimiser.param_groups, meta["rates"], strict=True):
            group["lr"] = rate
        if schedule:
            schedule.load_state_dict(schedule.state_dict() | meta["schedule"])
        return meta["counters"]
