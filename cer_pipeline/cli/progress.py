"""Progress of a command on standard error: bars on a terminal, plain lines elsewhere.

Belongs here: drawing progress. Does not belong here: what is computed, or the log of a run (`resources.progress`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from cer_pipeline.cli.output import console, safe

if TYPE_CHECKING:
    from cer_pipeline.store.materialise import Report

LINE_EVERY_S = 10.0  # between two lines, if there is no bar


class TerminalProgress:
    """A `resources.progress.ProgressListener` for the terminal; keeps every report."""

    def __init__(self, quiet: bool = False) -> None:
        self.reports: list[Report] = []
        self._quiet = quiet
        self._bars = None
        self._task = None
        self._tables = 0
        self._made = 0
        self._last = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.fields[step]:>7} {task.description:<32}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("units"),
                TimeElapsedColumn(),
                console=console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def plan(self, tables: int) -> None:
        """Add a number of tables to the total."""
        self._tables += tables

    def started(self, table: str, key: str, log: Callable[[str], None]) -> None:
        """See `ProgressListener.started`."""
        del key, log
        self._last = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(table, total=None, step=f"{self._made + 1}/{self._tables}")

    def advanced(self, table: str, key: str, done: int, total: int) -> None:
        """See `ProgressListener.advanced`."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)
        elif not self._quiet and time.monotonic() - self._last >= LINE_EVERY_S and done < total:
            self._last = time.monotonic()
            console(stderr=True).print(f"    {table} {key}: {done} of {total} units")

    def finished(self, report: Report) -> None:
        """See `ProgressListener.finished`."""
        self.reports.append(report)
        self._made += 1
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        if not self._quiet:
            done = "unchanged" if report.unchanged else f"{report.computed} computed, {report.cached} cached"
            step, shard = f"{self._made}/{self._tables}", f"{report.corpus}-{report.shard}"
            console(stderr=True).print(f"{step} {report.table} {shard}: {done}, {report.seconds:.1f} s")

    def training(self, branch: str, log: Callable[[str], None]) -> None:
        """See `ProgressListener.training`."""
        del log
        self._last = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(branch, total=None, step="train")

    def trained(self, what: str, done: int, total: int) -> None:
        """See `ProgressListener.trained`."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=what, completed=done, total=total)
        elif not self._quiet and time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            console(stderr=True).print(f"    {what}: {done} of {total}")


Step = Callable[[int, int, str], None]
"""Callback with the number of finished items, the total, and the name of the file."""


def reading(step: Callable[[str], Step]) -> tuple[Step, Step]:
    """Return the callbacks of `registry.register`: its arguments `progress` and `probing`."""
    return step("reading files"), step("comparing annotations with videos")


@contextlib.contextmanager
def steps(quiet: bool = False) -> Iterator[Callable[[str], Step]]:
    """Yield a function that returns the callback of a named step of a command.

    A bar is visible while a step is unfinished; without a terminal, lines follow every `LINE_EVERY_S`.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda what: _lines(what, quiet)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<40}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:

        def step(what: str) -> Step:
            task = bars.add_task(what, total=None, visible=False)

            def show(done: int, total: int, name: str) -> None:
                del name
                bars.update(task, completed=done, total=total, visible=done < total)

            return show

        yield step


def _lines(what: str, quiet: bool) -> Step:
    last = time.monotonic()

    def line(done: int, total: int, name: str) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last >= LINE_EVERY_S and done < total:
            last = time.monotonic()
            console(stderr=True).print(f"    {what}: {100 * done // total} %, {safe(name)}")

    return line
