"""`cer evaluate`: score the predictions of a labelled corpus.

Belongs here: running the job and printing its scores. Does not belong here: computing scores (`evaluation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import console, print_json, print_table, safe
from cer_pipeline.errors import CerError

if TYPE_CHECKING:
    from cer_pipeline.evaluation.protocols import MetricRow
    from cer_pipeline.store.home import Home


def evaluate(
    name: Annotated[str, typer.Argument(help="A corpus with labels.")],
    split: Annotated[
        str | None, typer.Option("--split", help="Split to show. Default: all labelled splits but train.")
    ] = None,
    json: Json = False,
) -> None:
    """Score every branch, the fusion and both compound mappings against the labels, and write a report."""
    from cer_pipeline.evaluation.evaluate import TRAIN, read_metrics, record
    from cer_pipeline.report.evaluation_page import folder_of
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    cells = evaluated(home, name, split)
    if json:
        print_json([record(cell, name) for cell in cells])
        return
    show(name, cells)
    hidden = {cell.split for cell in read_metrics(home, name)} - {cell.split for cell in cells}
    out = console()
    if TRAIN in hidden:
        out.print("not shown  train, on which heads may have been trained; --split train shows it", soft_wrap=True)
    out.print(f"report     {safe(str(folder_of(home, name) / 'evaluation.html'))}", soft_wrap=True)
    out.print(
        f"table      {safe(str(home.root / 'tables'))}/metrics/corpus={name}/shard=all/data.parquet", soft_wrap=True
    )


def evaluated(home: Home, name: str, split: str | None) -> list[MetricRow]:
    """Run the job `evaluate_corpus` on a corpus and return its scores.

    Raises:
        CerError: unknown corpus or split, no labels, tables that have not been made, or a step failed.
    """
    from cer_pipeline.cli.launch import launcher
    from cer_pipeline.evaluation.evaluate import read_metrics, select_split
    from cer_pipeline.evaluation.read import inputs_digest, splits

    labelled = splits(home, name)  # checked before Dagster is imported, so that a mistake is reported at once
    inputs_digest(home, name)
    if split is not None and split not in labelled:
        raise CerError(f"no labelled segment of the split {split!r}", name, f"it has: {', '.join(labelled)}")
    with launcher(home) as jobs:
        from assets.jobs import EVALUATE

        jobs.run(EVALUATE, partition=name).require_success()
    return select_split(read_metrics(home, name), name, split)


def show(name: str, cells: list[MetricRow]) -> None:
    """Print the scores as one table."""
    from cer_pipeline.report.score_table import COLUMNS, NOTES, RIGHT, score_rows, without_score

    rows = [tuple(safe(cell) for cell in row) for row in score_rows(cells)]
    print_table(f"Evaluation of {name}", COLUMNS, rows, right=RIGHT)
    out = console()
    out.print(NOTES)
    for line in without_score(cells):
        out.print(safe(line), soft_wrap=True)
