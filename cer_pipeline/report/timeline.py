"""The timeline picture of one video: faces, probabilities, branches and words along time.

Belongs here: reading the rows of the video and drawing its lanes. Does not belong here: numbers that are not in the
tables.

Lanes, from the top: faces of the subject; basic emotions of every frame, stacked; the top compound expression; the top
emotion of every branch and window (hatched without a value, with the status); the words. A window is drawn up to the
start of the next one, although it covers up to 4 s. A video without frames (audio only) is drawn from its windows.

The strength of a colour follows the confidence of the value: a tie is nearly grey, a clear lead has the full colour.
Where no compound is clear (`compound.clear`), none is named. A label that does not fit its cell is left out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import matrix, pc
from cer_pipeline.chart_style import COLOURS, EMPTY, INK, LINE, QUIET, drawable, faded, figure, ink_on, png, settings
from cer_pipeline.compound.clear import UNCLEAR, Clear
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.uncertainty import confidence
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS, COMPOUND_PAIRS
from cer_pipeline.predictions.specs import PPA
from cer_pipeline.report.summary import spoken_words
from cer_pipeline.stage import Inputs, video_rows
from cer_pipeline.status import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

WIDTH, HEIGHT = 1600, 900  # pixels
SIDE: Final = 160  # pixels of a thumbnail
MOSAIC: Final = 6  # squares across a hidden face
FACES: Final = 14  # thumbnails in the lane
LEFT, RIGHT, TOP, BOTTOM = 0.105, 0.865, 0.878, 0.03  # of the figure
POINTS: Final = 3000  # frames that are drawn at most: twice the pixels of the lane
WORD_ROWS: Final = 3
TRIM: Final = 0.15  # share of a stored crop that is cut off at each side, since the profile stores a wide margin
MARGIN: Final = 36  # pixels by which a word may pass the end of the lane, before the text beside it
NO_VALUE, NOT_CLEAR = -2, -1  # in place of the index of a compound
GREY: Final = "#E4E7EB"  # no clear expression: between the colours of an empty cell and of Neutral
PAD: Final = 4  # pixels on each side of a label
FAINT: Final = 0.25  # strength of the colour at a tie: the hue stays recognisable
FULL: Final = 0.3  # confidence from which a colour has full strength: 0.6 for the top class, 0.3 for the next


@dataclass(frozen=True)
class Video:
    """The rows of a video that are drawn."""

    row: dict[str, Any]
    times: NDArray[np.float64]
    basic: NDArray[np.float64]
    compound: NDArray[np.float64]
    clear: NDArray[np.bool_]
    windows: list[dict[str, Any]]
    branches: dict[str, list[dict[str, Any]]]
    faces: dict[int, bytes]
    slots: int
    words: list[tuple[float, float, str]]
    end_s: float


def timeline(inputs: Inputs, video_id: str, rule: Clear, hide_faces: bool = False) -> bytes:
    """Draw one video.

    Args:
        inputs: the shard that the video belongs to.
        video_id: the video.
        rule: which expressions count as clear.
        hide_faces: draw every face as a mosaic of 6 x 6 squares, so that no one is recognisable.

    Returns:
        PNG of 1600 x 900 pixels.

    Raises:
        CerError: the shard has no such video.
    """
    video = read_video(inputs, video_id, rule)
    with settings():
        made = figure(WIDTH, HEIGHT)
        lanes = len(video.branches)
        ratios = [1.25, 4.4, 0.62, max(0.9, 0.36 * lanes), 0.95]
        grid = made.add_gridspec(
            5, 1, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM, height_ratios=ratios, hspace=0.14
        )
        axes = [made.add_subplot(grid[i]) for i in range(5)]
        for axis in axes:
            axis.set_xlim(0, video.end_s)
            axis.tick_params(length=0)
        _title(made, inputs.corpus, video)
        _draw_faces(axes[0], video, hide_faces)
        _draw_basic(axes[1], video)
        _draw_compound(axes[2], video)
        _draw_branches(axes[3], video)
        _draw_words(axes[4], video)
        return png(made)


def read_video(inputs: Inputs, video_id: str, rule: Clear) -> Video:
    """Read the rows of a video.

    Raises:
        CerError: the shard has no such video.
    """
    rows = list(video_rows(inputs, "videos", video_id))
    if not rows:
        raise CerError("no such video", drawable(video_id), f"list them with `cer status {inputs.corpus}`")
    windows = list(video_rows(inputs, "segments", video_id))
    times, basic, compound = _values(inputs, video_id, windows)
    fused = inputs.table("fused").column_names
    names = [c.removeprefix("w_") for c in fused if c.startswith("w_")]
    columns = ["segment", "status", *BASIC_COLUMNS]
    branches = {n: list(video_rows(inputs, f"probabilities/{n}", video_id, columns)) for n in names}
    samples = max(1, sum(int(w["samples"]) for w in windows[:1]) if len(windows) == 1 else FACES)
    end = max([float(rows[0]["duration_s"] or 0.0), *(float(w["end_s"]) for w in windows), 0.1])
    return Video(
        row=rows[0],
        times=times,
        basic=basic,
        compound=compound,
        clear=rule.of_values(basic, compound),
        windows=windows,
        branches=branches,
        faces=_faces(inputs, video_id, end, min(FACES, samples)),
        slots=min(FACES, samples),
        words=spoken_words(list(video_rows(inputs, "transcripts", video_id, ["words"]))),
        end_s=end,
    )


def _values(
    inputs: Inputs, video_id: str, windows: list[dict[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return times, basic and compound values of at most `POINTS` frames; without frames, of the windows."""
    columns = ["time_s", "frame", *BASIC_COLUMNS, *COMPOUND_COLUMNS]
    batches = list(inputs.batches("frame_predictions", video_id, columns))
    if batches:
        frames = pa.Table.from_batches(batches)
        times = frames.column("time_s").to_numpy()
        keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), POINTS)).round().astype(int))
        return times[keep], matrix(frames, BASIC_COLUMNS)[keep], matrix(frames, COMPOUND_COLUMNS)[keep]
    starts = [float(w["start_s"]) for w in windows]
    edges = np.array(
        [x for a, b in zip(starts, [*starts[1:], float(windows[-1]["end_s"])], strict=True) for x in (a, b)]
    )
    values = []
    for name, labels in (("fused", BASIC_COLUMNS), ("compound", COMPOUND_COLUMNS)):
        methods = ["method"] if name == "compound" else []
        table = pa.Table.from_batches(list(inputs.batches(name, video_id, ["segment", *methods, *labels])))
        if methods:
            table = table.filter(pc.equal(table.column("method"), PPA))
        values.append(np.repeat(matrix(table, labels), 2, axis=0))
    return edges, values[0], values[1]


def _faces(inputs: Inputs, video_id: str, end_s: float, slots: int) -> dict[int, bytes]:
    """Return for every slot of the lane the subject's face that is nearest to the centre of the slot."""
    width = end_s / slots
    times = {row["sample"]: row["time_s"] for row in video_rows(inputs, "frames", video_id, ["sample", "time_s"])}
    chosen: dict[int, tuple[float, bytes]] = {}
    for batch in inputs.batches("faces", video_id, ["sample", "face", "is_subject", "crop"]):
        subject = batch.filter(pc.and_(batch.column("is_subject"), pc.is_valid(batch.column("crop"))))
        for sample, crop in zip(subject.column("sample").to_pylist(), subject.column("crop"), strict=True):
            slot = min(int(times[sample] / width), slots - 1)
            distance = abs(times[sample] - (slot + 0.5) * width)
            if slot not in chosen or distance < chosen[slot][0]:
                chosen[slot] = (distance, crop.as_py())
    return {slot: crop for slot, (_, crop) in chosen.items()}


def _title(made: Figure, corpus: str, video: Video) -> None:
    made.text(0.018, 0.955, drawable(str(video.row["video_id"]), 90), fontsize=17, fontweight="bold", va="center")
    facts = [f"corpus {drawable(corpus, 40)}", f"{video.end_s:.1f} s"]
    if video.row["width"]:
        facts.append(f"{video.row['width']} × {video.row['height']} px, {video.row['fps'] or 0:.1f} frames/s")
    facts.append(f"{len(video.windows)} window{'s' if len(video.windows) != 1 else ''}")
    if video.row["status"] != Status.OK:
        facts.append(drawable(f"{video.row['status']}: {video.row['reason'] or ''}", 100))
    made.text(0.018, 0.915, "   ·   ".join(facts), fontsize=10.5, color=QUIET, va="center")


def _lane(axis: Axes, name: str, note: str = "") -> None:
    axis.set_yticks([])
    axis.set_xticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.text(-0.012, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=10, fontweight="bold")
    if note:
        axis.text(0.5, 0.5, note, transform=axis.transAxes, ha="center", va="center", fontsize=10, color=QUIET)


def _thumbnail(crop: bytes, side: int) -> NDArray[np.uint8]:
    """Return a stored crop without its margin, as `side` x `side` pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(crop)) as image:
        cut = TRIM * image.width, TRIM * image.height
        return np.asarray(
            image.convert("RGB").resize(
                (side, side),
                Image.Resampling.BOX if side == MOSAIC else None,
                box=(*cut, image.width - cut[0], image.height - cut[1]),
            )
        )


def _draw_faces(axis: Axes, video: Video, hide: bool) -> None:
    _lane(axis, "Subject", "" if video.faces else "no face")
    axis.set_ylim(0, 1)
    if not video.faces:
        return
    box = axis.get_window_extent()
    size = min(box.height, box.width / video.slots * 0.96)  # pixels
    wide, high = size / box.width * video.end_s, size / box.height
    for slot in range(video.slots):
        left = (slot + 0.5) / video.slots * video.end_s - wide / 2
        extent = (left, left + wide, 0.5 - high / 2, 0.5 + high / 2)
        try:
            picture = _thumbnail(video.faces[slot], MOSAIC if hide else SIDE)
        except (KeyError, OSError):  # no face, or a damaged crop, whose status is in the tables
            axis.fill_between([left, left + wide], extent[2], extent[3], color=EMPTY, linewidth=0)
            continue
        axis.imshow(picture, extent=extent, aspect="auto", interpolation="nearest" if hide else "lanczos", zorder=2)
    axis.set_xlim(0, video.end_s)
    axis.set_ylim(0, 1)


def _draw_basic(axis: Axes, video: Video) -> None:
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"], fontsize=9)
    axis.set_xticks([])
    axis.set_facecolor(EMPTY)
    axis.text(-0.03, 0.5, "Basic\nemotions", transform=axis.transAxes, ha="right", va="center", fontweight="bold")
    known = _known(video.basic)
    for start, stop in _runs(known):
        run = slice(start, stop)
        times, values = _to_edges(video.times[run], video.basic[run], start == 0, stop == len(known), video.end_s)
        axis.stackplot(times, values.T, colors=[COLOURS[b] for b in BASIC], linewidth=0.6, edgecolor="white", zorder=2)
    for height in (0.25, 0.5, 0.75):
        axis.axhline(height, color="white", alpha=0.45, linewidth=0.7, zorder=3)
    means = video.basic[known].mean(axis=0) if known.any() else None
    if means is None:
        axis.text(0.5, 0.5, "no value", transform=axis.transAxes, ha="center", va="center", color=QUIET, fontsize=12)
    _legend(axis, means)


def _to_edges(
    times: NDArray[np.float64], values: NDArray[np.float64], first: bool, last: bool, end_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times and values with the last value held to the next frame, and the first one drawn from 0 s."""
    times, values = np.concatenate([times, [end_s if last else times[-1]]]), np.concatenate([values, values[-1:]])
    if first and times[0] > 0:
        times, values = np.concatenate([[0.0], times]), np.concatenate([values[:1], values])
    return times, values


def _legend(axis: Axes, means: NDArray[np.float64] | None) -> None:
    axis.text(1.014, 0.985, "mean over the video", transform=axis.transAxes, fontsize=9, color=QUIET, va="top")
    for i, name in enumerate(reversed(BASIC)):
        y = 0.885 - i * 0.112
        share = "" if means is None else f"{means[BASIC.index(name)]:.2f}"
        axis.text(1.014, y, "■", transform=axis.transAxes, color=COLOURS[name], fontsize=17, va="center")
        axis.text(1.034, y, name, transform=axis.transAxes, fontsize=10.5, va="center")
        axis.text(1.150, y, share, transform=axis.transAxes, fontsize=10.5, va="center", ha="right", color=QUIET)


def _known(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows have a value."""
    return np.isfinite(values.sum(axis=1))


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return start and stop of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _draw_compound(axis: Axes, video: Video) -> None:
    known = _known(video.compound)
    _lane(axis, "Top compound", "" if known.any() else "no value")
    axis.set_ylim(0, 1)
    axis.set_facecolor(EMPTY)
    top = np.where(known, np.where(video.clear, np.nan_to_num(video.compound).argmax(axis=1), NOT_CLEAR), NO_VALUE)
    lead = confidence(video.compound)
    starts = np.flatnonzero(np.diff(top, prepend=NO_VALUE - 1))
    for start, stop in zip(starts, [*starts[1:], len(top)], strict=True):
        if top[start] == NO_VALUE:
            continue
        left = 0.0 if start == 0 else float(video.times[start])
        right = video.end_s if stop == len(top) else float(video.times[stop])
        cell = Cell(left, right, 0.0, 1.0)
        if top[start] == NOT_CLEAR:
            _fill(axis, cell, GREY)
            _label(axis, [(UNCLEAR, 0.5, QUIET)], cell, 9)
            continue
        strength = _strength(float(lead[start:stop].mean()))
        pair = [faded(COLOURS[name], strength) for name in COMPOUND_PAIRS[top[start]]]
        _fill(axis, Cell(left, right, 0.5, 1.0), pair[0])
        _fill(axis, Cell(left, right, 0.0, 0.5), pair[1])
        words = COMPOUND[top[start]].split(" ")
        lines = [(w, y, ink_on(c)) for w, y, c in zip(words, (0.74, 0.24), pair, strict=True)]
        _label(axis, lines, cell, 9)


def _strength(lead: float) -> float:
    """Return the strength of a colour for the difference between the two top probabilities."""
    return FAINT + (1.0 - FAINT) * min(1.0, lead / FULL)


@dataclass(frozen=True)
class Cell:
    """A rectangle of a lane: times, s, and heights in units of the lane."""

    left: float
    right: float
    low: float
    high: float


def _fill(axis: Axes, cell: Cell, colour: str) -> None:
    axis.fill_between([cell.left, cell.right], cell.low, cell.high, color=colour, linewidth=0)
    axis.plot([cell.left, cell.left], [cell.low, cell.high], color="white", linewidth=1.2)


def _label(
    axis: Axes, lines: Sequence[tuple[str, float, str]], cell: Cell, size: int, box: dict[str, Any] | None = None
) -> None:
    """Draw text in the centre of a cell, all lines or, if one is too wide, none.

    Args:
        axis: the lane.
        lines: text, height and colour of each line.
        cell: the cell.
        size: font size, points.
        box: properties (matplotlib) of a box behind the text.
    """
    available = _pixels(axis, cell.right) - _pixels(axis, cell.left) - 2 * PAD
    middle = (cell.left + cell.right) / 2
    drawn = [
        axis.text(middle, y, text, ha="center", va="center", fontsize=size, color=colour, bbox=box, clip_on=True)
        for text, y, colour in lines
    ]
    if any(_width(text) > available for text in drawn):
        for text in drawn:
            text.remove()


def _width(text: Text) -> float:
    """Return the width of a drawn text, pixels."""
    made = text.get_figure(root=True)
    assert made is not None
    return text.get_window_extent(cast("Any", made.canvas).get_renderer()).width


def _pixels(axis: Axes, time_s: float) -> float:
    return float(axis.transData.transform((time_s, 0.0))[0])


def _draw_branches(axis: Axes, video: Video) -> None:
    _lane(axis, "", "" if video.branches else "the profile enables no branch")
    count = len(video.branches)
    axis.set_ylim(count, 0)
    starts = [float(w["start_s"]) for w in video.windows]
    ends = [*starts[1:], video.end_s]
    for lane, (name, rows) in enumerate(video.branches.items()):
        axis.text(-0.012, 1 - (lane + 0.5) / count, name, transform=axis.transAxes, ha="right", va="center", fontsize=9)
        for status, first, last in _status_runs(rows):
            if status != Status.OK:
                _absent(axis, status, Cell(starts[first], ends[last], lane + 0.12, lane + 0.88))
        for row, left, right in zip(rows, starts, ends, strict=True):
            if row["status"] != Status.OK:
                continue
            values = np.array([row[c] for c in BASIC_COLUMNS])
            label = BASIC[int(values.argmax())]
            colour = faded(COLOURS[label], _strength(float(confidence(values))))
            cell = Cell(left, right, lane + 0.12, lane + 0.88)
            _fill(axis, cell, colour)
            _label(axis, [(f"{label} {values.max():.2f}", lane + 0.5, ink_on(colour))], cell, 8)
    axis.text(
        1.014,
        0.5,
        "top emotion of each\nbranch and window\n(pale: low confidence)",
        transform=axis.transAxes,
        fontsize=9,
        color=QUIET,
        va="center",
    )


def _status_runs(rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    runs: list[tuple[str, int, int]] = []
    for i, row in enumerate(rows):
        if runs and runs[-1][0] == row["status"]:
            runs[-1] = (runs[-1][0], runs[-1][1], i)
        else:
            runs.append((row["status"], i, i))
    return runs


def _absent(axis: Axes, status: str, cell: Cell) -> None:
    axis.fill_between(
        [cell.left, cell.right], cell.low, cell.high, facecolor=EMPTY, edgecolor=LINE, hatch="////", linewidth=0
    )
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    _label(axis, [(status.replace("_", " "), (cell.low + cell.high) / 2, QUIET)], cell, 8, box)


def _draw_words(axis: Axes, video: Video) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_yticks([])
    axis.set_ylim(WORD_ROWS, 0)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.text(-0.012, 0.5, "Words", transform=axis.transAxes, ha="right", va="center", fontsize=10, fontweight="bold")
    axis.xaxis.set_ticks_position("top")
    axis.tick_params(axis="x", labelsize=9, pad=1)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g} s")
    axis.spines["top"].set_visible(True)
    if not video.words:
        axis.text(0.5, 0.5, "no words", transform=axis.transAxes, ha="center", va="center", color=QUIET)
        return
    per_second = axis.get_window_extent().width / video.end_s
    free = [-1.0] * WORD_ROWS  # pixel at which each row is free again
    left_out = 0
    for start, _, word in video.words:
        x = start * per_second
        row = next((i for i, end in enumerate(free) if end <= x), None)
        drawn = axis.text(
            start + PAD / per_second, 0, drawable(word, 24), fontsize=9, color=INK, ha="left", va="center"
        )
        width = _width(drawn) + 2 * PAD
        if row is None or x + width > video.end_s * per_second + MARGIN:
            drawn.remove()
            left_out += 1
            continue
        free[row] = x + width
        drawn.set_y(row + 0.62)
        axis.plot([start, start], [row + 0.3, row + 0.9], color=COLOURS["Surprise"], linewidth=1.2)
    note = f"{len(video.words)} words" + (
        f",\n{left_out} {'does' if left_out == 1 else 'do'} not fit" if left_out else ""
    )
    axis.text(1.034, 0.5, note, transform=axis.transAxes, fontsize=9, color=QUIET, va="center")
