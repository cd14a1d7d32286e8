"""Evaluate a corpus: the systems that are scored and compared, and the table `metrics`.

Belongs here: the list of comparisons, writing and reading the table `metrics`. Does not belong here: formulas
(`metrics`), protocols (`protocols`) or plots (`report`).

The table is a function of the tables that it is computed from, and is kept while their content stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.protocols import MetricRow, compare, score
from cer_pipeline.evaluation.read import FUSED, PFSA, PPA, Scored, inputs_digest, read
from cer_pipeline.metrics import RESAMPLES
from cer_pipeline.store.files import exclusive
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import Footer, add_store_columns, read_footer, read_table, write_table

CODE_VERSION: Final = "3"  # changed by hand whenever a number would change for the same tables
SHARD: Final = "all"  # the table has one file per corpus
TRAIN: Final = "train"
DECIMALS: Final = 6  # of numbers in machine-readable output


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Args:
        corpus: name of the corpus.
        rows: all rows of the table.
        footer: footer of the table.
        unchanged: whether the table on disk was already computed from the same inputs.
    """

    corpus: str
    rows: tuple[MetricRow, ...]
    footer: Footer
    unchanged: bool


def evaluate(home: Home, name: str, resamples: int = RESAMPLES) -> Evaluation:
    """Score every system of a corpus on every labelled split, and write the table `metrics`.

    Args:
        home: the home folder.
        name: the corpus.
        resamples: number of resamples of every interval.

    Raises:
        CerError: no such corpus, no labels, or a missing table.
    """
    path = home.table(tables.METRICS.name, name, SHARD)
    with exclusive(home.lock(tables.METRICS.name, name, SHARD)):
        plan = digest(CODE_VERSION, str(resamples), inputs_digest(home, name))
        footer = read_footer(path)
        if footer is not None and footer.plan == plan:
            return Evaluation(name, tuple(read_metrics(home, name)), footer, True)
        metrics = [row for scored in read(home, name) for row in metric_rows(scored, resamples)]
        rows = pa.Table.from_pylist([asdict(row) for row in metrics], schema=tables.METRICS.schema)
        table = add_store_columns(tables.METRICS, rows, plan)  # all rows are computed at once, so they are one unit
        footer = write_table(path, tables.METRICS, [table], plan, units=1)
    return Evaluation(name, tuple(read_metrics(home, name)), footer, False)


def metric_rows(scored: Scored, resamples: int = RESAMPLES) -> Iterator[MetricRow]:
    """All rows of one task: every system under every protocol, the fusion against every branch, PFSA against PPA."""
    for system in scored.systems:
        yield from score(scored.task, system, resamples)
    for first, second in _pairs(scored):
        yield from compare(scored.task, first, second, resamples)


def _pairs(scored: Scored) -> Iterator[tuple[Any, Any]]:
    """Compared systems: the fusion with every branch (for compounds both mapped by PPA), and PFSA with PPA."""
    reference = scored.system(FUSED) or scored.system(PPA)
    for system in scored.systems:
        if reference is None or system is reference:
            continue
        yield (system, reference) if system.name == PFSA else (reference, system)


def read_metrics(home: Home, name: str) -> list[MetricRow]:
    """Read the rows of the last evaluation of a corpus.

    Raises:
        CerError: the corpus has not been evaluated.
    """
    path = home.table(tables.METRICS.name, name, SHARD)
    if not path.is_file():
        raise CerError("the corpus has not been evaluated", name, f"run `cer evaluate {name}`")
    names = [column.name for column in tables.METRICS.columns]
    return [MetricRow(**row) for row in read_table(path, names).to_pylist()]


def select_split(rows: Iterable[MetricRow], corpus: str, split: str | None = None) -> list[MetricRow]:
    """The rows of one split; by default of every split but `train`, or of `train` where there is no other.

    Heads may have been trained on the split `train`, so its scores are shown only on request.

    Raises:
        CerError: no row is of that split.
    """
    rows = list(rows)
    splits = sorted({row.split for row in rows})
    if split is not None and split not in splits:
        raise CerError(f"no labelled segment or frame of the split {split!r}", corpus, f"it has: {', '.join(splits)}")
    wanted = {split} if split is not None else set(splits) - {TRAIN} or set(splits)
    return [row for row in rows if row.split in wanted]


def record(row: MetricRow, corpus: str) -> dict[str, Any]:
    """A row as a dictionary for machine-readable output."""
    numbers = {"value": row.value, "low": row.low, "high": row.high}
    return {
        "system": row.system,
        "corpus": corpus,
        "split": row.split,
        "protocol": row.protocol,
        "metric": row.metric,
        **{name: None if v is None else round(v, DECIMALS) for name, v in numbers.items()},
        "n": row.n,
        "coverage": round(row.coverage, DECIMALS),
    }
