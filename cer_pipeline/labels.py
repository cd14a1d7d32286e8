"""The two label sets, their orders, and the two basic emotions of every compound expression.

Belongs here: names and orders that tables, models and reports share.
Does not belong here: the native order of a model (see its zoo entry) or any computation on probabilities.

Sources: orders of the corpora AffWild2 (basic) and C-EXPR-DB (compound); compound pairs from section 3.7 of
"Team RAS in 9th ABAW Competition: Multimodal Compound Expression Recognition Approach".
"""

from __future__ import annotations

from typing import Final

BASIC: Final[tuple[str, ...]] = (
    "Neutral",
    "Anger",
    "Disgust",
    "Fear",
    "Happiness",
    "Sadness",
    "Surprise",
    "Other",
)
"""The 8 basic emotions, in the order of every probability vector of this project."""

TRAINED_CLASSES: Final[tuple[int, ...]] = tuple(range(len(BASIC) - 1))
"""Indices into `BASIC` of the classes of the heads that are trained here. "Other" has no training data; it gets 0."""

COMPOUND: Final[tuple[str, ...]] = (
    "Fearfully Surprised",
    "Happily Surprised",
    "Sadly Surprised",
    "Disgustedly Surprised",
    "Angrily Surprised",
    "Sadly Fearful",
    "Sadly Angry",
)
"""The 7 compound expressions, in the order of C-EXPR-DB."""

COMPOUND_PAIRS: Final[tuple[tuple[str, str], ...]] = (
    ("Fear", "Surprise"),
    ("Happiness", "Surprise"),
    ("Sadness", "Surprise"),
    ("Disgust", "Surprise"),
    ("Anger", "Surprise"),
    ("Sadness", "Fear"),
    ("Sadness", "Anger"),
)
"""The two basic emotions of each compound, in the order of `COMPOUND`. Neutral and Other are part of none."""


def column(label: str) -> str:
    """Return the table column with the probability of a label: "Sadly Angry" -> "p_sadly_angry"."""
    return "p_" + label.lower().replace(" ", "_")


BASIC_COLUMNS: Final[tuple[str, ...]] = tuple(column(label) for label in BASIC)
COMPOUND_COLUMNS: Final[tuple[str, ...]] = tuple(column(label) for label in COMPOUND)
