"""`cer reproduce`: print the tables of the paper beside the scores that are measured here.

Belongs here: the command, its progress lines, and the printed tables. Does not belong here: measuring (`reproduce`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cer_pipeline.cli.options import Json, settings_of
from cer_pipeline.cli.output import console, print_json, print_table, safe, say

if TYPE_CHECKING:
    from cer_pipeline.reproduce.paper_tables import Measured, PaperCell
    from cer_pipeline.store.home import Home

DECIMALS = 4
COMMAND = "cer reproduce --data DIR"


def reproduce(
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of corpora, with captions/AFEW. Default: $CER_DATA.")
    ] = None,
    json: Json = False,
) -> None:
    """Print Tables 1 and 2 of the paper, with the score measured here or the command that measures it."""
    from cer_pipeline.reproduce.paper_tables import DATA_VARIABLE, cells, data_folder, paper
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    folder = data_folder(data, os.environ.get(DATA_VARIABLE, ""))
    table_cells = cells(measured(home, folder))
    if json:
        print_json([record(cell) for cell in table_cells])
    else:
        show(table_cells, paper()["footnotes"])


def measured(home: Home, data: Path | None) -> dict[str, list[Measured]]:
    """Measure the caption files of the data folder, then collect the scores of registered corpora.

    Raises:
        CerError: a caption file has wrong content.
    """
    from cer_pipeline.reproduce.caption_benchmark import MODELS, measure
    from cer_pipeline.reproduce.paper_tables import AFEW, Measured, caption_folder, registered
    from cer_pipeline.zoo import open_zoo

    scores = {}
    folder = caption_folder(data, AFEW)
    if folder is None:
        say(f"no captions of {AFEW}; --data or CER_DATA names a folder that has captions/{AFEW}")
    else:
        zoo = open_zoo(heads=home.heads)
        absent = [model for model in MODELS if zoo.digest(model) is None]
        if absent:
            say(f"{', '.join(absent)}: not on this machine; run `cer models pull {' '.join(absent)}`")
        else:
            started = time.monotonic()

            def progress(what: str, done: int, count: int) -> None:
                say(f"{time.monotonic() - started:5.0f} s  {what}, {done} of {count}")

            cells = measure(home, folder, "dev", zoo, settings_of(home), progress)
            source = f"captions of {AFEW} dev: {COMMAND}"
            scores[AFEW] = [Measured(tuple(cells), source, whole=False)]
    for name, measurements in registered(home).items():
        scores.setdefault(name, []).extend(measurements)
    return scores


def record(cell: PaperCell) -> dict[str, Any]:
    """Return a cell as a record of `--json`."""
    fields = asdict(cell) | {"notes": list(cell.notes)}
    first = ("system", "corpus", "metric", "value", "low", "high", "paper", "source")
    ordered = {name: fields[name] for name in first} | fields
    return {name: round(v, DECIMALS) if isinstance(v, float) else v for name, v in ordered.items()}


def show(cells: Sequence[PaperCell], footnotes: dict[str, str]) -> None:
    """Print both tables, the sources of all scores, and the footnotes."""
    marks = {key: chr(ord("a") + i) for i, key in enumerate(footnotes)}
    rows = _rows([c for c in cells if c.table == "1"], marks)
    names = ("ID", "model", "here", "AffWild2", "AFEW", "C-EXPR-DB")
    print_table("Table 1: paper / here, percent: macro-F1, UAR, average; C-EXPR-DB: macro-F1 by PPA, PFSA", names, rows)
    second = [
        (safe(c.model) + _mark(c, marks), _number(c.paper), _number(c.value, c) if c.system else "")
        for c in cells
        if c.table == "2"
    ]
    print_table("Table 2: C-EXPR-DB, macro-F1", ("method", "paper", "here"), second)
    out = console()
    for text in dict.fromkeys(c.source for c in cells):
        out.print(safe(text), soft_wrap=True)
    for key, text in footnotes.items():
        out.print(f"[{marks[key]}] {text}", soft_wrap=True, markup=False)


def _rows(cells: Sequence[PaperCell], marks: dict[str, str]) -> list[tuple[str, ...]]:
    rows = []
    for key in dict.fromkeys((c.id, c.model, c.system) for c in cells):
        row = [c for c in cells if (c.id, c.model, c.system) == key]
        scores = [_scores([c for c in row if c.corpus == corpus]) for corpus in ("AffWild2", "AFEW", "C-EXPR-DB")]
        rows.append((key[0], safe(key[1]) + _mark(row[0], marks), safe(key[2]), *scores))
    return rows


def _scores(cells: Sequence[PaperCell]) -> str:
    """Return the text of one row and corpus: scores of the paper, then those measured here or their source."""
    if not cells:
        return ""
    printed = " ".join(_number(c.paper) for c in cells) if any(c.paper is not None for c in cells) else "-"
    if any(c.value is not None for c in cells):
        return f"{printed}\n" + "\n".join(_number(c.value, c) for c in cells)
    return f"{printed}\n{cells[0].source.partition(':')[0].partition(' (')[0]}"


def _number(value: float | None, cell: PaperCell | None = None) -> str:
    if value is None:
        return "-" if cell is None else cell.source.partition(":")[0]
    text = f"{value:.2f}"
    if cell is not None and cell.low is not None and cell.high is not None:
        text += safe(f" [{cell.low:.1f}, {cell.high:.1f}]")
    if cell is not None and cell.union is not None:
        text += f", by the paper's rule {cell.union:.2f}"
    return text


def _mark(cell: PaperCell, marks: dict[str, str]) -> str:
    return "".join(safe(f" [{marks[key]}]") for key in cell.notes)
