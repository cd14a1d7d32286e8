"""`cer evaluate`: how good the predictions of a labelled corpus are.

Belongs here: launching the Dagster run and showing its numbers. Does not belong here: any score (`evaluation`).
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
    name: Annotated[str, typer.Argument(help="The corpus; it needs labels.")],
    split: Annotated[
        str | None, typer.Option("--split", help="The split to show; all that have labels but train unless named.")
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
        out.print("not shown  the split that heads may have been trained on; --split train shows it", soft_wrap=True)
    out.print(f"report     {safe(str(folder_of(home, name) / 'evaluation.html'))}", soft_wrap=True)
    out.print(
        f"table      {safe(str(home.root / 'tables'))}/metrics/corpus={name}/shard=all/data.parquet", soft_wrap=True
    )


def evaluated(home: Home, name: str, split: str | None) -> list[MetricRow]:
    """The numbers of a corpus after a run of the job `evaluate_corpus`.

    Raises:
        CerError: no such corpus or split, no labels, or tables that have not been made.
    """
    from cer_pipeline.evaluation.evaluate import read_metrics, select_split
    from cer_pipeline.evaluation.read import inputs_digest, splits

    there = splits(home, name)  # before Dagster is loaded: a mistake answers at once
    inputs_digest(home, name)
    if split is not None and split not in there:
        raise CerError(f"no labelled segment of the split {split!r}", name, f"it has: {', '.join(there)}")
    launch(home, name)
    return select_split(read_metrics(home, name), name, split)


def launch(home: Home, name: str) -> str:
    """Run the job on one corpus in the instance that `cer ui` shows; the id of the run.

    Raises:
        CerError: a step failed.
    """
    from cer_pipeline.cli.dagster_home import instance
    from cer_pipeline.cli.launch import close_dead_runs, execute
    from cer_pipeline.cli.run import broken_steps

    with instance(home) as opened:
        from assets.jobs import EVALUATE
        from assets.partitions import CORPUS
        from cer_pipeline.definitions import build_definitions
        from resources.settings import Settings

        close_dead_runs(opened)
        if name not in opened.get_dynamic_partitions(CORPUS):
            opened.add_dynamic_partitions(CORPUS, [name])
        job = build_definitions(Settings(home=str(home.root))).resolve_job_def(EVALUATE)
        result = execute(opened, job, partition_key=name)
    for reason in broken_steps(result).values():
        raise CerError(safe(reason).removeprefix(f"{CerError.__module__}.{CerError.__name__}: "))
    return result.run_id


def show(name: str, cells: list[MetricRow]) -> None:
    """Print the numbers as one table."""
    from cer_pipeline.report.score_table import COLUMNS, NOTES, RIGHT, score_rows, without_score

    rows = [tuple(safe(cell) for cell in row) for row in score_rows(cells)]
    print_table(f"Evaluation of {name}", COLUMNS, rows, right=RIGHT)
    out = console()
    out.print(NOTES)
    for line in without_score(cells):
        out.print(safe(line), soft_wrap=True)
