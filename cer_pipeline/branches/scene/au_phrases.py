"""The describer's signs in the words that people, and captions, use: "the lip corners are pulled up" -> "a smile".

Belongs here: the words of each sign, and which sentences of a text are of signs at all. Does not belong here: the
describer's own words (`perception.captions.rule_based.text`), or what signs are taken for (`branches.scene.au_head`).

The describer names what a face does, and a head that learned from captions knows those doings under other names. Only
the name changes here: no sign is added, left out or weighed. Sentences on the picture, the light and the number of
people say nothing of a face or a voice, and are left out.
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
"""The describer's phrase -> the plain one, in the order of replacement: longer phrases before those they contain."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_NO_SIGN: Final = re.compile(r"\b(visible|no picture|the picture|the sound|there is sound|no sound)\b", re.IGNORECASE)
NO_ACTION: Final = "The face is relaxed."
"""What is read where no sign is told: the describer tells every sign that it sees."""


def caption_phrases(text: str) -> str:
    """The signs of a describer's text in plain words; other texts stay as they are but for sentences without a sign.

    Args:
        text: one or more English sentences.
    """
    kept = [sentence for sentence in _SENTENCE.split(text) if sentence and not _NO_SIGN.search(sentence)]
    return " ".join(_renamed(sentence) for sentence in kept) or NO_ACTION


def _renamed(sentence: str) -> str:
    words = sentence[0].lower() + sentence[1:]
    for phrase, plain in CAPTION_PHRASES.items():
        words = re.sub(rf"\b{re.escape(phrase)}\b", plain, words)
    return words[0].upper() + words[1:]
