"""Phrases of captions for those of the rule-based captioner: "the lip corners are pulled up" -> "a smile".

Belongs here: the phrase for each facial action, and which sentences of a text describe a face or a voice. Does not
belong here: the phrases of the rule-based captioner (`perception.captions.rule_based.text`) or the classification of
texts (`branches.scene.au_head`).

The rule-based captioner describes facial actions, and the action-unit caption head was trained on captions that
describe the same actions in other words. Only the words change here: no action is added, left out or weighted.
Sentences on the picture, the light and the number of people describe no face and no voice, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

CAPTION_PHRASES: Final[Mapping[str, str]] = {
    "the inner ends of the brows are raised and drawn together": "the eyebrows are raised and drawn together",
    "the brows are slightly lowered and drawn together": "the eyebrows are slightly furrowed",
    "the brows are lowered and drawn together": "the eyebrows are deeply furrowed",
    "the brows lower and draw together": "the eyebrows furrow",
    "the lowered brows part again": "the furrowed eyebrows relax",
    "the inner ends of the brows": "the inner eyebrows",
    "the brows, the eyes and the mouth are at rest": "the face is relaxed, with relaxed eyebrows and a closed mouth",
    "the brows and the eyes are at rest": "the eyebrows and the eyes are relaxed",
    "one brow is raised more": "one eyebrow is raised",
    "the raised brows come down": "the raised eyebrows relax",
    "the brows": "the eyebrows",
    "the eyes are opened slightly wide": "the eyes are slightly widened",
    "the eyes are opened wide": "the eyes are wide open",
    "the eyes open wide": "the eyes widen",
    "the wide eyes return to normal": "the wide eyes relax",
    "the lip corners are slightly pulled up and back": "there is a slight smile",
    "the lip corners are pulled up and back": "there is a broad smile",
    "the lip corners pull up and back": "a smile forms",
    "the lip corners come back down": "the smile fades",
    "one lip corner is pulled up more": "there is a crooked smile",
    "the teeth show": "the teeth are visible",
    "the cheeks are raised": "the cheeks are lifted",
    "the lip corners are slightly pulled down": "the corners of the mouth are slightly turned down",
    "the lip corners are pulled down": "the corners of the mouth are turned down",
    "the lip corners pull down": "the corners of the mouth turn down",
    "the lip corners come back up": "the corners of the mouth relax",
    "one lip corner is pulled down": "one corner of the mouth is turned down",
    "the lips are stretched sideways": "the lips are stretched tightly",
    "the mouth moves in speech": "the mouth moves as they speak",
    "the gaze is directed": "the gaze is turned",
}
"""Phrase of the rule-based captioner -> phrase of captions, in the order of replacement: a phrase stands before those
that it contains."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_SETTING: Final = re.compile(r"\b(visible|no picture|the picture|the sound|there is sound|no sound)\b", re.IGNORECASE)
NO_ACTION: Final = "The face is relaxed."
"""The text where no facial action is described: the rule-based captioner describes every action that it detects."""


def caption_phrases(text: str) -> str:
    """Return a text of the rule-based captioner in the phrases of captions, without the sentences on the setting.

    Args:
        text: one or more English sentences; those without such a phrase stay as they are.
    """
    kept = [sentence for sentence in _SENTENCE.split(text) if sentence and not _SETTING.search(sentence)]
    return " ".join(_replaced(sentence) for sentence in kept) or NO_ACTION


def _replaced(sentence: str) -> str:
    words = sentence[0].lower() + sentence[1:]
    for phrase, replacement in CAPTION_PHRASES.items():
        words = re.sub(rf"\b{re.escape(phrase)}\b", replacement, words)
    return words[0].upper() + words[1:]
