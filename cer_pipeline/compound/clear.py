"""Which predictions are shown to people as an expression.

Belongs here: the rule and the words for what it rejects. Does not belong here: the numbers that it reads
(`fusion.uncertainty`), the choice of its thresholds (`reproduce.clear_expression_study`), or showing anything
(`report`, `export`).

The tables keep every probability. PPA divides Neutral and Other away, so the compounds of a calm face sum to 1 as well
and lie near 1/7 each; naming the first of them would be naming noise. A compound is *clear* where enough is expressed
at all, and where it leads the next compound by enough.
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
"""Tables of which the rule says something, and the columns that it reads."""
UNCLEAR: Final = "no clear expression"


@dataclass(frozen=True)
class Clear:
    """The thresholds of a profile.

    Args:
        least_expressed: least share that must lie on the six expressions, 0..1.
        least_confidence: least margin of the first compound over the second, 0..1.
    """

    least_expressed: float
    least_confidence: float

    @classmethod
    def of(cls, profile: Profile) -> Clear:
        """The thresholds of a profile."""
        section = profile[REPORT]
        return cls(float(section["least_expressed"]), float(section["least_confidence"]))

    def holds(self, expressed_: Array, confidence_: Array) -> Mask:
        """Where an expression is clear; False where a number is NaN.

        Args:
            expressed_: share on the six expressions [...].
            confidence_: margin between the compounds [...].
        """
        return (expressed_ >= self.least_expressed) & (confidence_ >= self.least_confidence)

    def of_values(self, basic: Array, compound: Array) -> Mask:
        """Where an expression is clear, from the distributions themselves: [..., 8] and [..., 7] to [...]."""
        return self.holds(expressed(basic), confidence(compound))


def clear_rows(inputs: Inputs, table: str, rule: Clear) -> str:
    """How many rows of a table show a clear expression, in words; empty for a table of which the rule says nothing.

    Of `compound` the rows of all methods count, of `fused` those with enough expressed, for its rows name no compound.

    Args:
        inputs: the shard.
        table: its name.
        rule: what is called a clear expression.
    """
    if table not in MEASURED:
        return ""
    numbers = matrix(inputs.table(table, MEASURED[table]), MEASURED[table])
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    if table == FUSED:
        return f"{int((numbers[:, 0] >= rule.least_expressed).sum()):,} of {len(numbers):,} express enough"
    return f"{int(rule.holds(numbers[:, 0], numbers[:, 1]).sum()):,} of {len(numbers):,} clear"


def named(compound: Array, clear: Mask) -> list[str | None]:
    """What people read of some predictions.

    Args:
        compound: distributions over the compounds [n, 7]; NaN without a value.
        clear: whether each is clear [n].

    Returns:
        For each the first compound, or `UNCLEAR`; None where there is no value.
    """
    known: Mask = np.asarray(np.isfinite(compound).all(axis=1))
    top = np.where(known, np.nan_to_num(compound).argmax(axis=1), 0)
    return [
        None if not there else COMPOUND[k] if sure else UNCLEAR
        for there, k, sure in zip(known.tolist(), top.tolist(), clear.tolist(), strict=True)
    ]
