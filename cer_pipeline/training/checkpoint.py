"""The state of a training run on disk, so that a stopped run goes on to the same result.

Belongs here: parameters, the states of optimiser and schedule, and counters in one file, without pickle. Does not
belong here: the trained head (`zoo.head_file`) or the loop that is resumed (`loop`).

Random numbers are no part of the state: a loop that can be resumed seeds each step from its number (`seed_step`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cer_pipeline.errors import CerError
from cer_pipeline.zoo.head_file import load_head, save_head

Parameters = Mapping[str, torch.nn.Parameter]
Schedule = LRScheduler | ReduceLROnPlateau

MOMENTS: Final = frozenset({"step", "exp_avg", "exp_avg_sq"})
"""What Adam and AdamW hold for each parameter after its first step."""


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one step, so that the step is the same whether or not the run was resumed before it."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)


@dataclass(frozen=True)
class Checkpoint:
    """The file of the state of a run.

    Args:
        path: the file; an earlier one is replaced atomically.
        settings: what identifies the run, as plain JSON; a state of other settings is not loaded.
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
        counters: Collection[str],
    ) -> dict[str, Any] | None:
        """Bring the arguments to the saved state.

        Args:
            parameters: as in `save`.
            optimiser: as in `save`, freshly made.
            schedule: as in `save`, freshly made.
            best: filled with the parameters of the best epoch.
            counters: names of the counters that the run needs.

        Returns:
            The saved counters; None, with nothing changed, where there is no state, or it is damaged, belongs to other
            settings, or lacks something because another version wrote it.
        """
        try:
            tensors, meta = load_head(self.path)
        except CerError:
            return None
        fits = meta.get("settings") == dict(self.settings) and meta.get("counters", {}).keys() == set(counters)
        if not fits or not _is_complete(tensors, meta, parameters, optimiser):
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


def _is_complete(
    tensors: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    parameters: Parameters,
    optimiser: torch.optim.Optimizer,
) -> bool:
    """Return whether a state holds everything that `Checkpoint.load` restores, in the shapes of the parameters."""
    if len(meta.get("rates", ())) != len(optimiser.param_groups) or "schedule" not in meta:
        return False
    kinds: dict[str, set[str]] = {name: set() for name in parameters}
    for tensor in tensors:
        kind, _, name = tensor.partition("/")
        kinds.setdefault(name, set()).add(kind)
    return kinds.keys() == parameters.keys() and all(
        kinds[name] - {"best"} in ({"value"}, {"value"} | MOMENTS)
        and tensors[f"value/{name}"].shape == tuple(parameter.shape)
        for name, parameter in parameters.items()
    )
