"""The main scores of a training, for tables and the UI.

Belongs here: selecting scores from the nested JSON that a training writes. Does not belong here: computing any score
(`metrics`).

A score is a number, or [value, low, high] with its 95 % interval, in percent, under a name of `SHOWN`; the names above
it say of which system and split it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cer_pipeline.training.model_card import score_text

SHOWN: Final = ("macro_f1", "uar")


def score_rows(scores: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    """Rows (of what, metric, "value [low, high]") for every score, in the order of the file."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from score_rows(value, (*path, name))
        elif name in SHOWN and (text := _text(value)):
            yield " / ".join(path) or "all", name, text


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores as plain numbers for the curves of the UI: "dev / all views / macro_f1" -> 41.8."""
    return {
        metric if of_what == "all" else f"{of_what} / {metric}": float(text.split()[0])
        for of_what, metric, text in score_rows(scores)
    }


def _text(value: Any) -> str:
    """Return a score as cards print it; empty for what is no score."""
    parts = value if isinstance(value, list | tuple) and len(value) == 3 else [value]
    is_score = all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts)
    return score_text(value) if is_score else ""
