"""The report of an evaluation: one HTML file that needs nothing beside it, and its pictures as files.

Belongs here: what stands on the page, and writing it. Does not belong here: scoring (`evaluation`) or drawing
(`score_plots`).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cer_pipeline.evaluation.evaluate import evaluate
from cer_pipeline.evaluation.protocols import SEGMENT, MetricRow, calibration, confusion
from cer_pipeline.evaluation.read import FUSED, PPA, Scored, read
from cer_pipeline.report.score_plots import confusion_plot, data_uri, interval_plot, reliability_plot
from cer_pipeline.report.score_table import COLUMNS, NOTES, RIGHT, interval, rank, score_rows
from cer_pipeline.store.files import commit_bytes
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.store.home import Home

CODE_VERSION: Final = "1"  # changed by hand whenever the page would change for the same tables
MARK: Final = "<!-- made from "
PAGE: Final = "evaluation.html"
STYLE: Final = (
    "body{font:14px/1.45 system-ui,sans-serif;color:#1F2933;max-width:1250px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0;font-size:13px}th,td{padding:3px 9px;border-bottom:1px solid #D9DEE4;"
    "text-align:left;white-space:nowrap}th{background:#F3F5F7}.r{text-align:right}p{max-width:80em}"
    "img{max-width:100%;margin:.4em 1em .4em 0;vertical-align:top}h1,h2,h3{line-height:1.2}"
)


@dataclass(frozen=True)
class Picture:
    """One picture of a report.

    Args:
        split: split that it shows.
        kind: scores, reliability or confusion.
        name: file name without ending.
        title: what people read.
        png: the picture.
    """

    split: str
    kind: str
    name: str
    title: str
    png: bytes


def folder_of(home: Home, name: str) -> Path:
    """Where the report of a corpus lies."""
    return home.root / "reports" / name / "evaluation"


def write_report(home: Home, name: str) -> Path:
    """Make the report of a corpus, where its scores have changed since the last one.

    Returns:
        The page.

    Raises:
        CerError: as in `evaluation.evaluate`.
    """
    evaluation = evaluate(home, name)
    page = folder_of(home, name) / PAGE
    mark = f"{MARK}{digest(CODE_VERSION, evaluation.footer.plan)} -->"
    if page.is_file() and page.read_text("utf-8").startswith(mark):
        return page
    pictures = draw(read(home, name), evaluation.rows, name)
    for picture in pictures:
        commit_bytes(page.with_name(f"{picture.name}.png"), picture.png)
    commit_bytes(page, (mark + "\n" + _page(name, evaluation.rows, pictures)).encode())
    return page


def draw(tasks: Sequence[Scored], cells: Sequence[MetricRow], corpus: str) -> list[Picture]:
    """All pictures of an evaluation: scores with intervals, reliability, and a confusion matrix a system."""
    found = []
    for scored in tasks:
        task = scored.task
        what = "basic" if FUSED in {s.name for s in scored.systems} else "compound"
        stem, title = f"{task.split}_{task.level}_{what}", f"{corpus} {task.split}, {task.level}s, {what}"
        mine = {s.name for s in scored.systems}
        macro = [
            c
            for c in cells
            if (c.split, c.protocol, c.metric) == (task.split, task.level, "macro_f1") and c.system in mine
        ]
        found.append(Picture(task.split, "scores", f"{stem}_scores", title, interval_plot(macro, f"macro-F1: {title}")))
        bins = {s.name: b for s in scored.systems if (b := calibration(task, s)) is not None}
        plot = reliability_plot(bins, f"Reliability: {title}")
        found.append(Picture(task.split, "reliability", f"{stem}_reliability", title, plot))
        for system in sorted(scored.systems, key=lambda s: rank(s.name)):
            matrix = confusion(task, system)
            if matrix.any():
                name = f"{stem}_confusion_{system.name.replace('/', '-')}"
                plot = confusion_plot(matrix, task.names, f"{system.name}: {title}")
                found.append(Picture(task.split, "confusion", name, f"{system.name}: {title}", plot))
    return [picture for picture in found if picture.png]


def headline(page: Path, splits: Iterable[str]) -> list[Path]:
    """The few pictures of a report that stand for all: reliability of the segments, confusion of the fusion and PPA."""
    ends = ("basic_reliability", "compound_reliability", f"basic_confusion_{FUSED}", f"compound_confusion_{PPA}")
    files = [page.parent / f"{split}_{SEGMENT}_{end}.png" for split in splits for end in ends]
    return [file for file in files if file.is_file()]


def _page(corpus: str, cells: Sequence[MetricRow], pictures: Sequence[Picture]) -> str:
    title = f"Evaluation of {html.escape(corpus)}"
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"]
    parts += [f"<h1>{title}</h1>", _table(COLUMNS, score_rows(cells), RIGHT), f"<p>{html.escape(NOTES)}</p>"]
    parts.append("<p>A split that heads were trained on (as a rule <i>train</i>) says nothing about new data.</p>")
    for split in sorted({c.split for c in cells}):
        parts.append(f"<h2>Split {html.escape(split)}</h2>")
        parts += [_image(p) for p in pictures if p.split == split and p.kind != "confusion"]
        parts += ["<h3>By class</h3>", *_by_class([c for c in cells if c.split == split])]
        parts.append("<h3>Confusion</h3>")
        parts += [_image(p) for p in pictures if p.split == split and p.kind == "confusion"]
    return "\n".join(parts) + "\n</html>\n"


def _by_class(cells: Sequence[MetricRow]) -> list[str]:
    """Tables of F1 and recall by class: systems of one vocabulary are rows, classes are columns."""
    tables = []
    for level in dict.fromkeys(c.protocol for c in cells if "/" in c.metric):
        for score in ("f1", "recall"):
            mine = [c for c in cells if c.protocol == level and c.metric.startswith(f"{score}/")]
            for classes in dict.fromkeys(_classes_of(mine, system) for system in dict.fromkeys(c.system for c in mine)):
                systems = [s for s in dict.fromkeys(c.system for c in mine) if _classes_of(mine, s) == classes]
                known = {(c.system, c.metric.partition("/")[2]): interval(c) for c in mine}
                rows = [(s, *(known[s, name] for name in classes)) for s in sorted(systems, key=rank)]
                tables.append(_table((f"{score}, {level}s", *classes), rows, ()))
    return tables


def _classes_of(cells: Sequence[MetricRow], system: str) -> tuple[str, ...]:
    return tuple(c.metric.partition("/")[2] for c in cells if c.system == system)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> str:
    sides = [" class=r" if name in right else "" for name in columns]
    head = "".join(f"<th{s}>{html.escape(c)}</th>" for s, c in zip(sides, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{s}>{html.escape(cell)}</td>" for s, cell in zip(sides, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(picture: Picture) -> str:
    return f'<img alt="{html.escape(picture.title)}" src="{data_uri(picture.png)}">'
