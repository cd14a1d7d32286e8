"""Annotation tables of time spans, for the option `--labels` of any corpus.

Belongs here: CSV files with the columns begin and end (s), one column for each compound expression (or each basic
emotion), and video; or a folder with one such file for each video, without that column. A span may mark several
classes, which share it equally. Does not belong here: the label of a window (`corpora.labels.stages`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cer_pipeline.corpora.annotations import Annotation, Distribution, Span, VideoAnnotations
from cer_pipeline.corpora.csv_rows import CsvFile, number_in, read_cells, rows_of
from cer_pipeline.corpora.lookup import Lookup
from cer_pipeline.corpora.scan import ScannedVideo
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.sums import plain_sum

VIDEO: Final = "video"
BEGIN: Final = "begin"
END: Final = "end"


def attach_spans(videos: Sequence[ScannedVideo], path: Path) -> list[ScannedVideo]:
    """Add the time spans of an annotation table to videos.

    Args:
        videos: the videos.
        path: CSV file with a column video, or a folder of CSV files named like the videos.

    Raises:
        CerError: a column is missing or unknown, a row is not valid, or a video is unknown.
    """
    by_name = Lookup(videos)
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for name, where, span in _rows(path):
        video = by_name.find_one(name, where).video_id
        if any((span.begin_s, span.end_s) == (other.begin_s, other.end_s) for other in spans[video]):
            raise CerError("this time span occurs twice", where, "mark all its classes in one row")
        spans[video].append(span)
    if not spans:
        raise CerError("the annotation has no rows", str(path), "add rows, or leave --labels away")
    return [_with_spans(video, spans[video.video_id]) if video.video_id in spans else video for video in videos]


def _with_spans(video: ScannedVideo, spans: Sequence[Span]) -> ScannedVideo:
    labels = Annotation(spans=tuple(sorted(spans, key=lambda s: (s.begin_s, s.end_s))))
    return replace(video, annotations=VideoAnnotations(labels, video.annotations.captions))


def _rows(path: Path) -> Iterator[tuple[str, str, Span]]:
    """Yield name of the video, place of the row, and time span."""
    if not path.is_dir():
        yield from _file(path, None)
        return
    files = sorted(path.glob("*.csv"))
    if not files:
        raise CerError("no annotation file in the folder", str(path), "name one VIDEO.csv for each video")
    for file in files:
        yield from _file(file, file.stem)


def _file(path: Path, video: str | None) -> Iterator[tuple[str, str, Span]]:
    file = read_cells(path)
    file = replace(file, header=_columns(file))
    vocabulary = _vocabulary(file)
    times = (BEGIN, END)
    keys = times if video is not None else (VIDEO, *times)
    for where, row in rows_of(file, (*keys, *vocabulary), numbers=(*times, *vocabulary)):
        begin, end = _seconds(row[BEGIN], BEGIN, where), _seconds(row[END], END, where)
        if end <= begin:
            raise CerError(f"the time span ends at {end:g} s, not after its begin at {begin:g} s", where)
        shares = _shares({name: row[name] for name in vocabulary}, where)
        basic, compound = (None, shares) if vocabulary == COMPOUND else (shares, None)
        yield row[VIDEO].strip() if video is None else video, where, Span(begin, end, basic, compound)


def _columns(file: CsvFile) -> tuple[str, ...]:
    """Return the header with canonical names: classes may have spaces or underscores, all names any case."""
    known = {name.lower(): name for name in (*BASIC, *COMPOUND, VIDEO, BEGIN, END)}
    columns = []
    for name in file.header:
        key = name.replace("_", " ").lower()
        if name and key not in known:
            raise CerError(f"unknown class or column {name!r} ({file.how_read})", str(file.path), _hint())
        columns.append(known[key] if name else "")
    return tuple(columns)


def _vocabulary(file: CsvFile) -> tuple[str, ...]:
    path, classes = str(file.path), [name for name in file.header if name in (*BASIC, *COMPOUND)]
    for vocabulary in (COMPOUND, BASIC):
        if any(name in classes for name in vocabulary):
            if missing := [name for name in vocabulary if name not in classes]:
                raise CerError(f"the file has no column {', '.join(missing)} ({file.how_read})", path, _hint())
            if other := [name for name in classes if name not in vocabulary]:
                raise CerError(f"the class {other[0]!r} is of the other vocabulary", path, _hint())
            return vocabulary
    raise CerError(f"the file has no column for a class ({file.how_read})", path, _hint())


def _hint() -> str:
    return f"the columns are {VIDEO},{BEGIN},{END},{','.join(COMPOUND)}"


def _seconds(text: str, name: str, where: str) -> float:
    value = number_in(text, 0)
    if value is None:
        raise CerError(f"{name} is {text!r}, no time in seconds", where, "give seconds from the start of the video")
    return value


def _shares(cells: Mapping[str, str], where: str) -> Distribution:
    values = []
    for name, cell in cells.items():
        value = number_in(cell, 0, 1) if cell.strip() else 0.0
        if value is None:  # also for -1, the sentinel of frames without annotation
            raise CerError(f"the mark of {name} is {cell!r}, outside 0..1", where, "leave unannotated spans out")
        values.append(value)
    total = plain_sum(values)
    if total <= 0:
        raise CerError("no class is marked", where, "mark one, or remove the row")
    return tuple(value / total for value in values)
