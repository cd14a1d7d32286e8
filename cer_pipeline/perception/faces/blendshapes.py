"""The names of MediaPipe's 52 blendshape scores, in the order in which the FaceLandmarker gives them.

Belongs here: names and their positions, for everyone who reads the `blendshapes` column of the faces table. Light: it
imports nothing. Does not belong here: the model (`landmarks`) or any meaning of an expression (`branches`).

Source: the category names of the task file face_landmarker.task (float16/1). Apart from `_neutral` they are the names
of Apple ARKit's ARFaceAnchor.BlendShapeLocation. Left and right are the person's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BLENDSHAPES: Final[tuple[str, ...]] = (
    "_neutral",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
)
"""The 52 names; position in this tuple = position in the `blendshapes` column."""

INDEX: Final[Mapping[str, int]] = MappingProxyType({name: i for i, name in enumerate(BLENDSHAPES)})
"""Position of every name: INDEX["jawOpen"] == 25."""
