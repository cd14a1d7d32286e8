"""The `cer` command.

Belongs here: the list of commands and the one place where errors become lines and exit codes.
Exit codes: 0 done, 1 done with failed units, 2 bad usage or input, 130 stopped by hand.

Every command imports what it needs when it runs, so that `cer --help` answers at once.
"""

from __future__ import annotations

import os
import sys

import typer

from cer_pipeline.cli import corpus, demo, doctor, models, report, run, status, ui
from cer_pipeline.errors import CerError

EXIT_INPUT = 2
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
app.command("report")(report.report)
app.add_typer(models.app, name="models")
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
    except KeyboardInterrupt as stop:
        _fail(stop, "stopped; run the same command again to go on where it stopped", EXIT_STOPPED)


def _fail(error: BaseException, line: str, code: int) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    print(line, file=sys.stderr)
    sys.exit(code)
