"""Pictures of an evaluation: confusion matrix, reliability, scores with intervals.

Belongs here: drawing. Does not belong here: computing scores (`evaluation`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.chart_style import COLOURS, EMPTY, INK, LINE, QUIET, drawable, figure, ink_on, png, settings
from cer_pipeline.evaluation.protocols import MetricRow
from cer_pipeline.metrics import Reliability
from cer_pipeline.report.score_table import rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL: Final = 62  # pixels of a cell of the confusion matrix, which holds "100 %" and a count
PANEL: Final = 260  # pixels of a reliability panel
COLUMNS: Final = 4  # panels in a row
SHADE: Final = (0, 114, 178)  # RGB of a cell with 100 %: the blue of `chart_style.COLOURS`


def confusion_plot(matrix: NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """Draw counts by label (rows) and prediction (columns), shaded by the share of the row.

    Args:
        matrix: counts [classes, classes] over the whole vocabulary.
        names: the vocabulary.
        title: title of the picture.

    Returns:
        PNG, without classes that are neither labelled nor predicted.
    """
    used = np.flatnonzero((matrix.sum(0) + matrix.sum(1)) > 0)
    counts, labels = matrix[np.ix_(used, used)], [names[int(i)] for i in used]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(used)
    with settings():
        made = figure(max(520, 210 + CELL * size), 150 + CELL * size)
        axis = made.add_subplot()
        axis.set_title(drawable(title), loc="left")
        white = np.array([255, 255, 255])
        colours = (white + share[..., None] * (np.array(SHADE) - white)) / 255
        axis.imshow(colours)
        for i in range(size):
            for j in range(size):
                ink = ink_on("#" + "".join(f"{int(255 * v):02x}" for v in colours[i, j]))
                text = f"{100 * share[i, j]:.0f} %\n{counts[i, j]:,}" if counts[i, j] else ""
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
        axis.set_xticks(range(size), labels, rotation=40, ha="right", fontsize=9, color=INK)
        axis.set_yticks(range(size), labels, fontsize=9, color=INK)
        axis.set_xlabel("predicted", color=QUIET)
        axis.set_ylabel("labelled", color=QUIET)
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
        made.tight_layout()
        return png(made)


def reliability_plot(systems: Mapping[str, Reliability], title: str) -> bytes:
    """Draw accuracy over confidence, a panel for every system; the area of a point is the share of the units.

    Args:
        systems: name -> bins.
        title: title of the picture.

    Returns:
        PNG; empty if there is no system.
    """
    if not systems:
        return b""
    rows = -(-len(systems) // COLUMNS)
    columns = min(COLUMNS, len(systems))
    with settings():
        made = figure(PANEL * max(columns, 2), PANEL * rows + 40)
        made.suptitle(drawable(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
        axes = made.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(systems) :]:
            axis.set_visible(False)
        for axis, (name, bins) in zip(axes, sorted(systems.items(), key=lambda s: rank(s[0])), strict=False):
            _reliability(axis, name, bins)
        made.tight_layout()
        return png(made)


def _reliability(axis: Axes, name: str, bins: Reliability) -> None:
    share = bins.count / bins.count.sum()
    gap = float((share * np.abs(bins.accuracy - bins.confidence)).sum())
    axis.set_title(drawable(name, 28), loc="left")
    axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
    axis.vlines(bins.confidence, bins.accuracy, bins.confidence, color=LINE)
    axis.scatter(
        bins.confidence,
        bins.accuracy,
        s=12 + 380 * share,
        color=COLOURS["Sadness"],
        alpha=0.75,
        linewidths=0,
        clip_on=False,
    )
    axis.text(0.97, 0.04, f"ECE {100 * gap:.1f} %", color=QUIET, fontsize=8, ha="right")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    axis.set_xlabel("confidence", fontsize=8)
    axis.set_ylabel("accuracy", fontsize=8)
    axis.tick_params(labelsize=8)


def interval_plot(cells: Sequence[MetricRow], title: str) -> bytes:
    """Draw one score of every system with its interval.

    Args:
        cells: rows of one metric, one for every system.
        title: title of the picture.

    Returns:
        PNG; empty if no system has a value.
    """
    known = [c for c in cells if c.value is not None and c.low is not None and c.high is not None]
    known.sort(key=lambda c: rank(c.system), reverse=True)
    if not known:
        return b""
    with settings():
        made = figure(720, 90 + 26 * len(known))
        axis = made.add_subplot()
        axis.set_title(drawable(title), loc="left")
        for place, cell in enumerate(known):
            value, low, high = (float(v or 0.0) for v in (cell.value, cell.low, cell.high))
            axis.plot([low, high], [place, place], color=COLOURS["Sadness"], linewidth=5, alpha=0.35)
            axis.plot(value, place, "o", color=COLOURS["Sadness"], markersize=6)
            covered = "" if cell.coverage == 1 else f"   coverage {100 * cell.coverage:.0f} %"
            axis.text(high, place, f"  {value:.1f}{covered}", va="center", fontsize=8, color=QUIET)
        axis.set_yticks(range(len(known)), [drawable(c.system, 40) for c in known], fontsize=9, color=INK)
        axis.set_ylim(-0.7, len(known) - 0.3)
        axis.set_xlim(0, 1.25 * max(float(c.high or 0.0) for c in known) + 1)
        axis.set_axisbelow(True)
        axis.grid(axis="x", color=EMPTY)
        axis.tick_params(length=0)
        made.tight_layout()
        return png(made)


def data_uri(picture: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
