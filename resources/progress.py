"""Progress callbacks of materialisations and trainings.

Belongs here: the protocol, and the default that writes to the run's log. Does not belong here: the progress bars of
the terminal (`cli.progress`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from cer_pipeline.store.materialise import Report

LOG_EVERY_S = 15.0  # every line is an event, and the event log keeps all of them


class ProgressListener(Protocol):
    """Callbacks of a run, called by its assets."""

    def started(self, table: str, key: str, log: Callable[[str], None]) -> None:
        """The materialisation of a shard of a table starts; `log` writes to the run's log."""
        ...

    def advanced(self, table: str, key: str, done: int, total: int) -> None:
        """`done` of `total` units are computed."""
        ...

    def finished(self, report: Report) -> None:
        """The table is committed."""
        ...

    def training(self, branch: str, log: Callable[[str], None]) -> None:
        """The training of a head starts; `log` writes to the run's log."""
        ...

    def trained(self, what: str, done: int, total: int) -> None:
        """The training is at `done` of `total` steps of `what`."""
        ...


class LogProgress:
    """Writes to the run's log, at most every `LOG_EVERY_S` seconds."""

    def __init__(self) -> None:
        self._log: Callable[[str], None] = lambda _: None
        self._last = 0.0

    def started(self, table: str, key: str, log: Callable[[str], None]) -> None:
        """See `ProgressListener.started`."""
        del table, key
        self._log, self._last = log, time.monotonic()

    def advanced(self, table: str, key: str, done: int, total: int) -> None:
        """See `ProgressListener.advanced`."""
        if time.monotonic() - self._last >= LOG_EVERY_S:
            self._last = time.monotonic()
            self._log(f"{table} {key}: {done} of {total} units")

    def finished(self, report: Report) -> None:
        """See `ProgressListener.finished`."""
        outcome = "unchanged" if report.unchanged else f"{report.computed} computed, {report.cached} cached"
        self._log(f"{report.table} {report.corpus}-{report.shard}: {outcome} in {report.seconds:.1f} s")

    def training(self, branch: str, log: Callable[[str], None]) -> None:
        """See `ProgressListener.training`."""
        self._log, self._last = log, time.monotonic()
        self._log(f"training {branch}")

    def trained(self, what: str, done: int, total: int) -> None:
        """See `ProgressListener.trained`."""
        if time.monotonic() - self._last >= LOG_EVERY_S:
            self._last = time.monotonic()
            self._log(f"{what}: {done} of {total}")
