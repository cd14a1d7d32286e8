"""Ctrl-C stops every command with the same message.

Belongs here: the delivery of the interrupt, and the message. Does not belong here: runs of Dagster (`launch`).

Python raises KeyboardInterrupt at the current instruction. In a destructor or in a callback of a library, Python prints
and drops the exception, and the program continues. The signal is therefore sent again until the command has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

REPEAT_S = 2.0  # a step closes its files in less, and a user waits no longer
INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""Names of the errors that Ctrl-C raises; Dagster has one of its own."""


class Interrupted(Exception):
    """Ctrl-C was pressed. typer handles KeyboardInterrupt itself, but passes this exception to `main`."""


def interrupted_message() -> str:
    """Return the message after Ctrl-C."""
    command = shlex.join(["cer", *sys.argv[1:]])
    return f"stopped; nothing is lost; to continue: {command}"


@contextlib.contextmanager
def repeat_interrupt(interval_s: float = REPEAT_S) -> Iterator[threading.Event]:
    """Send SIGINT again at an interval until the block ends. Outside the main thread this does nothing.

    Args:
        interval_s: time between two signals, s.

    Yields:
        An event that is set by the first SIGINT, even if its exception was dropped.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    done = threading.Event()
    previous_fd, hook = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False), sys.unraisablehook
    sys.unraisablehook = lambda error: None if error.exc_type.__name__ in INTERRUPTS else hook(error)
    last = logging.lastResort  # SQLAlchemy logs the exceptions that it drops
    if last is not None:
        last.addFilter(_is_no_interrupt)
    watcher = threading.Thread(target=_watch, args=(read_end, interrupted, done, interval_s), daemon=True)
    watcher.start()
    try:
        yield interrupted
    finally:
        done.set()
        signal.set_wakeup_fd(previous_fd)
        os.close(write_end)  # ends the watcher
        watcher.join()
        os.close(read_end)
        sys.unraisablehook = hook
        if last is not None:
            last.removeFilter(_is_no_interrupt)


def _is_no_interrupt(record: logging.LogRecord) -> bool:
    """Return whether a log record is not the traceback of an interrupt."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ not in INTERRUPTS


def _watch(read_end: int, interrupted: threading.Event, done: threading.Event, interval_s: float) -> None:
    while numbers := os.read(read_end, 64):
        if signal.SIGINT in numbers:
            interrupted.set()
            while not done.wait(interval_s):
                os.kill(os.getpid(), signal.SIGINT)
            return


def is_interrupt(error: Any) -> bool:
    """Return whether an error of a Dagster event, or one of its causes, is an interrupt."""
    while error is not None:
        if error.cls_name in INTERRUPTS:
            return True
        error = error.cause
    return False
