"""Tables 1 and 2 of the paper, cell by cell: the printed value, and the value measured here or the data that it needs.

Belongs here: which score fills which cell, and what a cell without a score needs. Does not belong here: measuring
scores (`caption_benchmark` for caption files, `evaluation` for registered corpora) or printing (`cli`).

Where the profile has another model for the task of a row, its system stands for that of the paper. A fusion fills a row
only where the corpus was run with exactly the branches that stand for the IDs of the row.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

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
PROFILE: Final = "--profile paper"
TRAINED_ON: Final = ("afew", "affwild2")
"""Corpora on which the paper trains every head together (section 4.1)."""


@dataclass(frozen=True)
class PaperCell:
    """One number of the paper and the measured one.

    Args:
        table: "1" or "2".
        id: row of Table 1, or the method of Table 2; "-" for a system that the paper does not have.
        model: name of the row in the paper.
        system: system of this project that stands for it; empty where none does.
        corpus: corpus of the column.
        metric: macro_f1, uar or average; macro_f1_ppa or macro_f1_pfsa on C-EXPR-DB.
        paper: printed value, percent; None where the paper has none.
        value: measured value, percent; None where it was not measured.
        low: lower end of its 95 % interval.
        high: upper end.
        union: measured value by the paper's rule for classes, where it differs.
        n: number of units scored.
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
    value: float | None = None
    low: float | None = None
    high: float | None = None
    union: float | None = None
    n: int = 0
    coverage: float | None = None
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """The scores of one corpus of the paper.

    Args:
        cells: of the split that the paper reports.
        source: data and command.
        whole: whether the whole pipeline was run on a registered corpus, and not the captions alone.
    """

    cells: tuple[MetricRow, ...]
    source: str
    whole: bool

    def find(self, system: str, metric: str, protocol: str) -> MetricRow | None:
        """Return the score of a system; None where it has no value."""
        key = (system, metric, protocol)
        return next((c for c in self.cells if (c.system, c.metric, c.protocol) == key and c.value is not None), None)

    @property
    def branches(self) -> set[str]:
        """The branches with a value for at least one unit."""
        systems = {c.system for c in self.cells if c.protocol == SEGMENT and c.value is not None}
        return {name for name in systems if "/" not in name} - {FUSED, PPA, PFSA}


def paper() -> dict[str, Any]:
    """Return the numbers of the paper: `table1`, `table2` and `footnotes`."""
    return tomllib.loads((resources.files("cer_pipeline.reproduce") / "paper_results.toml").read_text("utf-8"))


def data_folder(option: Path | None, variable: str) -> Path | None:
    """Return the folder of data: the option, else the variable `CER_DATA` of the environment, else None.

    Raises:
        CerError: it does not exist.
    """
    folder = option or (Path(variable) if variable else None)
    if folder is not None and not folder.is_dir():
        where = f"{folder}" if option else f"{folder} (from {DATA_VARIABLE})"
        raise CerError("the data folder does not exist", where, f"name a folder that holds {CAPTIONS}/{AFEW}")
    return folder


def caption_folder(data: Path | None, corpus: str) -> Path | None:
    """Return the folder of the caption files of a corpus; None where the data has none."""
    folder = data / CAPTIONS / corpus if data is not None else None
    return folder if folder is not None and folder.is_dir() else None


def registered(home: Home) -> dict[str, list[Measured]]:
    """Return the scores of the registered corpora of the paper, by their name in the paper."""
    scores: dict[str, list[Measured]] = {}
    for name in registry.names(home.root):
        corpus = registry.load(home.root, name)
        kind = _paper_name(corpus)
        if kind is None:
            continue
        try:
            cells = read_metrics(home, name)
        except CerError:
            continue  # not evaluated yet: its cells name the command
        evaluated = {c.split for c in cells}
        split = next((s for s in SPLITS[kind] if s in evaluated), None)
        if split is not None:
            source = f"corpus {name}, split {split}: cer evaluate {name} --split {split}"
            of_split = tuple(c for c in cells if c.split == split)
            scores.setdefault(kind, []).append(Measured(of_split, source, whole=True))
    return scores


def _paper_name(corpus: Corpus) -> str | None:
    by_format = {layout: kind for kind, layout in CORPORA.items()}
    if corpus.format == CAPTIONS:
        return corpus.root.name if corpus.root.name in CORPORA else None
    return by_format.get(corpus.format)


def cells(measured: Mapping[str, Sequence[Measured]]) -> list[PaperCell]:
    """Return every cell of both tables, then those of the systems that the paper does not have.

    Args:
        measured: name of the corpus in the paper -> scores; the first with a value is taken.
    """
    numbers = paper()
    first = (cell for row in numbers["table1"] for cell in _table1(row, measured))
    second = (_table2(row, measured) for row in numbers["table2"])
    return [*first, *second, *_other_systems(measured)]


class Hit(NamedTuple):
    """A score for a cell, the data and command that gave it, and the score by the paper's rule for classes."""

    score: MetricRow
    source: str
    union: MetricRow | None


def _table1(row: Mapping[str, Any], measured: Mapping[str, Sequence[Measured]]) -> Iterator[PaperCell]:
    system, notes = row.get("ours", row["paper"]), tuple(row.get("notes", ()))
    for corpus, layout in CORPORA.items():
        printed = dict(zip(METRICS, row.get(layout, ()), strict=False))
        printed |= {f"macro_f1_{m}": row[m] for m in MAPPINGS if m in row and corpus == CEXPR}
        for metric in METRICS if corpus != CEXPR else tuple(f"macro_f1_{m}" for m in MAPPINGS):
            cell = PaperCell("1", row["id"], row["model"], system, corpus, metric, printed.get(metric), notes=notes)
            as_published = {"ours": row["paper"]}
            hit = _lookup(as_published, corpus, metric, measured.get(corpus, ()))
            if hit:
                cell = replace(cell, system=row["paper"])
            yield _filled(cell, hit or _lookup(row, corpus, metric, measured.get(corpus, ())), _needs(row, corpus))


def _table2(row: Mapping[str, Any], measured: Mapping[str, Sequence[Measured]]) -> PaperCell:
    system, notes = row.get("ours", ""), tuple(row.get("notes", ()))
    model = f"{row['method']} ({row['setup']})"
    cell = PaperCell("2", row["method"], model, system, CEXPR, "macro_f1", row["macro_f1"], notes=notes)
    if not system:
        return replace(cell, source="as published by its authors; no system of this project")
    as_table1 = next(r for r in paper()["table1"] if r.get("pfsa_ours"))
    return _filled(cell, _lookup(as_table1, CEXPR, "macro_f1_pfsa", measured.get(CEXPR, ())), _needs(as_table1, CEXPR))


def _other_systems(measured: Mapping[str, Sequence[Measured]]) -> Iterator[PaperCell]:
    """Cells of systems that stand for no row: single views, and the fusion of all branches that were run."""
    for corpus, several in measured.items():
        for one in several:
            systems = dict.fromkeys(c.system for c in one.cells if " " in c.system and " - " not in c.system)
            systems |= {FUSED: None} if one.whole else {}
            for system in systems:
                model = "all branches that ran" if system == FUSED else "one caption view"
                for metric in METRICS:
                    if hit := _hit(one, system, metric, SEGMENT):
                        yield _filled(PaperCell("1", "-", model, system, corpus, metric, None), hit, "")


def _lookup(row: Mapping[str, Any], corpus: str, metric: str, several: Sequence[Measured]) -> Hit | None:
    return next((hit for one in several if (hit := _lookup_one(row, corpus, metric, one))), None)


def _lookup_one(row: Mapping[str, Any], corpus: str, metric: str, one: Measured) -> Hit | None:
    system = row.get("ours")
    if system is None or (system == FUSED and set(row["branches"]) != one.branches):
        return None
    if corpus != CEXPR:
        return _hit(one, system, metric, SEGMENT)
    if metric.rpartition("_")[2] == PFSA:
        system = PFSA if row.get("pfsa_ours") else None
    else:
        system = PPA if system == FUSED else f"{system}/{PPA}"
    for protocol in (FRAME, SEGMENT) if system else ():  # the server of the challenge scores frames
        if hit := _hit(one, system or "", "macro_f1", protocol):
            return hit._replace(source=f"{one.source} ({protocol}s)")
    return None


def _hit(one: Measured, system: str, metric: str, protocol: str) -> Hit | None:
    score = one.find(system, metric, protocol)
    return Hit(score, one.source, one.find(system, metric, protocol + UNION)) if score else None


def _filled(cell: PaperCell, hit: Hit | None, needs: str) -> PaperCell:
    """The cell with its score, or with what it needs."""
    if hit is None:
        return replace(cell, source=needs)
    score = hit.score
    union = hit.union.value if hit.union is not None and hit.union.value != score.value else None
    return replace(
        cell, value=score.value, low=score.low, high=score.high, union=union, n=score.n, coverage=score.coverage,
        source=hit.source,
    )  # fmt: skip


def _needs(row: Mapping[str, Any], corpus: str) -> str:
    """The data that a cell needs, the commands that fill it by the profile paper, and those of the stand-in."""
    layout = CORPORA[corpus]
    labelled = corpus == CEXPR  # the others come with their labels
    add = {name: f"cer corpus add {name} DIR --format {name}" for name in CORPORA.values()}
    add["cexpr"] += " --labels LABELS.csv"
    evaluate = f"cer evaluate {layout}" + ("" if labelled else " --split dev")
    needs = f"needs {'labels of ' if labelled else ''}{corpus}"
    heads: Sequence[str] = row.get("heads", ())
    corpora = [layout, *(TRAINED_ON if heads else ())]
    steps = [add[name] for name in dict.fromkeys(corpora)]
    if heads:
        select = " or ".join(f'+key:"features/{head}"' for head in heads)  # the trainings read these tables
        steps += [f"cer run {name} {PROFILE} --select '{select}'" for name in TRAINED_ON]
        steps += [f"cer train {head} {PROFILE} --corpora {','.join(TRAINED_ON)}" for head in heads]
    fused = ""
    if row.get("ours") == FUSED:
        steps += [f"cer run {name} {PROFILE}" for name in TRAINED_ON]
        steps.append(f"cer train mhpf {PROFILE} --corpora {','.join(TRAINED_ON)}")
        fused = " --set fusion.method=static"
    steps += [f"cer run {layout} {PROFILE}{fused}", evaluate]
    text = f"{needs}: {' && '.join(steps)}"
    if system := row.get("ours"):
        text += f"; for {system} of the profile embedded: {' && '.join(_stand_in(row, layout, add[layout], evaluate))}"
    return text


def _stand_in(row: Mapping[str, Any], layout: str, add: str, evaluate: str) -> list[str]:
    """The commands that fill a cell by the system of the profile embedded that stands for its row."""
    run = f"cer run {layout}"
    training = [run, f"cer train {row['ours']} --corpora {layout}"] if row.get("train") else []  # it reads features
    names = ", ".join(f'"{name}"' for name in row.get("branches", ()))
    return [add, *training, run + (f" --set 'branches.enabled=[{names}]'" if names else ""), evaluate]
