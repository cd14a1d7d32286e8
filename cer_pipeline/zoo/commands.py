"""The commands that bring models to this machine.

Belongs here: which command helps for which model. Does not belong here: running them (`cli`), or the state of a model
(`zoo.weights`).
"""

from __future__ import annotations

from collections.abc import Iterable

from cer_pipeline.zoo.entries import pin_command
from cer_pipeline.zoo.weights import HEAD_PREFIX, Zoo


def absent_models(zoo: Zoo, models: Iterable[str]) -> list[str]:
    """Return the models whose files are not on this machine, each once, in their order."""
    return [model for model in dict.fromkeys(models) if zoo.digest(model) is None]


def commands_for(zoo: Zoo, models: Iterable[str]) -> list[str]:
    """Return the commands that bring the models that are not on this machine.

    Args:
        zoo: the zoo.
        models: ids; those whose files are on this machine need no command.

    Returns:
        One `cer models pull` for all files with a public digest, then `cer models pin` for each model without one, then
        `cer train` for each head that has not been trained.
    """
    absent = absent_models(zoo, models)
    known = [model for model in absent if model in zoo.entries]
    pulled = [model for model in known if zoo.entry(model).pinned]
    pinned = [pin_command(model) for model in known if not zoo.entry(model).pinned]
    trained = [f"cer train {model.removeprefix(HEAD_PREFIX)}" for model in absent if model not in zoo.entries]
    return [*([f"cer models pull {' '.join(pulled)}"] if pulled else []), *pinned, *trained]
