"""How the terminal is written to: tables and bars where a person looks, plain lines and JSON elsewhere.

Belongs here: escaping and printing. Does not belong here: what is said (the commands).
"""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cer_pipeline.status import EXPECTED, Status

if TYPE_CHECKING:
    from rich.console import Console

REPLACE = "cer-plain"  # the name of the way in which standard output replaces signs
PLAIN = {"■": "#", "…": ".", "–": "-", "—": "-", "─": "-", "━": "-", "’": "'", "“": '"', "”": '"'}
"""What stands for a sign that an encoding lacks; a question mark for any other."""

PLAIN_WIDTH = 160  # columns where the output is no terminal


def console(stderr: bool = False) -> Console:
    """A console; where the stream is no terminal, wide enough that no table is cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False)


def safe(text: str) -> str:
    """A name or text from outside as one printable line: control characters, newlines and markup made visible.

    File names, transcripts and captions are not trusted: none may move the cursor or change colours.
    """
    from rich.markup import escape

    return escape(printable(text))


def printable(text: str) -> str:
    """A text as one line in which control characters, newlines and bytes of no encoding are visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def plain_output() -> None:
    """Have standard output replace what its encoding cannot show, one sign by one, so that columns stay."""
    codecs.register_error(REPLACE, _replaced)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=REPLACE)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table; cells must have gone through `safe` where they come from outside."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def status_counts(by_status: Mapping[str, int]) -> str:
    """Rows by status in one cell: "no_face 4, ok 16 (not_applicable 20)".

    What calls for nothing stands in brackets, apart from what may.
    """
    quiet = [name for name in by_status if name in EXPECTED and name != Status.OK]
    listed = [f"{name} {n}" for name, n in by_status.items() if name not in quiet]
    aside = [f"({', '.join(f'{name} {by_status[name]}' for name in quiet)})"] if quiet else []
    return " ".join([", ".join(listed), *aside]).strip()


def say(text: str) -> None:
    """A line for people, on standard error, so that standard output stays clean for machines."""
    console(stderr=True).print(text)
