"""The report of an evaluation: one self-contained HTML file, and its pictures as files.

Belongs here: the content of the page, and writing it. Does not belong here: scoring (`evaluation`) or drawing
(`score_plots`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

CODE_VERSION: Final = "2"  # changed by hand whenever the page would change for the same tables
MARK: Final = "<!-- made from "
PAGE: Final = "evaluation.html"
TEMPLATE: Final = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Picture:
    """One picture of a report.

    Args:
        split: split of the data.
        kind: scores, reliability or confusion.
        name: file name without its suffix.
        title: title and alternative text.
        png: the PNG.
    """

    split: str
    kind: str
    name: str
    title: str
    png: bytes


def folder_of(home: Home, name: str) -> Path:
    """Return the folder of the report of a corpus."""
    return home.root / "reports" / name / "evaluation"


def write_report(home: Home, name: str) -> Path:
    """Write the report of a corpus if its scores have changed since the last one.

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
    """Return all pictures: scores with intervals, reliability, and a confusion matrix for every system."""
    pictures = []
    for scored in tasks:
        task = scored.task
        systems = {s.name for s in scored.systems}
        label_set = "basic" if FUSED in systems else "compound"
        stem, title = f"{task.split}_{task.level}_{label_set}", f"{corpus} {task.split}, {task.level}s, {label_set}"
        macro = [
            c
            for c in cells
            if (c.split, c.protocol, c.metric) == (task.split, task.level, "macro_f1") and c.system in systems
        ]
        plot = interval_plot(macro, f"macro-F1: {title}")
        pictures.append(Picture(task.split, "scores", f"{stem}_scores", title, plot))
        bins = {s.name: b for s in scored.systems if (b := calibration(task, s)) is not None}
        plot = reliability_plot(bins, f"Reliability: {title}")
        pictures.append(Picture(task.split, "reliability", f"{stem}_reliability", title, plot))
        for system in sorted(scored.systems, key=lambda s: rank(s.name)):
            matrix = confusion(task, system)
            if matrix.any():
                name = f"{stem}_confusion_{system.name.replace('/', '-')}"
                plot = confusion_plot(matrix, task.names, f"{system.name}: {title}")
                pictures.append(Picture(task.split, "confusion", name, f"{system.name}: {title}", plot))
    return [picture for picture in pictures if picture.png]


def headline(page: Path, splits: Iterable[str]) -> list[Path]:
    """Return the main pictures of a report: reliability of the segments, and confusion of the fusion and of PPA."""
    endings = ("basic_reliability", "compound_reliability", f"basic_confusion_{FUSED}", f"compound_confusion_{PPA}")
    files = [page.parent / f"{split}_{SEGMENT}_{ending}.png" for split in splits for ending in endings]
    return [file for file in files if file.is_file()]


def _page(corpus: str, cells: Sequence[MetricRow], pictures: Sequence[Picture]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["data_uri"] = data_uri
    splits = [
        {
            "name": split,
            "plots": [p for p in pictures if p.split == split and p.kind != "confusion"],
            "by_class": list(_by_class([c for c in cells if c.split == split])),
            "confusions": [p for p in pictures if p.split == split and p.kind == "confusion"],
        }
        for split in sorted({c.split for c in cells})
    ]
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        corpus=corpus, columns=COLUMNS, scores=score_rows(cells), right=RIGHT, notes=NOTES, splits=splits
    )


def _by_class(cells: Sequence[MetricRow]) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield header and rows of the tables of F1 and recall by class: rows are the systems of one vocabulary."""
    for level in dict.fromkeys(c.protocol for c in cells if "/" in c.metric):
        for score in ("f1", "recall"):
            scores = {
                (c.system, c.metric.partition("/")[2]): interval(c)
                for c in cells
                if c.protocol == level and c.metric.startswith(f"{score}/")
            }
            classes: dict[str, list[str]] = {}
            for system, name in scores:
                classes.setdefault(system, []).append(name)
            for vocabulary in dict.fromkeys(map(tuple, classes.values())):
                systems = sorted((s for s, names in classes.items() if tuple(names) == vocabulary), key=rank)
                rows = [(system, *(scores[system, name] for name in vocabulary)) for system in systems]
                yield (f"{score}, {level}s", *vocabulary), rows
