"""What of a training's scores is shown at a glance.

Belongs here: finding scores in the nested JSON that a training leaves, as rows for people. Does not belong here:
computing any score (`metrics`).

A score is a number, or [value, low, high] with its 95 % interval, in percent, under a name of `SHOWN`; the names above
it say of which system and split it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cer_pipeline.markdown import table

SHOWN: Final = ("macro_f1", "uar")


def score_rows(scores: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    """Rows (of what, metric, "value [low, high]") for every score, in the order of the file."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from score_rows(value, (*path, name))
        elif name in SHOWN and (text := _span(value)):
            yield " / ".join(path) or "all", name, text


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores as plain numbers for the curves of the UI: "dev / all views / macro_f1" -> 41.8."""
    found = {}
    for of_what, metric, text in score_rows(scores):
        found[metric if of_what == "all" else f"{of_what} / {metric}"] = float(text.split()[0])
    return found


def scores_markdown(scores: Mapping[str, Any]) -> str:
    """The rows as a Markdown table."""
    columns = ("of what", "metric", "percent [95 %]")
    return table(columns, score_rows(scores), columns[2:])


def _span(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.2f}"
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value):
        return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"
    return ""
