"""The corpus format `cexpr`: videos, and where there are any, stretches of time with compound expressions.

Belongs here: C-EXPR-DB as it comes (videos, no labels), and annotation tables of stretches of time for any corpus: CSV
with the columns begin and end (s), one column a compound (or a basic emotion), and video; or a folder with one such
file a video, without that column. A stretch may mark several compounds: they share it equally.

Does not belong here: what a window's label is (`corpora.labels.stages`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora.annotations import Annotation, Distribution, Notes, Span
from cer_pipeline.corpora.formats.csv_rows import Sheet, read_cells, rows_of
from cer_pipeline.corpora.formats.folder import find
from cer_pipeline.corpora.formats.registry import SPLIT, Found, Scan
from cer_pipeline.corpora.lookup import Lookup
from cer_pipeline.corpora.splits import TEST
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.sums import plain_sum

VIDEO: Final = "video"
BEGIN: Final = "begin"
END: Final = "end"


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the videos. C-EXPR-DB is a test set: its videos are held out unless `--split` says otherwise.

    Raises:
        CerError: no folder or video.
    """
    walked = find(root)
    if options.get(SPLIT):
        return walked
    return replace(walked, files=[replace(file, split=TEST) for file in walked.files])


def attach_spans(files: Sequence[Found], path: Path) -> list[Found]:
    """Give videos the stretches of time of an annotation table.

    Args:
        files: the videos.
        path: CSV file with a column video, or a folder of CSV files named like the videos.

    Raises:
        CerError: a column is missing or unknown, a row cannot be right, or a video is unknown.
    """
    by_name = Lookup(files)
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for name, where, span in _rows(path):
        known = by_name.find(name)
        if len(known) != 1:
            what = "the corpus has no video" if not known else "several videos have the name"
            raise CerError(f"{what} {name!r}", where, "write the path of the video below its folder, no ending")
        video = files[known[0]].video_id
        if any((span.begin_s, span.end_s) == (other.begin_s, other.end_s) for other in spans[video]):
            raise CerError("this stretch of time stands twice", where, "mark all its classes in one row")
        spans[video].append(span)
    if not spans:
        raise CerError("the annotation has no rows", str(path), "add rows, or leave --labels away")
    return [
        replace(file, notes=Notes(_with(spans[file.video_id]), file.notes.captions)) if file.video_id in spans else file
        for file in files
    ]


def _with(spans: Sequence[Span]) -> Annotation:
    return Annotation(spans=tuple(sorted(spans, key=lambda s: (s.begin_s, s.end_s))))


def _rows(path: Path) -> Iterator[tuple[str, str, Span]]:
    """Name of the video, where the row stands, and the stretch."""
    if not path.is_dir():
        yield from _file(path, None)
        return
    files = sorted(path.glob("*.csv"))
    if not files:
        raise CerError("no annotation file in the folder", str(path), "name one VIDEO.csv for each video")
    for file in files:
        yield from _file(file, file.stem)


def _file(path: Path, video: str | None) -> Iterator[tuple[str, str, Span]]:
    sheet = read_cells(path)
    columns = _columns(sheet)
    sheet = replace(sheet, header=tuple(columns))
    vocabulary = _vocabulary(sheet)
    times = (BEGIN, END)
    keys = times if video is not None else (VIDEO, *times)
    for where, row in rows_of(sheet, (*keys, *vocabulary), numbers=(*times, *vocabulary)):
        begin, end = _seconds(row[BEGIN], BEGIN, where), _seconds(row[END], END, where)
        if end <= begin:
            raise CerError(f"the stretch ends at {end:g} s, not after its begin at {begin:g} s", where)
        shares = _shares({name: row[name] for name in vocabulary}, where)
        mine = {"compound": shares} if vocabulary == COMPOUND else {"basic": shares}
        yield row[VIDEO].strip() if video is None else video, where, Span(begin, end, **mine)


def _columns(sheet: Sheet) -> list[str]:
    """The header in this module's own words: classes may be written with spaces or underscores, all in any case."""
    known = {name.lower(): name for name in (*BASIC, *COMPOUND, VIDEO, BEGIN, END)}
    out = []
    for name in sheet.header:
        plain = name.replace("_", " ").lower()
        if name and plain not in known:
            raise CerError(f"unknown class or column {name!r} ({sheet.seen})", str(sheet.path), _hint())
        out.append(known[plain] if name else "")
    return out


def _vocabulary(sheet: Sheet) -> tuple[str, ...]:
    path, classes = str(sheet.path), [name for name in sheet.header if name in (*BASIC, *COMPOUND)]
    for vocabulary in (COMPOUND, BASIC):
        if any(name in classes for name in vocabulary):
            if missing := [name for name in vocabulary if name not in classes]:
                raise CerError(f"the file has no column {', '.join(missing)} ({sheet.seen})", path, _hint())
            if foreign := [name for name in classes if name not in vocabulary]:
                raise CerError(f"the class {foreign[0]!r} is of the other vocabulary", path, _hint())
            return vocabulary
    raise CerError(f"the file has no column for a class ({sheet.seen})", path, _hint())


def _hint() -> str:
    return f"the columns are {VIDEO},{BEGIN},{END},{','.join(COMPOUND)}"


def _seconds(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise CerError(f"{name} is {text!r}, no time in seconds", where, "give seconds from the start of the video")
    return value


def _shares(cells: Mapping[str, str], where: str) -> Distribution:
    values = []
    for name, cell in cells.items():
        try:
            value = float(cell) if cell.strip() else 0.0
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:  # also -1, the sentinel of what is not annotated
            raise CerError(f"the mark of {name} is {cell!r}, outside 0..1", where, "leave unannotated stretches out")
        values.append(value)
    total = plain_sum(values)
    if total <= 0:
        raise CerError("no class is marked", where, "mark one, or remove the row")
    return tuple(value / total for value in values)
