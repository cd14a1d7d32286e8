"""Putting texts through a network on several threads without changing a single bit of what comes out.

Belongs here: that one function. Does not belong here: any network, or how many threads there are (the profile's
[execution] section).

A sum that is split over threads is added in another order, so each item is computed on one thread of its own; several
items run side by side. torch keeps its number of threads for all of them, so nothing else may change it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """The results of a function that calls torch, in the order of the items.

    Args:
        function: of one item; must be safe to call from several threads.
        items: any number.
        threads: items at a time; the results do not depend on it.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads < 2 or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(before)
