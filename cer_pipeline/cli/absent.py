"""One line about the models that are not on this machine, for the commands that show tables.

Belongs here: that line. Does not belong here: which command helps for which model (`zoo.commands`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cer_pipeline.cli.output import console, safe
from cer_pipeline.status import Status

if TYPE_CHECKING:
    from cer_pipeline.stage import StageSpec
    from cer_pipeline.zoo import Zoo


def absent_line(specs: Sequence[StageSpec], zoo: Zoo, by_status: Iterable[Mapping[str, int]]) -> str:
    """Return a line with the number of tables that lack a model and the commands that bring the models; "" for none.

    Args:
        specs: the stages.
        zoo: the weights.
        by_status: for every shown table, its rows by status.
    """
    from cer_pipeline.zoo import commands_for

    tables = [Status.MODEL_UNAVAILABLE in counts for counts in by_status]
    commands = commands_for(zoo, [model for spec in specs for model in spec.models])
    if not any(tables) or not commands:
        return ""
    return f"model_unavailable: rows of {sum(tables)} of {len(tables)} tables; next: {'; '.join(commands)}"


def print_absent(specs: Sequence[StageSpec], zoo: Zoo, by_status: Iterable[Mapping[str, int]]) -> None:
    """Print `absent_line` where there is one."""
    if line := absent_line(specs, zoo, by_status):
        console().print(safe(line), soft_wrap=True)
