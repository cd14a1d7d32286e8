"""The `cer` command.

Belongs here: the list of commands and the one place where errors become lines and exit codes.
Exit codes: 0 done, 1 done with failed units, 2 bad usage or input, 70 a defect of this
program, 130 stopped by hand.

Every command imports what it needs when it runs, so that `cer --help` answers at once.
"""

from __future__ import annotations

import os
import sys

import typer

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
from cer_pipeline.errors import CerError
from cer_pipeline.store.files import is_disk_full
from cer_pipeline.store.home import default_home

EXIT_INPUT = 2
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_STOPPED = 130
DEBUG_VARIABLE = "CER_DEBUG"

app = typer.Typer(
    name="cer",
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
        app()
    except CerError as error:
        _fail(error, f"error: {error.line()}", EXIT_INPUT)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for a person
        if is_disk_full(error, default_home().root):
            _fail(error, "error: the disk is full - free some space and run again; nothing is lost", EXIT_INPUT)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        _fail(error, f"internal error: {text} - set {DEBUG_VARIABLE}=1 to see where, and report it", EXIT_INTERNAL)
    except KeyboardInterrupt as stop:
        _fail(stop, "stopped; run the same command again to go on where it stopped", EXIT_STOPPED)


def _fail(error: BaseException, line: str, code: int) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    print(line, file=sys.stderr)
    sys.exit(code)
