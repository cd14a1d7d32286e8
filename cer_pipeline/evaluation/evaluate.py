"""The evaluation of a corpus as a whole: which systems are scored and compared, and the table that it makes.

Belongs here: the list of comparisons, writing and reading the table `metrics`. Does not belong here: formulas
(`metrics`), protocols (`protocols`), pictures (`report`).

The table is a function of the tables that it is made from: while their content stays, it is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.protocols import MetricRow, compare, score
from cer_pipeline.evaluation.read import FUSED, PFSA, PPA, Scored, inputs_digest, read
from cer_pipeline.metrics import RESAMPLES
from cer_pipeline.store.files import exclusive
from cer_pipeline.store.fingerprint import content_digests, digest
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import Footer, conform, read_footer, read_table, write_table

CODE_VERSION: Final = "3"  # changed by hand whenever a number would change for the same tables
SHARD: Final = "all"  # the table answers for the whole corpus
TRAIN: Final = "train"
DECIMALS: Final = 6  # of what machines read


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation made.

    Args:
        corpus: name of the corpus.
        rows: every number.
        footer: of the table.
        unchanged: whether the table on disk already answered the same inputs.
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
        resamples: number of resamples behind every interval.

    Raises:
        CerError: no such corpus, no labels, or tables that have not been made.
    """
    path = home.table(tables.METRICS.name, name, SHARD)
    with exclusive(home.lock(tables.METRICS.name, name, SHARD)):
        plan = digest(CODE_VERSION, str(resamples), inputs_digest(home, name))
        footer = read_footer(path)
        if footer is not None and footer.plan == plan:
            return Evaluation(name, tuple(read_metrics(home, name)), footer, True)
        cells = [cell for scored in read(home, name) for cell in metric_rows(scored, resamples)]
        table = _stored(cells, plan)
        footer = write_table(path, tables.METRICS, [table], plan, units=1)
    return Evaluation(name, tuple(read_metrics(home, name)), footer, False)


def metric_rows(scored: Scored, resamples: int = RESAMPLES) -> Iterator[MetricRow]:
    """All numbers of one task: every system under every protocol, every branch against its fusion, PFSA against PPA."""
    for system in scored.systems:
        yield from score(scored.task, system, resamples)
    for first, second in _pairs(scored):
        yield from compare(scored.task, first, second, resamples)


def _pairs(scored: Scored) -> Iterator[tuple[Any, Any]]:
    """The fusion against every branch (both as PPA maps them, for compounds), and PFSA against PPA."""
    reference = scored.system(FUSED) or scored.system(PPA)
    for system in scored.systems:
        if reference is None or system is reference:
            continue
        yield (system, reference) if system.name == PFSA else (reference, system)


def _stored(cells: Sequence[MetricRow], plan: str) -> pa.Table:
    """Rows in key order with the store's columns."""
    spec = tables.METRICS
    rows = conform(spec, pa.Table.from_pylist([asdict(cell) for cell in cells], schema=spec.schema))
    rows = rows.sort_by([(name, "ascending") for name in spec.key])
    content = content_digests(rows, [0]) * rows.num_rows  # all rows are made at once, so they are one unit
    rows = rows.append_column("row_key", pa.array([plan] * rows.num_rows, pa.string()))
    return rows.append_column("content", pa.array(content, pa.string()))


def read_metrics(home: Home, name: str) -> list[MetricRow]:
    """The numbers of the last evaluation of a corpus.

    Raises:
        CerError: it has not been evaluated.
    """
    path = home.table(tables.METRICS.name, name, SHARD)
    if not path.is_file():
        raise CerError("the corpus has not been evaluated", name, f"run `cer evaluate {name}`")
    names = [column.name for column in tables.METRICS.columns]
    return [MetricRow(**row) for row in read_table(path, names).to_pylist()]


def select_split(cells: Iterable[MetricRow], corpus: str, split: str | None = None) -> list[MetricRow]:
    """The cells of one split; of every split but `train` unless one is named, or unless there is no other.

    Heads may have been trained on the split `train`, so its scores are shown only when asked for.

    Raises:
        CerError: no cell is of that split.
    """
    cells = list(cells)
    there = sorted({cell.split for cell in cells})
    if split is not None and split not in there:
        raise CerError(f"no labelled segment or frame of the split {split!r}", corpus, f"it has: {', '.join(there)}")
    wanted = {split} if split is not None else set(there) - {TRAIN} or set(there)
    return [cell for cell in cells if cell.split in wanted]


def record(cell: MetricRow, corpus: str) -> dict[str, Any]:
    """A cell for machines."""
    values = {name: None if v is None else round(v, DECIMALS) for name, v in _numbers(cell).items()}
    names = {"system": cell.system, "corpus": corpus, "split": cell.split, "protocol": cell.protocol}
    return names | {"metric": cell.metric} | values | {"n": cell.n, "coverage": round(cell.coverage, DECIMALS)}


def _numbers(cell: MetricRow) -> dict[str, float | None]:
    return {"value": cell.value, "low": cell.low, "high": cell.high}
