"""Reader of CSV files from spreadsheets and scripts, with errors that name the row and how the file was read.

Belongs here: encoding, delimiter, quotes, header and shape of a CSV file. Does not belong here: the meaning of its
values.

Accepted are UTF-8, and UTF-16 or UTF-32 with a byte order mark; cells separated by commas, semicolons or tabs, quoted
or not; and the line ends of any system. The delimiter is the most frequent one of the header outside quotes: names of
columns contain none of the three, while values may contain all of them. A first line `sep=;`, which spreadsheets write,
overrides it.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError

DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Delimiter -> its name in messages; of equally frequent ones the first is taken."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, because it starts with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_SEPARATOR_LINE: Final = re.compile(r"sep=([,;\t])", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
_DECIMAL_COMMA: Final = re.compile(r"\s*[+-]?\d*,\d+\s*")


@dataclass(frozen=True)
class CsvFile:
    """A CSV file as rows of cells.

    Args:
        path: the file.
        header: names of the columns, stripped.
        rows: number in the file and cells of every row that is not empty.
        header_row: number of the header: 1, or 2 below a line `sep=`.
        delimiter: the character that separates cells.
        encoding: name of the encoding.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    header_row: int
    delimiter: str
    encoding: str

    @property
    def how_read(self) -> str:
        """Encoding and delimiter, for messages."""
        return f"read as {self.encoding}, separated by {DELIMITERS[self.delimiter]}"


def read_text(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        CerError: the file does not exist, cannot be read, or is of another encoding; the error names the line.
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
    """Return the most frequent of `DELIMITERS` in a header line, outside quotes."""
    return max(DELIMITERS, key=_QUOTED.sub("", header).count)


def read_cells(path: Path) -> CsvFile:
    """Read a file as rows of cells, whatever its columns.

    Raises:
        CerError: the file cannot be read, is of another encoding, or quotes are wrong.
    """
    text, encoding = _decoded(path)
    lines = text.splitlines()
    first = lines[0] if lines else ""
    stated = _SEPARATOR_LINE.fullmatch(first.strip(" "))
    start = 1 if stated else 0
    delimiter = stated[1] if stated else delimiter_of(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(number, tuple(cells)) for number, cells in enumerate(reader, 1)]
    except csv.Error as error:
        raise CerError(
            f"not a CSV file ({error}; separated by {DELIMITERS[delimiter]})", f"{path}, line {reader.line_num}"
        ) from None
    header = tuple(cell.strip() for cell in rows[start][1]) if len(rows) > start else ()
    kept = tuple((number, cells) for number, cells in rows[start + 1 :] if any(cell.strip() for cell in cells))
    return CsvFile(path, header, kept, start + 1, delimiter, encoding)


def read_rows(
    path: Path, needed: Sequence[str], allowed: Sequence[str] | None = None, numbers: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place and cells of every row of a CSV file with a header: ("row 2 of FILE", {column: cell}).

    The header is row 1. A first column without a name, which R and pandas write for row numbers, is ignored; so is any
    other column without a name that is empty.

    Args:
        path: the file.
        needed: required columns.
        allowed: optional columns; any by default.
        numbers: columns of numbers, in which a decimal comma becomes a point unless commas separate the cells.

    Raises:
        CerError: another encoding, no CSV, or a missing, unknown or repeated column.
    """
    yield from rows_of(read_cells(path), needed, allowed, numbers)


def rows_of(
    file: CsvFile, needed: Sequence[str], allowed: Sequence[str] | None = None, numbers: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """As `read_rows`, of a file that `read_cells` returned."""
    path, header = file.path, file.header
    hint = f"the columns are {','.join([*needed, *(allowed or ())])}"
    if missing := [name for name in needed if name not in header]:
        raise CerError(f"the file has no column {', '.join(missing)} ({file.how_read})", str(path), hint)
    named = [name for name in header if name]
    unknown = [] if allowed is None else [name for name in named if name not in (*needed, *allowed)]
    if unknown:
        raise CerError(f"unknown class or column {', '.join(map(repr, unknown))} ({file.how_read})", str(path), hint)
    if len(set(named)) != len(named):
        raise CerError("a column name occurs twice", str(path), hint)
    for number, cells in file.rows:
        where = f"row {number} of {path}"
        if len(cells) != len(header):
            raise CerError(f"{len(cells)} values for {len(header)} columns", where, f"the file was {file.how_read}")
        if any(cell.strip() and not name for name, cell in list(zip(header, cells, strict=True))[1:]):
            raise CerError("a value in a column without a name", where, hint)
        row = {name: cell for name, cell in zip(header, cells, strict=True) if name}
        if file.delimiter != ",":
            row |= {name: cell.replace(",", ".") for name, cell in row.items() if _is_decimal(name, cell, numbers)}
        yield where, row


def number_in(cell: str, low: float, high: float = math.inf) -> float | None:
    """Return the number in a cell; None where there is none, or it is infinite or outside [low, high]."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and low <= value <= high else None


def _is_decimal(name: str, cell: str, numbers: Collection[str]) -> bool:
    return name in numbers and _DECIMAL_COMMA.fullmatch(cell) is not None
