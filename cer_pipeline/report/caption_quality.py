"""What the answers of vision-language models were, by view, as plain data.

Belongs here: one record for every view of `captions`. Does not belong here: what an answer is
(`perception.captions.quality`, which writes it in front of a row's reason) or showing the records (`cli`, `assets`).

The views of the rule-based captioner are left out: it writes its texts to a form.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cer_pipeline.perception.captions.quality import Answer, labels_in
from cer_pipeline.perception.captions.registry import IMPORTED, RULE_BASED_VIEW
from cer_pipeline.status import Status

COLUMNS = ("view", "text", "status", "reason")
"""Columns of `captions` that are read."""


@dataclass(frozen=True)
class ViewQuality:
    """The rows of a view.

    Args:
        view: the view.
        rows: number of rows.
        ok: rows with a text.
        words_p5: 5th percentile of the number of words of the texts; None without a text, as the next three.
        words_median: median.
        words_p95: 95th percentile.
        one_label: share of the texts that name exactly one basic emotion or compound.
        empty: answers without a word.
        refused: refusals.
        cut_off: answers that reached the largest number of tokens.
        too_long: answers of more words than `longest_words`.
        wrong_language: answers in another language than English.
        label_only: answers that are a label.
        without_answer: requests that failed.
        other: rows without a text for another reason, such as a window without pictures.
    """

    view: str
    rows: int
    ok: int
    words_p5: float | None
    words_median: float | None
    words_p95: float | None
    one_label: float | None
    empty: int
    refused: int
    cut_off: int
    too_long: int
    wrong_language: int
    label_only: int
    without_answer: int
    other: int


def caption_quality(tables: Iterable[pa.Table]) -> list[ViewQuality]:
    """The quality of each view, sorted by name.

    Args:
        tables: rows of `captions`, one table a shard, with `COLUMNS`.
    """
    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for table in tables:
        for row in table.select(list(COLUMNS)).to_pylist():
            if row["view"] not in (RULE_BASED_VIEW, IMPORTED.name):
                rows[row["view"]].append(row)
    return [_quality(view, rows[view]) for view in sorted(rows)]


def quality_table(views: Iterable[ViewQuality]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Names of columns and rows of text, for a terminal; outcomes that no view has are left out."""
    records = [asdict(view) for view in views]
    names = [n for n in ViewQuality.__annotations__ if n not in _OUTCOMES or any(record[n] for record in records)]
    return tuple(n.replace("_", " ") for n in names), [tuple(_shown(n, record[n]) for n in names) for record in records]


_KINDS = [kind for kind in Answer if kind is not Answer.OK]
_OUTCOMES = (*map(str, _KINDS), "without_answer", "other")


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "one_label":
        return f"{100 * value:.0f}%"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _quality(view: str, rows: list[dict[str, Any]]) -> ViewQuality:
    texts = [row["text"] for row in rows if row["status"] == Status.OK]
    words = [len(text.split()) for text in texts]
    low, middle, high = np.percentile(words, [5, 50, 95]).tolist() if texts else (None, None, None)
    outcomes = Counter(_outcome(row) for row in rows if row["status"] != Status.OK)
    return ViewQuality(
        view=view,
        rows=len(rows),
        ok=len(texts),
        words_p5=low,
        words_median=middle,
        words_p95=high,
        one_label=sum(len(labels_in(text)) == 1 for text in texts) / len(texts) if texts else None,
        **{name: outcomes[name] for name in _OUTCOMES},
    )


def _outcome(row: dict[str, Any]) -> str:
    kind = (row["reason"] or "").partition(":")[0]
    if row["status"] == Status.FAILED:
        return "without_answer"
    return kind if kind in _KINDS else "other"
