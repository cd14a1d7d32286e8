"""Tables of text as people's programs write them, with errors that name the row and how the file was read.

Belongs here: encoding, delimiter, quotes, header and shape of a table of texts. Does not belong here: what its values
mean.

What is taken: UTF-8, and UTF-16 or UTF-32 with a byte order mark; cells separated by commas, semicolons or tabs, in
quotes or not; line ends of any system. The delimiter is the one that stands most often in the header outside quotes:
names of columns hold none of the three, values may hold all of them, so rows tell nothing. A first line `sep=;`, which
spreadsheets write, decides it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Delimiters and how messages call them; of equally frequent ones the first."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_SEPARATOR_LINE: Final = re.compile(r"sep=([,;\t])", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
_DECIMAL_COMMA: Final = re.compile(r"\s*[+-]?\d*,\d+\s*")


@dataclass(frozen=True)
class Sheet:
    """One file as rows of cells.

    Args:
        path: the file.
        header: names of the columns, without blanks at their ends.
        rows: number of each row in the file and its cells; rows without any text are left out.
        header_row: number of the header: 1, or 2 below a line `sep=`.
        delimiter: what separates cells.
        encoding: how the bytes were read.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    header_row: int
    delimiter: str
    encoding: str

    @property
    def seen(self) -> str:
        """How the file was read, for messages."""
        return f"read as {self.encoding}, separated by {DELIMITERS[self.delimiter]}"


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        CerError: the file does not exist, cannot be read, or is of another encoding; the line says where.
    """
    return _decoded(path)[0]


def _decoded(path: Path) -> tuple[str, str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CerError("the file does not exist", str(path), "check the path") from None
    except OSError as error:
        raise CerError(f"the file cannot be read ({error.strerror})", str(path)) from None
    codec, name = next(((c, n) for mark, c, n in _MARKS if data.startswith(mark)), ("utf-8", "UTF-8"))
    then = "save the file as UTF-8"
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        guess = ""
        if codec == "utf-8" and b"\0" not in data:
            guess = f" (byte {data[error.start]:#04x}: perhaps Latin-1 or Windows-1252)"
        raise CerError(f"not {name} at line {line}{guess}", str(path), then) from None
    if "\0" in text:  # CSV has no such character; UTF-16 without a mark is full of them
        line = text[: text.index("\0")].count("\n") + 1
        what = f"not UTF-8 at line {line} (a zero byte: perhaps UTF-16 without a byte order mark)"
        raise CerError(what, str(path), then)
    return text, name


def delimiter_of(header: str) -> str:
    """The delimiter of a header line: the one of `DELIMITERS` that stands most often outside quotes."""
    plain = _QUOTED.sub("", header)
    return max(DELIMITERS, key=plain.count)


def read_cells(path: Path) -> Sheet:
    """A file as rows of cells, whatever its columns.

    Raises:
        CerError: the file cannot be read, is of another encoding, or quotes are wrong.
    """
    text, encoding = _decoded(path)
    lines = text.splitlines()
    first = lines[0] if lines else ""
    told = _SEPARATOR_LINE.fullmatch(first.strip(" "))
    start = 1 if told else 0
    delimiter = told[1] if told else delimiter_of(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(number, tuple(cells)) for number, cells in enumerate(reader, 1)]
    except csv.Error as error:
        seen = f"{error}; separated by {DELIMITERS[delimiter]}"
        raise CerError(f"not a CSV file ({seen})", f"{path}, line {reader.line_num}") from None
    header = tuple(cell.strip() for cell in rows[start][1]) if len(rows) > start else ()
    kept = tuple((number, cells) for number, cells in rows[start + 1 :] if any(cell.strip() for cell in cells))
    return Sheet(path, header, kept, start + 1, delimiter, encoding)


def read_sheet(
    path: Path, needed: Sequence[str], allowed: Sequence[str] | None = None, numbers: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a header, each with where it stands: "row 2 of FILE", the header being row 1.

    A first column without a name holds row numbers (R and pandas write it) and is passed over; so is any other column
    without a name, as long as it is empty.

    Args:
        path: the file.
        needed: columns that must be there.
        allowed: columns that may be there beside them; any unless given.
        numbers: columns of numbers; a decimal comma in them becomes a point, where commas do not separate the cells.

    Raises:
        CerError: another encoding, no CSV, or a column that is missing, unknown or doubled.
    """
    yield from rows_of(read_cells(path), needed, allowed, numbers)


def rows_of(
    sheet: Sheet, needed: Sequence[str], allowed: Sequence[str] | None = None, numbers: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """As `read_sheet`, of a file that has been read."""
    path, header = sheet.path, sheet.header
    hint = f"the columns are {','.join([*needed, *(allowed or ())])}"
    if missing := [name for name in needed if name not in header]:
        raise CerError(f"the file has no column {', '.join(missing)} ({sheet.seen})", str(path), hint)
    named = [name for name in header if name]
    extra = [] if allowed is None else [name for name in named if name not in (*needed, *allowed)]
    if extra:
        raise CerError(f"unknown class or column {', '.join(map(repr, extra))} ({sheet.seen})", str(path), hint)
    if len(set(named)) != len(named):
        raise CerError("a column stands twice", str(path), hint)
    for number, cells in sheet.rows:
        where = f"row {number} of {path}"
        if len(cells) != len(header):
            raise CerError(f"{len(cells)} values for {len(header)} columns", where, f"the file was {sheet.seen}")
        if any(cell.strip() and not name for name, cell in list(zip(header, cells, strict=True))[1:]):
            raise CerError("a value stands in a column without a name", where, hint)
        row = {name: cell for name, cell in zip(header, cells, strict=True) if name}
        if sheet.delimiter != ",":
            row |= {name: cell.replace(",", ".") for name, cell in row.items() if _is_decimal(name, cell, numbers)}
        yield where, row


def _is_decimal(name: str, cell: str, numbers: Collection[str]) -> bool:
    return name in numbers and _DECIMAL_COMMA.fullmatch(cell) is not None
