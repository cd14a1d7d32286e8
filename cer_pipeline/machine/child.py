"""Run attempts in a child process and return the error of each, also if one ends the process.

Belongs here: the protocol between parent and child. Does not belong here: the attempts (`installation`, `trials`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final

TIME_LIMIT_S: Final = 600.0  # a first import from a slow disk compiles thousands of files


def run_attempts(module: str, names: Sequence[str], time_limit_s: float = TIME_LIMIT_S) -> dict[str, str]:
    """Run the attempts of a module in a child process, one after the other.

    If the child ends during an attempt, that attempt has failed, and a new child continues with the next one.

    Args:
        module: name of the module, which is started with the names as arguments and calls `serve`.
        names: names of the attempts.
        time_limit_s: time limit for each child, s.

    Returns:
        For each name the error in one line; empty for a successful attempt.
    """
    errors: dict[str, str] = {}
    remaining = list(names)
    while remaining:
        completed, ending = _run_child(module, remaining, time_limit_s)
        errors |= completed
        remaining = [name for name in remaining if name not in completed]
        if remaining:
            errors[remaining.pop(0)] = f"it ends the process ({ending})"
    return errors


def _run_child(module: str, names: Sequence[str], time_limit_s: float) -> tuple[dict[str, str], str]:
    """Return the errors of the attempts that a child completed, and how the child ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}  # same modules as here
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *names],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=time_limit_s,
            env=environment,
        )
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = error.stdout or b"", None
    errors = dict(json.loads(line) for line in output.decode("utf-8", "replace").splitlines())
    if code is None:
        return errors, f"no answer within {time_limit_s:.0f} s"
    return errors, signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(names: Sequence[str], attempt: Callable[[str], None]) -> None:
    """Run the attempts in the child, write a line after each, and end the process.

    Args:
        names: names of the attempts.
        attempt: function that raises an error if an attempt fails.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps the output of libraries out of the answers
    for name in names:
        print(json.dumps([name, _error(attempt, name)]), file=answers, flush=True)
    os._exit(0)  # native libraries may crash during the normal end of the interpreter


def _error(attempt: Callable[[str], None], name: str) -> str:
    try:
        attempt(name)
    except BaseException as error:  # noqa: BLE001 - every exception, also SystemExit, is a failure
        return " ".join("".join(traceback.format_exception_only(error)).split())
    return ""
