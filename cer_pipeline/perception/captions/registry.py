"""Which captioners there are and which of them a profile chooses: `captions.backend`.

Belongs here: the list, plug-ins, and the check of names. Light: it imports no captioner. Does not belong here: what a
captioner is (`captioner`) or does (a module or package each).

A plug-in is a distribution with an entry point in the group `cer_pipeline.captioners`: its name is the captioner's
name, its object a `CaptionerSpec`. It is loaded only where a profile chooses it; a section of its own is declared by an
entry point in the group `cer_pipeline.profile_sections` (`profiles.plugin_sections`).
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.perception.captions.captioner import FRAME_COLUMNS, PICTURES, SEGMENT_COLUMNS, CaptionerSpec
from cer_pipeline.perception.captions.prompts import VERSION as PROMPT_VERSION
from cer_pipeline.perception.captions.prompts import view_name
from cer_pipeline.profiles import Profile, nearest
from cer_pipeline.profiles.sections import CaptionsEndpoint, CaptionsTransformers, Describer

GROUP: Final = "cer_pipeline.captioners"
RULE_BASED_VIEW: Final = "describer"
"""View, prompt prefix and profile section of the rule-based captioner: an id in published tables."""

RULE_BASED: Final = CaptionerSpec(
    name="rule_based",
    captioner="cer_pipeline.perception.captions.rule_based.captioner:RuleBasedCaptioner",
    code_version="3",
    views=lambda _: (RULE_BASED_VIEW,),
    section="describer",
    settings=Describer,
    reads={
        "segments": SEGMENT_COLUMNS,
        "frames": FRAME_COLUMNS,
        "faces": ("sample", "h", "verified", "subject_of", "yaw", "pitch", "roll", "blendshapes", "status"),
        "audio": ("flac", "status"),
        "speech": ("start_s", "end_s", "status"),
    },
    kinds=("parquet", "numpy"),
)
IMPORTED: Final = CaptionerSpec(
    name="imported",
    captioner="cer_pipeline.perception.captions.imported:ImportedCaptions",
    code_version="1",
    views=lambda _: (),  # those of the corpus
)
ENDPOINT: Final = CaptionerSpec(
    name="endpoint",
    captioner="cer_pipeline.perception.captions.endpoint.captioner:EndpointCaptioner",
    code_version=f"1/{PROMPT_VERSION}",
    views=lambda settings: [view_name(model, prompt) for model in settings.models for prompt in settings.prompts],
    section="captions_endpoint",
    settings=CaptionsEndpoint,
    reads=PICTURES,
    kinds=("parquet", "openai"),
    chunk_units=32,  # more videos a batch than requests at a time, however short they are
)
QWEN_VL: Final = {
    "qwen25_vl_3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen25_vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen25_vl_32b": "Qwen/Qwen2.5-VL-32B-Instruct",
    "qwen3_vl_4b": "Qwen/Qwen3-VL-4B-Instruct",
}
"""Zoo id -> the model's name in the tables, which a server has for it too."""
TRANSFORMERS: Final = CaptionerSpec(
    name="transformers",
    captioner="cer_pipeline.perception.captions.qwen_vl.captioner:QwenVLCaptioner",
    code_version=f"1/{PROMPT_VERSION}",
    views=lambda settings: [view_name(QWEN_VL[settings.model], prompt) for prompt in settings.prompts],
    section="captions_transformers",
    settings=CaptionsTransformers,
    reads=PICTURES,
    models=lambda settings: (settings.model,),
    kinds=("parquet", "pytorch"),
    chunk_units=8,  # a run that stops computes at most these videos again
)
CAPTIONERS: Final = {spec.name: spec for spec in (RULE_BASED, IMPORTED, ENDPOINT, TRANSFORMERS)}


def captioner_of(profile: Profile) -> CaptionerSpec:
    """The captioner that a profile chooses.

    Raises:
        CerError: a name that no captioner has, or a plug-in that is no captioner.
    """
    name: str = profile["captions"]["backend"]
    return CAPTIONERS[name] if name in CAPTIONERS else _plugin(name, profile)


def _plugin(name: str, profile: Profile) -> CaptionerSpec:
    points = metadata.entry_points(group=GROUP)
    if name not in points.names:
        origin = profile.origins.get("captions.backend", f"captions.backend={name}")
        raise CerError(f"no such captioner: {name}", origin, nearest(name, CAPTIONERS.keys() | points.names))
    spec = points[name].load()
    if not isinstance(spec, CaptionerSpec) or spec.name != name:
        raise CerError("the plug-in does not hold the captioner that it names", f"{name} = {points[name].value}")
    return spec
