"""The commands of `cer`.

Belongs here: the list of commands, and the conversion of errors to lines and exit codes.

Exit codes: 0 success, 1 some units failed, 2 wrong usage or input, 70 a defect of this program, 130 Ctrl-C. Every
command imports its libraries when it runs, so that `cer --help` is fast.
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
    bench,
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
from cer_pipeline.cli.stopping import Interrupted, interrupted_message, repeat_interrupt
from cer_pipeline.errors import CerError
from cer_pipeline.store.files import is_disk_full
from cer_pipeline.store.home import default_home

EXIT_INPUT = 2
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "CER_DEBUG"


class Commands(TyperGroup):
    """The group of all commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            Interrupted: Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted from stop


app = typer.Typer(
    name="cer",
    cls=Commands,
    help="Predict emotions in folders of video, with reasons for every missing value.",
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
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        use_utf8()
        plain_output()
        with repeat_interrupt():
            app()
    except (Interrupted, KeyboardInterrupt) as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends a slow shutdown
        _fail(stop, interrupted_message(), EXIT_INTERRUPTED)
    except CerError as error:
        _fail(error, f"error: {error.line()}", EXIT_INPUT)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - users get no traceback
        if is_disk_full(error, _root()):
            _fail(error, "error: the disk is full - free some space and run again; nothing is lost", EXIT_INPUT)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        _fail(error, f"internal error: {text} - set {DEBUG_VARIABLE}=1 to see where, and report it", EXIT_INTERNAL)


def use_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale has another encoding, such as ISO-8859-1.

    File names are bytes, nearly always UTF-8, and the libraries that open files (Arrow, SQLite, FFmpeg) read them as
    UTF-8 in every locale. The terminal keeps the encoding of the locale.
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
