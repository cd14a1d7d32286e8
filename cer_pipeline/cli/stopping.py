"""Ctrl-C: it stops every command, and every command says the same line.

Belongs here: making sure that it gets through, and that line. Does not belong here: what a stopped Dagster run looks
like (`cli.launch`).

Python turns Ctrl-C into an exception wherever the program is just then. In a destructor, or in a callback of a library,
that exception is printed and lost, and the program goes on as if nothing had happened. So the signal is sent again
until the command has ended.
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

AGAIN_S = 2.0  # long enough for a step to close its files, short enough for somebody who waits
INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""Errors that mean Ctrl-C: Dagster turns it into one of its own."""


class Stopped(Exception):
    """Somebody pressed Ctrl-C. Unlike KeyboardInterrupt, typer lets it through to `main`."""


def stopped_line() -> str:
    """What a person reads after Ctrl-C."""
    command = shlex.join(["cer", *sys.argv[1:]])
    return f"stopped; nothing is lost, and this goes on where it stopped: {command}"


@contextlib.contextmanager
def insisting(again_s: float = AGAIN_S) -> Iterator[threading.Event]:
    """Send Ctrl-C again, every so often, until the block ends; outside the main thread this does nothing.

    Args:
        again_s: from one signal to the next, s.

    Yields:
        An event that is set once there has been a Ctrl-C, also one that was lost.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    seen, tell = os.pipe()
    os.set_blocking(tell, False)
    done = threading.Event()
    before, hook = signal.set_wakeup_fd(tell, warn_on_full_buffer=False), sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type.__name__ in INTERRUPTS else hook(lost)
    last = logging.lastResort  # SQLAlchemy logs what it loses in this way
    if last is not None:
        last.addFilter(_is_worth_a_line)
    watcher = threading.Thread(target=_watch, args=(seen, pressed, done, again_s), daemon=True)
    watcher.start()
    try:
        yield pressed
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(tell)  # ends the watcher
        watcher.join()
        os.close(seen)
        sys.unraisablehook = hook
        if last is not None:
            last.removeFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a message is no traceback of Ctrl-C."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ not in INTERRUPTS


def _watch(seen: int, pressed: threading.Event, done: threading.Event, again_s: float) -> None:
    while numbers := os.read(seen, 64):
        if signal.SIGINT in numbers:
            pressed.set()
            while not done.wait(again_s):
                os.kill(os.getpid(), signal.SIGINT)
            return


def is_interrupt(error: Any) -> bool:
    """Whether an error of a Dagster event, or what caused it, is Ctrl-C."""
    while error is not None:
        if error.cls_name in INTERRUPTS:
            return True
        error = error.cause
    return False
