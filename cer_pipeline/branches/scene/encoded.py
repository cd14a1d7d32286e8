"""The branches over captions by encoders of the model hub: scene_jina, scene_roberta and scene_clip (Table 1, 6 to 8).

Belongs here: their specs; light at import. Does not belong here: the stages, encoders and heads (`branches.encoders`).
"""

from __future__ import annotations

from typing import Final

from cer_pipeline.branches.encoders.specs import text_branch

SCENE_JINA: Final = text_branch("scene_jina", "Scene caption (Jina v3)", "scene", 6, "captions")
SCENE_ROBERTA: Final = text_branch("scene_roberta", "Scene caption (RoBERTa)", "scene", 7, "captions")
SCENE_CLIP: Final = text_branch("scene_clip", "Scene caption (CLIP)", "scene", 8, "captions")
