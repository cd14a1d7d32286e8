"""The rows of `captions`: the texts of the chosen captioner and the imported ones, a row for each segment and view.

Does not belong here: the spec and its plan (`specs`), or any captioner (`registry` names them).

A corpus without media has imported texts alone. Where a captioner and the corpus have a view of one name, the imported
text counts, and the captioner's where the import has none for the segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from cer_pipeline.perception.captions.captioner import SEGMENT_COLUMNS, Caption, Segment
from cer_pipeline.perception.captions.registry import IMPORTED, captioner_of
from cer_pipeline.perception.captions.specs import SEGMENTS, VIEWS, row_key
from cer_pipeline.stage import UNIT, StageContext, video_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import CAPTIONS as TABLE

SHOWN_KEYS: Final = 3  # keys that an error message names


class Captions:
    """Units (videos) -> one caption per segment and view."""

    def __init__(self, context: StageContext) -> None:
        self.inputs = context.inputs
        chosen = captioner_of(context.profile)
        generated = chosen is not IMPORTED and context.inputs.registered().has_media
        self.captioners = [spec.load(context) for spec in ([chosen, IMPORTED] if generated else [IMPORTED])]

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of `captions` for videos of the plan.

        Raises:
            ValueError: a captioner has left out a segment or a view, or has given one twice or unasked.
        """
        plan = units.to_pylist()
        segments = {s.id: s for unit in plan for s in self._segments(unit[UNIT])}
        keys = [row_key(unit[UNIT], index, view) for unit in plan for index in unit[SEGMENTS] for view in unit[VIEWS]]
        expected = {(key["segment_id"], key["view"]): key for key in keys}
        captions = {k: _without_import(segments[k[0]]) for k in expected if k[1] == IMPORTED.name}
        for captioner in self.captioners:
            made = _by_key(captioner(list(segments.values())))
            captions |= {k: c for k, c in made.items() if c.text is not None or k not in captions}
        missing, unexpected = (sorted(a.keys() - b.keys()) for a, b in ((expected, captions), (captions, expected)))
        if missing or unexpected:
            raise ValueError(
                f"the captioner left out {missing[:SHOWN_KEYS]} and answered unasked for {unexpected[:SHOWN_KEYS]}"
            )
        return pa.Table.from_pylist([key | _columns(captions[k]) for k, key in expected.items()], schema=TABLE.schema)

    def _segments(self, video: str) -> list[Segment]:
        rows = video_rows(self.inputs, "segments", video, SEGMENT_COLUMNS)
        return sorted((Segment(**row) for row in rows), key=lambda s: s.segment)


def _without_import(segment: Segment) -> Caption:
    """The only caption of a segment whose video has neither a captioner nor imported texts."""
    reason = "no text was imported for this video"
    return Caption(segment, IMPORTED.name, status=str(Status.NO_CAPTION), reason=reason)


def _by_key(captions: Iterable[Caption]) -> dict[tuple[str, str], Caption]:
    out: dict[tuple[str, str], Caption] = {}
    for caption in captions:
        key = (caption.segment.id, caption.view)
        if key in out:
            raise ValueError(f"the captioner answered twice for {key}")
        out[key] = caption
    return out


def _columns(caption: Caption) -> dict[str, Any]:
    return {name: getattr(caption, name) for name in ("prompt", "text", "model", "status", "reason")}
