"""Markdown text: paragraphs, lists and tables.

Belongs here: the syntax. Does not belong here: what a document says (`training.model_card`, `report`) or HTML.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

WIDTH: Final = 120  # columns, as in the source files


def paragraph(text: str, indent: str = "") -> str:
    """Wrap text at `WIDTH`; lines after the first begin with `indent`. A long word, such as a digest, is not broken.

    A run of blanks and line breaks counts as one blank.
    """
    return textwrap.fill(
        " ".join(text.split()), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def bullets(items: Iterable[str]) -> str:
    """Return a list with one wrapped item for each text."""
    return "\n".join(paragraph(f"- {item}", "  ") for item in items)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> str:
    """Return a table.

    Args:
        columns: headings.
        rows: cells, one for each column; a bar in a cell is escaped.
        right: headings of the columns that are aligned to the right.

    Raises:
        ValueError: a row has another number of cells than there are columns.
    """
    lines = [_row(columns), "|" + "|".join("---:" if name in right else "---" for name in columns) + "|"]
    for cells in rows:
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} cells for {len(columns)} columns")
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
