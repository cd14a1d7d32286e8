"""A small plot of one table for the Dagster UI.

Belongs here: one picture for every table, below 60 KB. Does not belong here: the picture of a video (`timeline`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.chart_style import COLOURS, INK, QUIET, figure, png, settings
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS, COMPOUND_PAIRS
from cer_pipeline.stage import Inputs
from cer_pipeline.status import EXPECTED, Status
from cer_pipeline.tables import TableSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 640, 300  # pixels of two panels; the UI shows metadata in a narrow column

_HISTOGRAMS: Final[dict[str, tuple[str, str]]] = {
    "videos": ("duration_s", "duration of the videos, s"),
    "segments": ("samples", "samples per window"),
    "faces": ("score", "detector score of the faces"),
    "audio": ("duration_s", "duration of the audio, s"),
    "speech": ("score", "speech probability of the intervals"),
}
"""Table -> (column of its histogram, title)."""


def table_plot(spec: TableSpec, inputs: Inputs, note: str = "") -> bytes:
    """Draw a table: mean probabilities or a histogram, and rows by status.

    Args:
        spec: the table.
        inputs: the shard.
        note: added to the title of the last panel of mean probabilities.

    Returns:
        PNG of at most 60 KB; empty if the table has no rows. A table without the column of its histogram has none.
    """
    groups = [g for g in (BASIC_COLUMNS, COMPOUND_COLUMNS) if g in spec.distributions]
    histogram = _HISTOGRAMS.get(spec.name)
    if histogram and histogram[0] not in spec.schema.names:
        histogram = None
    columns = ["status", *(c for g in groups for c in g), *([histogram[0]] if histogram else [])]
    table = inputs.table(spec.name, columns)
    if not table.num_rows:
        return b""
    statuses = Counter(str(s) for s in table.column("status").to_pylist())
    panels = len(groups) + (1 if histogram else 0) + 1
    with settings():
        made = figure(WIDTH, HEIGHT)
        made.set_size_inches((WIDTH + 240 * (panels - 2)) / 100, HEIGHT / 100)
        axes = made.subplots(1, panels, squeeze=False, width_ratios=[2.0] * (panels - 1) + [1.3])[0]
        for axis, group in zip(axes, groups, strict=False):
            _means(
                axis,
                group,
                np.column_stack([_floats(table.column(c)) for c in group]),
                note if group == groups[-1] else "",
            )
        if histogram:
            _histogram(axes[len(groups)], _floats(table.column(histogram[0])), histogram[1])
        _counts(axes[-1], statuses)
        made.tight_layout()
        return png(made)


def _floats(column) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in column.to_pylist()], dtype=np.float64)


def _means(axis: Axes, columns: tuple[str, ...], values: NDArray[np.float64], note: str) -> None:
    labels = BASIC if columns == BASIC_COLUMNS else COMPOUND
    known = values[~np.isnan(values).any(axis=1)]
    axis.set_title(f"mean of {len(known):,} rows" + (f"; {note}" if note else ""), loc="left")
    heights = known.mean(axis=0) if len(known) else np.zeros(len(labels))
    places = list(range(len(labels)))
    if labels == BASIC:
        axis.barh(places, heights, color=[COLOURS[name] for name in labels])
    else:
        for k, (first, second) in enumerate(COMPOUND_PAIRS):
            axis.barh(k - 0.2, heights[k], height=0.4, color=COLOURS[first])
            axis.barh(k + 0.2, heights[k], height=0.4, color=COLOURS[second])
    for place, height in zip(places, heights, strict=True):
        axis.text(height, place, f" {height:.2f}", va="center", fontsize=8, color=QUIET)
    axis.set_yticks(places, labels, fontsize=8, color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, max(0.01, float(heights.max())) * 1.2)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)


def _histogram(axis: Axes, values: NDArray[np.float64], title: str) -> None:
    known = values[np.isfinite(values)]
    axis.set_title(title, loc="left")
    if len(known):
        axis.hist(known, bins=min(30, max(5, int(len(known) ** 0.5))), color=COLOURS["Sadness"])
    axis.tick_params(labelsize=8)


def _counts(axis: Axes, statuses: Counter[str]) -> None:
    names = [s.value for s in Status if statuses.get(s.value)]
    counts = [statuses[name] for name in names]
    colours = [
        COLOURS["Disgust"]
        if n == Status.OK
        else COLOURS["Anger"]
        if n == Status.FAILED
        else COLOURS["Neutral"]
        if n in EXPECTED
        else COLOURS["Other"]
        for n in names
    ]
    axis.set_title("rows by status", loc="left")
    axis.barh(range(len(names)), counts, color=colours, height=0.6)
    for place, count in enumerate(counts):
        axis.text(count, place, f" {count:,}", va="center", fontsize=8, color=QUIET)
    axis.set_yticks(range(len(names)), names, fontsize=8, color=INK)
    axis.set_ylim(max(len(names), 3) - 0.5, -0.5)
    axis.set_xlim(0, max(counts, default=1) * 1.5)
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
