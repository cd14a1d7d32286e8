"""Sums of floats with the same bits on every version of Python.

Belongs here: addition of Python floats. Since Python 3.12 the built-in `sum` compensates rounding errors, so a value of
a table must not be computed with it. (NumPy and `math.fsum` do not depend on the version.)
"""

from __future__ import annotations

from collections.abc import Iterable


def plain_sum(values: Iterable[float]) -> float:
    """Sum of floats, added from the first to the last without compensation."""
    total = 0.0
    for value in values:
        total += value
    return total
