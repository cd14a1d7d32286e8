"""Captions that came with the files of a corpus, as a captioner.

Belongs here: the rows of imported texts. Does not belong here: reading the files (`corpora.formats.captions`), which
happens once, when the corpus is registered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from cer_pipeline.corpora.annotations import Caption as ImportedCaption
from cer_pipeline.corpora.annotations import read_captions
from cer_pipeline.perception.captions.captioner import Caption, Segment
from cer_pipeline.stage import Inputs, StageContext
from cer_pipeline.status import Status


class ImportedCaptions:
    """Windows -> the imported views of their videos; a video without any has none."""

    def __init__(self, context: StageContext, settings: Any) -> None:  # noqa: ARG002 - the protocol
        self.captions = captions_of(context.inputs)
        self.counters = context.counters

    def __call__(self, segments: Sequence[Segment]) -> Iterator[Caption]:
        """One caption for each segment and view; a view without a text for a segment is `no_caption`."""
        for video, group in groupby(segments, lambda s: s.video_id):
            windows = list(group)
            captions = self.captions.get(video, ())
            indices = {s.segment for s in windows}
            self.counters["captions/without_window"] += sum(c.segment not in indices for c in captions)
            texts = {(c.segment, c.view): c.text for c in captions}
            for segment in windows:
                for view in views_of(captions):
                    yield _caption(segment, view, texts.get((segment.segment, view)))


def captions_of(inputs: Inputs) -> dict[str, tuple[ImportedCaption, ...]]:
    """The imported captions of the videos of a shard; videos without any are not in it."""
    return read_captions(inputs.registered().annotations, inputs.shard)


def views_of(captions: Sequence[ImportedCaption]) -> list[str]:
    """Names of the views of one video's captions, sorted."""
    return sorted({caption.view for caption in captions})


def _caption(segment: Segment, view: str, text: str | None) -> Caption:
    model, _, prompt = view.rpartition("_")
    if text:
        return Caption(segment, view, text, prompt, model)
    reason = f"{view} has no text for this segment"
    return Caption(segment, view, None, prompt, model, str(Status.NO_CAPTION), reason)
