"""The commands of `cer`.

Belongs here: the list of commands and the one place where errors become lines and exit codes.
Exit codes: 0 done, 1 done with failed units, 2 bad usage or input, 70 a defect of this
program, 130 stopped by hand.

Every command imports what it needs when it runs, so that `cer --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from cer_pipeline.chart_style import printable
from cer_pipeline.cli import (
    corpus,
    demo,
    doctor,
    evaluate,
    export,
    models,
    report,
    reproduce,
    run,
    settings,
    status,
    train,
    ui,
)
from cer_pipeline.cli.output import plain_output
from cer_pipeline.cli.stopping import Stopped, insisting, stopped_line
from cer_pipeline.errors import CerError
from cer_pipeline.store.files import is_disk_full
from cer_pipeline.store.home import default_home

EXIT_INPUT = 2
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_STOPPED = 130
DEBUG_VARIABLE = "CER_DEBUG"


class Commands(TyperGroup):
    """The group of all commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            Stopped: it was stopped by hand.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped from stop


app = typer.Typer(
    name="cer",
    cls=Commands,
    help="Folders of video in, explained emotion predictions out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.add_typer(corpus.app, name="corpus")
app.command("run")(run.run)
app.command("status")(status.status)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
app.command("export")(export.export)
app.add_typer(models.app, name="models")
app.add_typer(settings.app, name="settings")
app.command("ui")(ui.ui)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        use_utf8()
        plain_output()
        with insisting():
            app()
    except (Stopped, KeyboardInterrupt) as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends what is still closing
        _fail(stop, stopped_line(), EXIT_STOPPED)
    except CerError as error:
        _fail(error, f"error: {error.line()}", EXIT_INPUT)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for a person
        if is_disk_full(error, _root()):
            _fail(error, "error: the disk is full - free some space and run again; nothing is lost", EXIT_INPUT)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        _fail(error, f"internal error: {text} - set {DEBUG_VARIABLE}=1 to see where, and report it", EXIT_INTERNAL)


def use_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale has another encoding, such as ISO-8859-1.

    Names of files are bytes, and nearly all of them are UTF-8; the libraries that open files (Arrow, SQLite, FFmpeg)
    take them as UTF-8 whatever the locale. The encoding of the terminal stays that of the locale.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower().replace("-", "") == "utf8":
        return
    environment = {**os.environ, "PYTHONUTF8": "1"}
    if sys.stdout is not None:
        environment.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)  # noqa: S606


def _root() -> Path | None:
    try:
        return default_home().root
    except CerError:
        return None


def _fail(error: BaseException, line: str, code: int) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    print(printable(line), file=sys.stderr)
    sys.exit(code)
