"""The callback that a training reports its progress to.

Belongs here: its type and the one that does nothing. Does not belong here: showing progress (`cli.progress`,
`resources.progress`).
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called while training with a message, the number of steps done, and the number of all steps."""


def quiet(message: str, done: int, total: int) -> None:
    """Do nothing: the `Progress` of a training that reports to nobody."""
