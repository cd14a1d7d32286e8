"""Model cards of trained heads: one Markdown document of the same sections for every head.

Belongs here: the sections, their order, and how settings, digests and scores are printed. Does not belong here: any
sentence or number about a certain head (the trainer of that head) or the Markdown syntax (`markdown`).

The sections follow Mitchell et al. 2019, "Model Cards for Model Reporting": what the model is, the data with its
licence, the protocol, the scores, and the limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cer_pipeline import metrics
from cer_pipeline.markdown import bullets, paragraph, table

Value = float | Sequence[float]
"""A score in percent, or [value, low, high] with its 95 % interval."""


def model_card(
    title: str,
    summary: str,
    *,
    data: Sequence[str],
    digests: Mapping[str, str],
    settings: Mapping[str, Any],
    protocol: Sequence[str],
    scores: Sequence[str],
    limits: str = "",
) -> str:
    """Return the card of a head, in Markdown.

    Args:
        title: name of the head, and what it maps to what.
        summary: what the model is.
        data: training data and other models with their licences, an item each.
        digests: name of a file or of data -> SHA-256.
        settings: settings of the training.
        protocol: how settings were chosen and scores were made, an item each.
        scores: paragraphs and tables.
        limits: for what input the scores do not hold.
    """
    sections = {
        "Data and licence": [
            bullets(data),
            "SHA-256:",
            "\n".join(f"- `{name}` {digest}" for name, digest in digests.items()),
        ],
        "Protocol": [bullets([*protocol, f"Settings: `{json.dumps(settings)}`."])],
        "Scores, percent": scores,
        "Limits": [paragraph(limits)] if limits else [],
    }
    blocks = [f"# {title}", paragraph(summary)]
    for heading, content in sections.items():
        blocks += [f"## {heading}", *content] if content else []
    return "\n\n".join(blocks) + "\n"


def score_text(value: Value) -> str:
    """Return a score as cards print it: "43.84 [38.43, 48.84]", or "63.36" without an interval."""
    return f"{value:.2f}" if isinstance(value, int | float) else metrics.span(value)


def score_table(columns: Sequence[str], rows: Iterable[tuple[str, *tuple[Value, ...]]]) -> str:
    """Return a table of scores: a name, then a score for each of the other columns."""
    return table(columns, ([name, *map(score_text, values)] for name, *values in rows), columns[1:])


def class_table(f1: Mapping[str, Value], recall: Mapping[str, Value], heading: str = "class") -> str:
    """Return the table of F1 and recall by class."""
    return score_table([heading, "F1", "recall"], ((name, f1[name], recall[name]) for name in f1))
