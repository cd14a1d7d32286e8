"""The rule for which predictions reports and exports show as an expression.

Belongs here: the rule, and the label of a prediction that it rejects. Does not belong here: the measures that it reads
(`fusion.uncertainty`), the choice of its thresholds (`reproduce.clear_expression_study`), or output (`report`,
`export`).

The tables keep every probability. PPA normalises without Neutral and Other, so the compounds of a neutral face sum to 1
as well, with about 1/7 each, and the largest of them is noise. A compound is *clear* where `expressed` and its margin
over the second compound reach their thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cer_pipeline.arrow import matrix
from cer_pipeline.fusion.combine import Array, Mask
from cer_pipeline.fusion.uncertainty import confidence, expressed
from cer_pipeline.labels import COMPOUND
from cer_pipeline.profiles import REPORT, Profile
from cer_pipeline.stage import Inputs
from cer_pipeline.tables import COMPOUNDS, FRAME_PREDICTIONS

FUSED: Final = "fused"
MEASURED: Final[dict[str, tuple[str, ...]]] = {
    FUSED: ("expressed",),
    COMPOUNDS.name: ("expressed", "confidence"),
    FRAME_PREDICTIONS.name: ("expressed", "compound_confidence"),
}
"""Tables that the rule applies to, and the columns that it reads."""
UNCLEAR: Final = "no clear expression"


@dataclass(frozen=True)
class Clear:
    """The thresholds of a profile.

    Args:
        least_expressed: least probability of the six expressions together, 0..1.
        least_confidence: least margin of the first compound over the second, 0..1.
    """

    least_expressed: float
    least_confidence: float

    @classmethod
    def of(cls, profile: Profile) -> Clear:
        """Return the thresholds of a profile."""
        section = profile[REPORT]
        return cls(float(section["least_expressed"]), float(section["least_confidence"]))

    def holds(self, expressed_: Array, confidence_: Array) -> Mask:
        """Whether an expression is clear; False where a measure is NaN.

        Args:
            expressed_: probability of the six expressions together [...].
            confidence_: margin between the compounds [...].
        """
        return (expressed_ >= self.least_expressed) & (confidence_ >= self.least_confidence)

    def of_values(self, basic: Array, compound: Array) -> Mask:
        """Whether an expression is clear, from the distributions [..., 8] and [..., 7]."""
        return self.holds(expressed(basic), confidence(compound))


def clear_rows(inputs: Inputs, table: str, rule: Clear) -> str:
    """Text with the number of rows of a table that show a clear expression; empty for a table without the rule.

    `compound` counts the rows of all methods. `fused` has no compound, so it counts rows whose `expressed` is enough.

    Args:
        inputs: tables of the shard.
        table: table name.
        rule: thresholds.
    """
    if table not in MEASURED:
        return ""
    numbers = matrix(inputs.table(table, MEASURED[table]), MEASURED[table])
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    if table == FUSED:
        return f"{int((numbers[:, 0] >= rule.least_expressed).sum()):,} of {len(numbers):,} express enough"
    return f"{int(rule.holds(numbers[:, 0], numbers[:, 1]).sum()):,} of {len(numbers):,} clear"


def named(compound: Array, clear: Mask) -> list[str | None]:
    """Labels of some predictions for reports and exports.

    Args:
        compound: distributions over the compounds [n, 7]; NaN without a value.
        clear: whether each prediction is clear [n].

    Returns:
        Per prediction the most probable compound, or `UNCLEAR`; None without a value.
    """
    known: Mask = np.asarray(np.isfinite(compound).all(axis=1))
    top = np.where(known, np.nan_to_num(compound).argmax(axis=1), 0)
    return [
        None if not has_value else COMPOUND[k] if is_clear else UNCLEAR
        for has_value, k, is_clear in zip(known.tolist(), top.tolist(), clear.tolist(), strict=True)
    ]
