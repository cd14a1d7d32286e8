"""Sums of floats that are the same bits on every Python.

Belongs here: adding up. The built-in `sum` adds floats with compensation since Python 3.12, and plainly before, so a
value that reaches a table must not come from it. (NumPy and `math.fsum` are the same everywhere.)
"""

from __future__ import annotations

from collections.abc import Iterable


def plain_sum(values: Iterable[float]) -> float:
    """The sum of floats, added from the first to the last."""
    total = 0.0
    for value in values:
        total += value
    return total
