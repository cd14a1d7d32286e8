"""The contract of a captioner: windows -> texts, behind one protocol, whatever writes the texts.

Belongs here: the protocol, what it is given and gives back, and what the registry holds of each captioner; light at
import. Does not belong here: any captioner (a module or package each), the list of them (`registry`), or putting texts
into the table (`stage`).
"""

from __future__ import annotations

import importlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cer_pipeline.profiles import Profile
from cer_pipeline.profiles.sections import Section
from cer_pipeline.stage import Inputs, StageContext, video_rows
from cer_pipeline.status import Status

SEGMENT_COLUMNS: Final = ("video_id", "segment", "start_s", "end_s", "first_sample", "samples")
"""Columns of `segments` that every captioner is given."""
FRAME_COLUMNS: Final = ("sample", "time_s", "height", "jpeg", "status")
PICTURES: Final = {"segments": SEGMENT_COLUMNS, "frames": FRAME_COLUMNS}
"""`CaptionerSpec.reads` of a captioner of pictures alone."""


@dataclass(frozen=True)
class Segment:
    """A window of a video.

    Args:
        video_id: the video.
        segment: window index.
        start_s: start, s.
        end_s: end, s.
        first_sample: first sample of the grid in the window.
        samples: number of samples in the window, at most 20.
    """

    video_id: str
    segment: int
    start_s: float
    end_s: float
    first_sample: int
    samples: int

    @property
    def id(self) -> str:
        """The segment_id."""
        return f"{self.video_id}/{self.segment:04d}"

    @property
    def sample_range(self) -> range:
        """The samples in the window."""
        return range(self.first_sample, self.first_sample + self.samples)


@dataclass(frozen=True)
class Caption:
    """One text of a window, or why there is none.

    Args:
        segment: the window.
        view: which of the captioner's views it is, usually MODEL_PROMPT.
        text: English sentences; None unless the status is ok.
        prompt: id of the prompt that the text answers.
        model: the model that wrote it.
        status: a `failed` caption is asked for again by the next run; every other status is kept.
        reason: why there is no text, in one line; None where the status is ok.
    """

    segment: Segment
    view: str
    text: str | None = None
    prompt: str | None = None
    model: str | None = None
    status: str = Status.OK
    reason: str | None = None


class Captioner(Protocol):
    """A class that writes captions."""

    def __init__(self, context: StageContext, settings: Any) -> None:
        """Load models or open connections, once for all calls.

        Args:
            context: tables, weights and counters; see `stage.StageContext`.
            settings: the model of the captioner's profile section, `Section()` where it has none.
        """

    def __call__(self, segments: Sequence[Segment]) -> Iterable[Caption]:
        """Return one caption for each of these segments and each view of the captioner, in any order.

        Args:
            segments: all windows of one or more videos, in key order. A caption depends on its own video alone, never
                on the batch that it came in.

        Raises:
            Exception: fails every video of the batch that fails again alone. What concerns single windows is no
                exception but their status.
        """
        ...


@dataclass(frozen=True)
class CaptionerSpec:
    """What the graph knows of a captioner before anything runs.

    Args:
        name: the value of the setting `captions.backend` that chooses it.
        captioner: import path "package.module:Class" of a `Captioner`.
        code_version: changed by hand whenever the captions would change for the same inputs and settings.
        views: settings -> names of the views that it writes for every segment, each once.
        section: profile section whose settings change the captions; "" for none. Settings that change no caption, such
            as an address or a time limit, belong into [captions].
        settings: model of that section.
        reads: columns by table that it reads, `segments` among them.
        models: settings -> zoo ids of the weights that it needs.
        kinds: tags for the UI.
        chunk_units: videos of one batch.
    """

    name: str
    captioner: str
    code_version: str
    views: Callable[[Any], Sequence[str]]
    section: str = ""
    settings: type[Section] = Section
    reads: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"segments": SEGMENT_COLUMNS})
    models: Callable[[Any], tuple[str, ...]] = lambda _: ()
    kinds: tuple[str, ...] = ("parquet",)
    chunk_units: int = 8

    def settings_of(self, profile: Profile) -> Any:
        """The captioner's settings in a profile, as its model."""
        return self.settings(**(profile[self.section] if self.section else {}))

    def load(self, context: StageContext) -> Captioner:
        """Import the captioner's class and construct it."""
        module, _, name = self.captioner.partition(":")
        return getattr(importlib.import_module(module), name)(context, self.settings_of(context.profile))


def with_frames(
    inputs: Inputs, segments: Sequence[Segment], columns: Sequence[str] = FRAME_COLUMNS
) -> Iterator[tuple[Segment, list[dict[str, Any]]]]:
    """Pair every window of one video with its rows of `frames`, in time order.

    The table is streamed: no more than the pictures of one window and one batch lie in memory.

    Args:
        inputs: tables of the shard, `frames` among them.
        segments: windows of one video.
        columns: columns of `frames`, `sample` among them.
    """
    if not segments:
        return
    rows = video_rows(inputs, "frames", segments[0].video_id, columns)
    window: deque[dict[str, Any]] = deque()
    row = next(rows, None)
    for segment in sorted(segments, key=lambda s: s.first_sample):
        samples = segment.sample_range
        while window and window[0]["sample"] < samples.start:
            window.popleft()
        while row is not None and row["sample"] < samples.stop:
            if row["sample"] >= samples.start:
                window.append(row)
            row = next(rows, None)
        yield segment, [r for r in window if r["sample"] < samples.stop]


def status_without_pictures(frames: Iterable[Mapping[str, Any]]) -> str:
    """The most frequent status of a window's rows of `frames`; no_video where it has none."""
    counts = Counter(row["status"] for row in frames)
    return min(counts, key=lambda s: (-counts[s], s)) if counts else str(Status.NO_VIDEO)
