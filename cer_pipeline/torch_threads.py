"""Computing with torch so that no bit of a result depends on the number of threads.

Belongs here: one thread for a block of code, and a map over items on several threads. Does not belong here: any
network, or how many threads there are (the profile's [execution] section).

A sum that is split over threads is added in another order, so each item is computed on one thread; several items run
side by side. The number of threads is a setting of the whole process: nothing else may change it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's torch operations on one thread; restore the number of threads afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def deterministic_map(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Apply a function that calls torch to every item; the results, in order, do not depend on the threads.

    Args:
        function: takes one item; must be safe to call from several threads.
        items: any number.
        threads: items at a time.
    """
    import torch

    with one_thread():
        if threads < 2 or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
