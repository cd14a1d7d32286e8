"""Which branches there are and which of them a profile enables.

Belongs here: the list, plug-ins, and the check of names. Light: it imports specs, no model library.
Does not belong here: what a branch is (`cer_pipeline.branch`) or does (one folder a modality).

A plug-in is a distribution with an entry point in the group `cer_pipeline.branches`: its name is the branch's name, its
object a `BranchSpec`. It is loaded only where a profile enables it.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches.audio import specs as audio
from cer_pipeline.branches.audio import wavlm_specs as wavlm
from cer_pipeline.branches.face import specs as face
from cer_pipeline.branches.scene import branch as scene
from cer_pipeline.branches.scene import encoded as encoded_scene
from cer_pipeline.branches.scene.label_clip_specs import SCENE_LABEL_CLIP
from cer_pipeline.branches.text import branch as text
from cer_pipeline.branches.text import encoded as encoded_text
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import Profile

GROUP: Final = "cer_pipeline.branches"
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


def shipped() -> dict[str, BranchSpec]:
    """The branches of this project, by name, in the order of Table 1's families."""
    found = (
        face.FACE_STATIC,
        face.FACE_EMO_TRANSFORMER,
        face.FACE_EMO_MAMBA,
        face.FACE_EMOAFFECTNET,
        face.FACE_EMOAFFECTNET_TRANSFORMER,
        face.FACE_EMOAFFECTNET_MAMBA,
        face.FACE_CLIP_TRANSFORMER,
        face.FACE_CLIP_MAMBA,
        scene.SCENE_MINILM,
        scene.SCENE_LABEL,
        audio.AUDIO_UNCERTAINTY,
        audio.AUDIO_BILSTM,
        wavlm.AUDIO_WAVLM_UNCERTAINTY,
        wavlm.AUDIO_WAVLM_BILSTM,
        text.TEXT_MINILM,
        encoded_scene.SCENE_JINA,
        encoded_scene.SCENE_ROBERTA,
        encoded_scene.SCENE_CLIP,
        encoded_text.TEXT_JINA,
        encoded_text.TEXT_ROBERTA,
        encoded_text.TEXT_CLIP,
        SCENE_LABEL_CLIP,
    )
    return {branch.name: branch for branch in found}


def branches(profile: Profile) -> tuple[BranchSpec, ...]:
    """The branches that a profile enables, in its order: `branches.enabled`.

    Raises:
        CerError: a name that no branch has, that stands twice, or a plug-in that is no branch.
    """
    enabled: list[str] = list(profile["branches"]["enabled"])
    twice = sorted({name for name in enabled if enabled.count(name) > 1})
    if twice:
        raise CerError("a branch is enabled twice", ", ".join(twice), "name it once in branches.enabled")
    own = shipped()
    return tuple(own[name] if name in own else _plugin(name, own) for name in enabled)


def _plugin(name: str, own: dict[str, BranchSpec]) -> BranchSpec:
    points = metadata.entry_points(group=GROUP)
    if name not in points.names:
        known = ", ".join([*own, *sorted(points.names - own.keys())])
        raise CerError("no such branch", name, f"choose from: {known}")
    branch = points[name].load()
    if not isinstance(branch, BranchSpec) or branch.name != name or not NAME.fullmatch(name):
        raise CerError("the plug-in does not hold the branch that it names", f"{name} = {points[name].value}")
    return branch
