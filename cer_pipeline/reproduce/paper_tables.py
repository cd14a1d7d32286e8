"""Tables 1 and 2 of the paper, cell by cell: the printed value beside what was measured here, or what is missing.

Belongs here: which of our scores fills which cell, and what a cell without one needs. Does not belong here: making
scores (`caption_benchmark` for caption files, `evaluate` for registered corpora) or printing (`cli`).

A row's system stands for the paper's where the profile has another model for the same job. A fusion fills a row only
where the corpus was run with exactly the branches that stand for the row's IDs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.evaluate import read_metrics
from cer_pipeline.evaluation.protocols import FRAME, SEGMENT, UNION, MetricRow
from cer_pipeline.evaluation.read import FUSED, PFSA, PPA
from cer_pipeline.store.home import Home

AFEW: Final = "AFEW"
AFFWILD2: Final = "AffWild2"
CEXPR: Final = "C-EXPR-DB"
CORPORA: Final[Mapping[str, str]] = {AFFWILD2: "affwild2", AFEW: "afew", CEXPR: "cexpr"}
"""Corpora of the paper and the formats that read them."""

SPLITS: Final[Mapping[str, tuple[str, ...]]] = {AFFWILD2: ("dev",), AFEW: ("dev",), CEXPR: ("test", "dev", "all")}
METRICS: Final = ("macro_f1", "uar", "average")
MAPPINGS: Final = (PPA, PFSA)
DATA_VARIABLE: Final = "CER_DATA"
CAPTIONS: Final = "captions"


@dataclass(frozen=True)
class PaperCell:
    """One number of the paper beside ours.

    Args:
        table: "1" or "2".
        id: row of Table 1, or the method of Table 2; "-" for a system of ours that the paper does not have.
        model: the paper's name of the row.
        system: ours that stands for it; empty where none does.
        corpus: corpus of the column.
        metric: macro_f1, uar or average; macro_f1_ppa or macro_f1_pfsa on C-EXPR-DB.
        paper: what the paper prints, percent; None where it prints nothing.
        value: ours, percent; None where it was not measured.
        low: lower end of its 95 % interval.
        high: upper end.
        union: ours by the paper's rule for classes, where the rules differ.
        n: units scored.
        coverage: share of the labelled units that the system serves.
        source: the data and the command that gave the value, or what is needed and the command that would give it.
        notes: keys of footnotes.
    """

    table: str
    id: str
    model: str
    system: str
    corpus: str
    metric: str
    paper: float | None
    value: float | None
    low: float | None
    high: float | None
    union: float | None
    n: int
    coverage: float | None
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """The scores of one corpus of the paper.

    Args:
        cells: of the split that the paper reports.
        source: data and command.
        whole: whether this is the whole pipeline over a registered corpus, not captions alone.
    """

    cells: tuple[MetricRow, ...]
    source: str
    whole: bool

    def find(self, system: str, metric: str, protocol: str) -> MetricRow | None:
        """The cell of a system, where it has a value."""
        wanted = (system, metric, protocol)
        return next((c for c in self.cells if (c.system, c.metric, c.protocol) == wanted and c.value is not None), None)

    @property
    def branches(self) -> set[str]:
        """The branches that served at least one unit, where a fusion was made of them."""
        named = {c.system for c in self.cells if c.protocol == SEGMENT and c.value is not None}
        return {name for name in named if "/" not in name} - {FUSED, PPA, PFSA}


def paper() -> dict[str, Any]:
    """The numbers of the paper: `table1`, `table2` and `footnotes`."""
    return tomllib.loads((resources.files("cer_pipeline.reproduce") / "paper_results.toml").read_text("utf-8"))


def data_folder(option: Path | None, variable: str) -> Path | None:
    """The folder of data: the option, else the environment's `CER_DATA`, else none.

    Raises:
        CerError: it does not exist.
    """
    folder = option or (Path(variable) if variable else None)
    if folder is not None and not folder.is_dir():
        where = f"{folder}" if option else f"{folder} (from {DATA_VARIABLE})"
        raise CerError("the data folder does not exist", where, f"name a folder that holds {CAPTIONS}/{AFEW}")
    return folder


def caption_folder(data: Path | None, corpus: str) -> Path | None:
    """The folder of a corpus's caption files, where the data has one."""
    folder = data / CAPTIONS / corpus if data is not None else None
    return folder if folder is not None and folder.is_dir() else None


def registered(home: Home) -> dict[str, list[Measured]]:
    """The scores of registered corpora that are those of the paper, by its name for them."""
    found: dict[str, list[Measured]] = {}
    for name in registry.names(home.root):
        corpus = registry.load(home.root, name)
        kind = _paper_name(corpus)
        if kind is None:
            continue
        try:
            cells = read_metrics(home, name)
        except CerError:
            continue  # not evaluated yet: its cells say what they need
        there = {c.split for c in cells}
        split = next((s for s in SPLITS[kind] if s in there), None)
        if split is not None:
            source = f"corpus {name}, split {split}: cer evaluate {name} --split {split}"
            mine = tuple(c for c in cells if c.split == split)
            found.setdefault(kind, []).append(Measured(mine, source, whole=True))
    return found


def _paper_name(corpus: Corpus) -> str | None:
    by_format = {layout: kind for kind, layout in CORPORA.items()}
    if corpus.format == CAPTIONS:
        return corpus.root.name if corpus.root.name in CORPORA else None
    return by_format.get(corpus.format)


def cells(measured: Mapping[str, Sequence[Measured]]) -> list[PaperCell]:
    """Every cell of both tables, then the rows of ours that the paper does not have.

    Args:
        measured: name of the paper's corpus -> scores, the first that has a value counts.
    """
    numbers = paper()
    found = [cell for row in numbers["table1"] for cell in _table1(row, measured)]
    found += [cell for row in numbers["table2"] for cell in _table2(row, measured)]
    return found + list(_own_rows(measured))


def _table1(row: Mapping[str, Any], measured: Mapping[str, Sequence[Measured]]) -> Iterator[PaperCell]:
    notes = tuple(row.get("notes", ()))
    for corpus, layout in CORPORA.items():
        printed = dict(zip(METRICS, row.get(layout, ()), strict=False))
        printed |= {f"macro_f1_{m}": row[m] for m in MAPPINGS if m in row and corpus == CEXPR}
        wanted = METRICS if corpus != CEXPR else tuple(f"macro_f1_{m}" for m in MAPPINGS)
        for metric in wanted:
            hit = _lookup(row, corpus, metric, measured.get(corpus, ()))
            source = hit[1] if hit else _needs(row, corpus)
            yield _cell(
                "1",
                row["id"],
                row["model"],
                row.get("ours", ""),
                corpus,
                metric,
                printed.get(metric),
                hit,
                source,
                notes,
            )


def _table2(row: Mapping[str, Any], measured: Mapping[str, Sequence[Measured]]) -> Iterator[PaperCell]:
    ours = row.get("ours", "")
    as_row = {"ours": "scene_minilm", "pfsa_ours": True}
    hit = _lookup(as_row, CEXPR, "macro_f1_pfsa", measured.get(CEXPR, ())) if ours else None
    other = "as published by its authors; no system of this project"
    source = hit[1] if hit else _needs(as_row, CEXPR) if ours else other
    model = f"{row['method']} ({row['setup']})"
    notes = tuple(row.get("notes", ()))
    yield _cell("2", row["method"], model, ours, CEXPR, "macro_f1", row["macro_f1"], hit, source, notes)


def _own_rows(measured: Mapping[str, Sequence[Measured]]) -> Iterator[PaperCell]:
    """What was measured and stands for no row: single views, and the fusion of all branches that ran."""
    for corpus, several in measured.items():
        for one in several:
            own = dict.fromkeys(c.system for c in one.cells if " " in c.system and " - " not in c.system)
            own |= {FUSED: None} if one.whole else {}
            for system in own:
                for metric in METRICS:
                    cell = one.find(system, metric, SEGMENT)
                    if cell is not None:
                        model = "all branches that ran" if system == FUSED else "one caption view"
                        hit = (cell, one.source, one.find(system, metric, SEGMENT + UNION))
                        yield _cell("1", "-", model, system, corpus, metric, None, hit, one.source, ())


Hit = tuple[MetricRow, str, MetricRow | None]


def _lookup(row: Mapping[str, Any], corpus: str, metric: str, several: Sequence[Measured]) -> Hit | None:
    for one in several:
        hit = _lookup_one(row, corpus, metric, one)
        if hit is not None:
            return hit
    return None


def _lookup_one(row: Mapping[str, Any], corpus: str, metric: str, one: Measured) -> Hit | None:
    system = row.get("ours")
    if system is None or (system == FUSED and set(row["branches"]) != one.branches):
        return None
    if corpus != CEXPR:
        cell = one.find(system, metric, SEGMENT)
        return (cell, one.source, one.find(system, metric, SEGMENT + UNION)) if cell else None
    mapping = metric.rpartition("_")[2]
    if mapping == PFSA:
        name = PFSA if row.get("pfsa_ours") else None
    else:
        name = PPA if system == FUSED else f"{system}/{PPA}"
    for protocol in (FRAME, SEGMENT) if name else ():  # the challenge's server scores frames
        cell = one.find(name, "macro_f1", protocol) if name else None
        if cell is not None:
            return cell, f"{one.source} ({protocol}s)", one.find(name or "", "macro_f1", protocol + UNION)
    return None


def _needs(row: Mapping[str, Any], corpus: str) -> str:
    system, layout = row.get("ours"), CORPORA[corpus]
    if system is None:
        return f"needs {corpus} and a branch over CLIP features of faces (a plug-in; none is shipped)"
    if corpus == CEXPR:
        add = f"cer corpus add {layout} DIR --format {layout} --labels LABELS.csv"
        return f"needs labels of {corpus}: {add} && cer run {layout} && cer evaluate {layout}"
    run = f"cer run {layout}"
    if row.get("train"):
        run = f"{run} && cer train {system} --corpora {layout} && {run}"  # it trains on feature tables
    if row.get("branches"):
        names = ", ".join(f'"{name}"' for name in row["branches"])
        run += f" --set 'branches.enabled=[{names}]'"
    add = f"cer corpus add {layout} DIR --format {layout}"
    return f"needs {corpus}: {add} && {run} && cer evaluate {layout} --split dev"


def _cell(
    table: str,
    id_: str,
    model: str,
    system: str,
    corpus: str,
    metric: str,
    printed: float | None,
    hit: Hit | None,
    source: str,
    notes: tuple[str, ...],
) -> PaperCell:
    cell, union = (hit[0], hit[2]) if hit else (None, None)
    other = union.value if union is not None and cell is not None and union.value != cell.value else None
    if cell is None:
        return PaperCell(
            table, id_, model, system, corpus, metric, printed, None, None, None, None, 0, None, source, notes
        )
    return PaperCell(
        table, id_, model, system, corpus, metric, printed,
        cell.value, cell.low, cell.high, other, cell.n, cell.coverage, source, notes,
    )  # fmt: skip
