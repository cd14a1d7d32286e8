"""Output of the commands: tables on a terminal, plain lines and JSON elsewhere.

Belongs here: escaping and printing. Does not belong here: the content (the commands).
"""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cer_pipeline.chart_style import printable
from cer_pipeline.status import EXPECTED, Status

if TYPE_CHECKING:
    from rich.console import Console

REPLACE = "cer-plain"  # name of the error handler of standard output
PLAIN = {"■": "#", "…": ".", "–": "-", "—": "-", "─": "-", "━": "-", "’": "'", "“": '"', "”": '"'}
"""Replacements of characters that an encoding lacks; any other becomes a question mark."""

PLAIN_WIDTH = 160  # columns, if the output is not a terminal


def console(stderr: bool = False) -> Console:
    """Return a console; if the stream is not a terminal, it is wide enough for every table."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False)


def safe(text: str) -> str:
    """Return untrusted text as one printable line without markup of rich.

    File names, transcripts and captions must not move the cursor or change colours.
    """
    from rich.markup import escape

    return escape(printable(text))


def plain_output() -> None:
    """Let standard output replace characters that its encoding lacks, one by one, so that columns stay aligned."""
    codecs.register_error(REPLACE, _replaced)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=REPLACE)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table; untrusted cells must be `safe`."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def status_counts(by_status: Mapping[str, int]) -> str:
    """Return rows by status as one cell, with statuses that need no action in brackets.

    For example: "no_face 4, ok 16 (not_applicable 20)".
    """
    quiet = [name for name in by_status if name in EXPECTED and name != Status.OK]
    listed = [f"{name} {n}" for name, n in by_status.items() if name not in quiet]
    in_brackets = [f"({', '.join(f'{name} {by_status[name]}' for name in quiet)})"] if quiet else []
    return " ".join([", ".join(listed), *in_brackets]).strip()


def say(text: str) -> None:
    """Print a line on standard error; standard output is for results."""
    console(stderr=True).print(text)
