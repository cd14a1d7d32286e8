"""The branches over transcripts by encoders of the model hub: text_jina, text_roberta, text_clip (Table 1, 11 to 13).

Belongs here: their specs; light at import. Does not belong here: the stages, encoders and heads (`branches.encoders`).
"""

from __future__ import annotations

from typing import Final

from cer_pipeline.branches.encoders.specs import text_branch

TEXT_JINA: Final = text_branch("text_jina", "Transcript (Jina v3)", "text", 11, "transcripts")
TEXT_ROBERTA: Final = text_branch("text_roberta", "Transcript (RoBERTa)", "text", 12, "transcripts")
TEXT_CLIP: Final = text_branch("text_clip", "Transcript (CLIP)", "text", 13, "transcripts")
