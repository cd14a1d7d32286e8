"""CSV files as people write them, with errors that name the row.

Belongs here: encoding, header and shape of a table of texts. Does not belong here: what its values mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from cer_pipeline.errors import CerError


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark.

    Raises:
        CerError: the file does not exist, cannot be read, or is not UTF-8; the line says where.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CerError("the file does not exist", str(path), "check the path") from None
    except OSError as error:
        raise CerError(f"the file cannot be read ({error.strerror})", str(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CerError(f"not UTF-8 at line {line}", str(path), "save the file as UTF-8") from None


def read_sheet(
    path: Path, needed: Sequence[str], allowed: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a header, each with where it stands: "row 2 of FILE", the header being row 1.

    Args:
        path: the file.
        needed: columns that must be there.
        allowed: columns that may be there beside them; any unless given.

    Raises:
        CerError: not UTF-8, no CSV, or a column that is missing, unknown or doubled.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    hint = f"the columns are {','.join([*needed, *(allowed or ())])}"
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in needed if name not in header]:
            raise CerError(f"the file has no column {', '.join(missing)}", str(path), hint)
        extra = [] if allowed is None else [name for name in header if name not in (*needed, *allowed)]
        if extra:
            raise CerError(f"unknown class or column {', '.join(map(repr, extra))}", str(path), hint)
        if len(set(header)) != len(header):
            raise CerError("a column stands twice", str(path), hint)
        for number, values in enumerate(reader, 2):
            if not values:
                continue
            if len(values) != len(header):
                raise CerError(f"{len(values)} values for {len(header)} columns", f"row {number} of {path}")
            yield f"row {number} of {path}", dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise CerError(f"not a CSV file ({error})", f"{path}, line {reader.line_num}") from None
