"""The summary of a corpus as a table on the terminal.

Belongs here: rich renderables of summaries. Does not belong here: the numbers (`summary`) or printing (`cli`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cer_pipeline.chart_style import COLOURS, printable
from cer_pipeline.compound.clear import UNCLEAR, Clear
from cer_pipeline.report.summary import VideoSummary
from cer_pipeline.status import Status

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

UNAVAILABLE = str(Status.MODEL_UNAVAILABLE)
WORDS_WIDTH = 40  # characters of the words that are shown


def summary_table(summaries: Sequence[VideoSummary], title: str = "", rule: Clear | None = None) -> Table:
    """Return a table with one row for every video.

    Args:
        summaries: the videos.
        title: title of the table.
        rule: which expressions count as clear; explained below the table.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("video", overflow="fold", min_width=14)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_column("faces", justify="right", no_wrap=True)
    table.add_column("words", overflow="ellipsis", max_width=WORDS_WIDTH, no_wrap=True)
    table.add_column("top basic", no_wrap=True)
    table.add_column("top compound", no_wrap=True)
    table.add_column("without a value", overflow="fold", min_width=26)
    without_model = unavailable(summaries)
    notes = [f"no model on this machine: {', '.join(without_model)} (model_unavailable)"] if without_model else []
    if rule is not None:
        notes.append(
            "top compound: mean probability, and share of the frames in which it is clear (expressed >= "
            f"{rule.least_expressed:g} and confidence >= {rule.least_confidence:g}; settings: [report])"
        )
    if notes:
        table.caption, table.caption_justify = Text("\n").join(map(_plain, notes)), "left"
    for s in summaries:
        table.add_row(
            _plain(s.video_id),
            Text("-" if s.seconds is None else f"{s.seconds:.1f}"),
            Text(str(s.faces)),
            _plain(f"{len(s.words)}: {' '.join(s.words)}" if s.words else "-"),
            _emotion(s.basic, s.basic_probability, COLOURS.get(s.basic or "", "")),
            _compound(s),
            _missing(s, without_model),
        )
    return table


def unavailable(summaries: Sequence[VideoSummary]) -> list[str]:
    """Return the branches that lack a model for every segment of every video."""
    statuses: dict[str, set[str]] = {}
    for summary in summaries:
        for branch, counts in summary.statuses.items():
            statuses.setdefault(branch, set()).update(counts)
    return [branch for branch, found in statuses.items() if found == {UNAVAILABLE}]


def _plain(text: str) -> Text:
    """Return untrusted text without markup and control characters."""
    from rich.text import Text

    return Text(printable(text))


def _emotion(name: str | None, probability: float | None, colour: str) -> Text:
    from rich.text import Text

    if name is None or probability is None:
        return Text("-")
    shown = Text()
    if colour:
        shown.append("■ ", style=colour)
    return shown.append(f"{name} {probability:.2f}")


def _compound(summary: VideoSummary) -> Text:
    """Return the compound that is clear in most frames, or that none is; a compound near chance is never named."""
    from rich.text import Text

    if summary.clear_share is None:
        return Text("-")
    if summary.compound is None:
        return Text(UNCLEAR, style="dim")
    return _emotion(summary.compound, summary.compound_probability, "").append(f", {_percent(summary.compound_share)}")


def _percent(share: float | None) -> str:
    percent = 100 * (share or 0.0)
    return "<1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def _missing(summary: VideoSummary, without_model: Sequence[str]) -> Text:
    """Return statuses without a value with their share of the segments, and the branches that each applies to."""
    branches: dict[str, list[str]] = {}
    for branch, counts in summary.statuses.items():
        total = sum(counts.values())
        for status, count in sorted(counts.items()):
            if branch not in without_model and status not in (Status.OK, summary.status):
                share = "" if count == total else f" {count}/{total}"
                branches.setdefault(f"{status}{share}", []).append(branch)
    lines = [f"{', '.join(names)}: {status}" for status, names in branches.items()]
    if summary.status != Status.OK:
        lines.insert(0, f"{summary.status}: {summary.reason or 'no reason given'}")
    return _plain("; ".join(lines) if lines else "-")
