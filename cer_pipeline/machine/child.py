"""Attempts in a child process: what each raised, also where one ends the whole process.

Belongs here: the protocol between the process that asks and the child. Does not belong here: what is attempted
(`installation`, `trials`).
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
    """Have a module attempt things in a child process, one after the other.

    Args:
        module: is started with the names as arguments, and calls `serve`.
        names: of the attempts.
        time_limit_s: for all of them together.

    Returns:
        For each name what went wrong, in one line; empty where nothing did. A child that crashes costs only what it was
        attempting: another one goes on.
    """
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        answers, ending = _child(module, waiting, time_limit_s)
        found |= answers
        waiting = [name for name in waiting if name not in answers]
        if waiting:
            found[waiting.pop(0)] = f"it ends the process ({ending})"
    return found


def _child(module: str, names: Sequence[str], time_limit_s: float) -> tuple[dict[str, str], str]:
    """What a child says until it ends, and how it ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}  # finds what this one finds
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
    answers: dict[str, str] = {}
    for line in output.decode("utf-8", "replace").splitlines():
        name, error_text = json.loads(line)
        answers[name] = error_text
    if code is None:
        return answers, f"no answer within {time_limit_s:.0f} s"
    return answers, signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(names: Sequence[str], attempt: Callable[[str], None]) -> None:
    """The child's side: attempt each thing, and write a line after each. Ends the process.

    Args:
        names: what to attempt.
        attempt: raises what is wrong.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not reach the answers
    for name in names:
        print(json.dumps([name, _error(attempt, name)]), file=out, flush=True)
    os._exit(0)  # all is said, and native libraries may crash when the interpreter ends


def _error(attempt: Callable[[str], None], name: str) -> str:
    try:
        attempt(name)
    except BaseException as error:  # noqa: BLE001 - whatever it raises, SystemExit too, is the finding
        return " ".join("".join(traceback.format_exception_only(error)).split())
    return ""
