"""A training run's state on disk, so that a stopped run goes on where it was, to the same result.

Belongs here: parameters, optimiser state and counters in one file, without pickle. Does not belong here: the trained
head (`zoo.head_file`) or the loop that is resumed.

Random numbers are no part of the state: a loop that wants to resume seeds each step from its number (`seed_step`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cer_pipeline.zoo.head_file import load_head, save_head


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one step, so that the step is the same whether or not the run was resumed before it."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)


def save_state(
    path: Path, parameters: Mapping[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer, meta: Mapping[str, Any]
) -> None:
    """Write parameters, the Adam moments of each, and `meta` (plain JSON), replacing an earlier state atomically.

    Args:
        path: file to write.
        parameters: the trained parameters by name; all must be the optimiser's.
        optimiser: Adam or AdamW.
        meta: counters and settings; `load_state` refuses a state whose settings differ.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, parameter in parameters.items():
        tensors[f"value/{name}"] = parameter.detach().numpy()
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value).detach().numpy()
    save_head(path, tensors, meta)


def load_state(
    path: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    settings: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Bring parameters and optimiser to a saved state.

    Args:
        path: file that `save_state` wrote; may be missing.
        parameters: as in `save_state`.
        optimiser: as in `save_state`, freshly made.
        settings: the run's settings; they must equal `meta["settings"]`.

    Returns:
        The saved meta; None, with nothing changed, where there is no state or it belongs to other settings.
    """
    if not path.is_file():
        return None
    tensors, meta = load_head(path)
    if meta.get("settings") != dict(settings):
        return None
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(tensors[f"value/{name}"]))
            kept = {k.split("/", 1)[0]: v for k, v in tensors.items() if k.split("/", 1)[1] == name}
            kept.pop("value")
            if kept:
                optimiser.state[parameter] = {key: torch.from_numpy(value.copy()) for key, value in kept.items()}
    return meta
