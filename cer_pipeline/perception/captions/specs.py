"""The stage `captions`: its spec and plan, as the chosen captioner makes them; light at import.

Does not belong here: computing captions (`stage` and the captioners).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.perception.captions.imported import captions_of, views_of
from cer_pipeline.perception.captions.registry import IMPORTED, RULE_BASED, captioner_of
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageSpec
from cer_pipeline.store.fingerprint import digest

SEGMENTS: Final = "indices"  # plan column: window indices of the video
VIEWS: Final = "views"  # plan column: views that its rows have, at least one


def captions_stage(profile: Profile) -> StageSpec:
    """The stage under the captioner that a profile chooses: settings of other captioners do not change its keys.

    Raises:
        CerError: no such captioner.
    """
    captioner = captioner_of(profile)
    # The rule-based captioner has the versions from before there was a choice; every other one names itself, so that
    # the rows of two captioners with equal inputs and settings have different keys.
    version = captioner.code_version if captioner is RULE_BASED else f"{captioner.name}/{captioner.code_version}"
    return StageSpec(
        table=tables.CAPTIONS,
        description="Texts on every segment: one of each view of the captioner, and of each imported view.",
        group="perception",
        reads=captioner.reads,
        inputs=tuple(captioner.reads),
        plan=_plan,
        stage="cer_pipeline.perception.captions.stage:Captions",
        code_version=version,
        config=(captioner.section,) if captioner.section else (),
        models=captioner.models(captioner.settings_of(profile)),
        placeholder_keys=_placeholder_keys,
        kinds=captioner.kinds,
        chunk_units=captioner.chunk_units,
    )


def _plan(inputs: Inputs, profile: Profile) -> pa.Table:
    segments = inputs.table("segments", ["video_id", "segment"])
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for video, index in zip(*(segments.column(n).to_pylist() for n in ("video_id", "segment")), strict=True):
        indices[video].append(index)
    corpus = inputs.registered()
    captioner = captioner_of(profile) if corpus.has_media else IMPORTED
    imported = {f.video_id: f.captions for f in corpus.files_of(inputs.shard) if f.captions}
    imported_views = {video: views_of(captions) for video, captions in captions_of(inputs).items()} if imported else {}
    contents = [inputs.digests(name) for name in captioner.reads]
    keys = [digest(*(c.get(video, "") for c in contents), imported.get(video, "")) for video in indices]
    own_views = captioner.views(captioner.settings_of(profile))
    views = [list(dict.fromkeys([*own_views, *imported_views.get(v, ())])) or [IMPORTED.name] for v in indices]
    return pa.table(
        {
            UNIT: pa.array(list(indices), pa.string()),
            INPUTS: pa.array(keys, pa.string()),
            SEGMENTS: pa.array(list(indices.values()), pa.list_(pa.int32())),
            VIEWS: pa.array(views, pa.list_(pa.string())),
        }
    )


def _placeholder_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [row_key(unit[UNIT], index, view) for index in unit[SEGMENTS] for view in unit[VIEWS]]


def row_key(video_id: str, segment: int, view: str) -> dict[str, Any]:
    """The key columns of a caption's row."""
    return {"segment_id": f"{video_id}/{segment:04d}", "video_id": video_id, "segment": segment, "view": view}
