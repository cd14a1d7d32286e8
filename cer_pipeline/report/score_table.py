"""The scores of a corpus as a table of text, with one row for every system of every split.

Belongs here: the columns of the table and the format of numbers. Does not belong here: computing scores
(`evaluation`) or printing them (`cli`, `assets`, `evaluation_page`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cer_pipeline.evaluation.protocols import ALL, FRAME, PAIRED, SEGMENT, UNION, MetricRow
from cer_pipeline.evaluation.read import FUSED, PFSA, PPA

COLUMNS: Final = (
    "units",
    "system",
    "n",
    "coverage",
    "macro-F1 [95 %]",
    "UAR [95 %]",
    "average",
    "union F1 UAR",
    "all F1 UAR",
    "ECE",
    "against",
)
RIGHT: Final = ("n", "coverage", "average", "ECE")
NOTES: Final = (
    "Percent. Classes of macro-F1 and UAR: those that the corpus annotates; union: those labelled or predicted (the "
    "paper's rule). n and coverage: labelled units with a value; all: every labelled unit, one without a value counts "
    "as wrong. against: macro-F1 of the fusion (compounds: of PPA) minus that of the system, over units that both "
    "predict; in the row of pfsa: pfsa minus ppa. Intervals: 95 %, over resampled source videos."
)


def score_rows(cells: Iterable[MetricRow]) -> list[tuple[str, ...]]:
    """Return one row (`COLUMNS`) for every system of every split and level."""
    known = {(c.split, c.protocol, c.system, c.metric): c for c in cells}
    levels = [(split, level) for split in sorted({c.split for c in known.values()}) for level in (SEGMENT, FRAME)]
    rows = []
    for split, level in levels:
        systems = {s for a, b, s, _ in known if a == split and b == level}
        rows += [_row(known, split, level, system) for system in sorted(systems, key=rank)]
    return rows


def without_score(cells: Iterable[MetricRow]) -> list[str]:
    """Return one line for every status and reason that leaves systems without a score, with these systems."""
    systems: dict[tuple[str, str | None], list[str]] = {}
    for cell in cells:
        if cell.metric == "macro_f1" and cell.value is None and cell.protocol in (SEGMENT, FRAME):
            systems.setdefault((cell.status, cell.reason), []).append(f"{cell.system} ({cell.split} {cell.protocol})")
    return [
        f"no score: {', '.join(sorted(set(names)))}: {status}{f', {reason}' if reason else ''}"
        for (status, reason), names in sorted(systems.items(), key=lambda item: str(item[0]))
    ]


def rank(system: str) -> tuple[int, str]:
    """Return the sort key of a system: branches, fused, compounds of single branches, ppa, pfsa."""
    last = {FUSED: 1, PPA: 3, PFSA: 4}
    return last.get(system, 2 if system.endswith(f"/{PPA}") else 0), system


def paired_name(system: str) -> str | None:
    """Return the comparison of the row of a system: `fused - BRANCH`, `ppa - BRANCH/ppa` or `pfsa - ppa`."""
    if system in (FUSED, PPA):
        return None
    if system == PFSA:
        return f"{PFSA} - {PPA}"
    return f"{PPA if system.endswith(f'/{PPA}') else FUSED} - {system}"


def interval(cell: MetricRow | None, signed: bool = False) -> str:
    """Return a value with its interval, such as 42.18 [37.2, 46.8]; the status if there is no value."""
    if cell is None:
        return ""
    if cell.value is None:
        return cell.status
    text = f"{cell.value:+.2f}" if signed else f"{cell.value:.2f}"
    return text if cell.low is None else f"{text} [{cell.low:.1f}, {cell.high:.1f}]"


def _row(known: Mapping[tuple[str, str, str, str], MetricRow], split: str, level: str, system: str) -> tuple[str, ...]:
    def cell(metric: str, kind: str = "", name: str = system) -> MetricRow | None:
        return known.get((split, f"{level}{kind}", name, metric))

    def pair(kind: str) -> str:
        both = (cell("macro_f1", kind), cell("uar", kind))
        return " ".join(f"{c.value:.1f}" for c in both if c is not None and c.value is not None)

    main = cell("macro_f1")
    assert main is not None
    average, ece, other = cell("average"), cell("ece"), paired_name(system)
    return (
        f"{split} {level}",
        system,
        str(main.n),
        f"{100 * main.coverage:.1f}",
        interval(main),
        interval(cell("uar")) if main.value is not None else "",
        f"{average.value:.2f}" if average is not None and average.value is not None else "",
        pair(UNION),
        pair(ALL),
        f"{ece.value:.2f}" if ece is not None and ece.value is not None else "",
        interval(cell("macro_f1", PAIRED, other), signed=True) if other else "",
    )
