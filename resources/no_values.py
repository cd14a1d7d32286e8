"""The IO manager of the project, which stores no value.

Belongs here: the refusal. Dagster gives every job the resource `io_manager`, with a folder for pickled values as its
setting; this one has no setting, so that the launchpad offers none. Assets write and read tables through `tables`.
"""

from __future__ import annotations

from typing import Any, NoReturn

import dagster as dg


class NoValues(dg.ConfigurableIOManager):
    """An IO manager that refuses to store or load a value."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> NoReturn:
        """Refuse the value of a step."""
        del obj
        raise dg.DagsterInvariantViolationError(f"{context.name}: a step returns no value, it writes a table")

    def load_input(self, context: dg.InputContext) -> NoReturn:
        """Refuse to load the value of another step."""
        raise dg.DagsterInvariantViolationError(f"{context.name}: a step reads tables, not values")
