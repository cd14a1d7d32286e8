"""Whether an answer of a vision-language model is a usable caption: pure functions over texts; light at import."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.status import Status


class Answer(StrEnum):
    """What an answer is; every answer but `ok` gives a row without a text."""

    OK = "ok"
    EMPTY = "empty"
    REFUSED = "refused"
    CUT_OFF = "cut_off"  # the server stopped at the largest number of tokens
    TOO_LONG = "too_long"  # models that repeat themselves write on
    WRONG_LANGUAGE = "wrong_language"
    LABEL_ONLY = "label_only"


STATUS: Final = dict.fromkeys(Answer, Status.NO_CAPTION) | {
    Answer.OK: Status.OK,
    Answer.WRONG_LANGUAGE: Status.NOT_ENGLISH,
}
"""Status of the row of an answer."""

LABEL_WORDS: Final = 6
"""An answer of at most so many words that names a label is a label: "The emotion is Sadly Fearful." has five."""

ENGLISH_WORDS: Final = frozenset(
    ["the", "of", "and", "is", "are", "with", "their", "his", "her", "that", "this", "which", "be", "from", "by", "as"]
)
ENGLISH_SHARE: Final = 0.04
"""Least share of `ENGLISH_WORDS` in an English text: the least of 16815 captions of Qwen2.5-VL is 0.07."""
LANGUAGE_WORDS: Final = 12
"""Words from which the language is tested: a short sentence may have none of `ENGLISH_WORDS`."""
LATIN_SHARE: Final = 0.5
"""Least share of ASCII letters among all letters of an English text."""

_REFUSAL: Final = re.compile(
    r"i['’]?m sorry|i am sorry|sorry,|i apologi[sz]e|as an ai\b|unfortunately, i\b"
    r"|i (can['’]?t|cannot|can not|won['’]t|am unable|am not able)|i['’]m (unable|not able)",
    re.IGNORECASE,
)
"""How refusals begin."""
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_LABELS: Final = re.compile(rf"\b({'|'.join((*COMPOUND, *BASIC))})\b", re.IGNORECASE)  # compounds first


def assess(text: str, finish_reason: str, longest_words: int, *, refused: bool = False) -> Answer:
    """What an answer is.

    Args:
        text: the answer with single blanks.
        finish_reason: as the server states it; "length" where it stopped at the largest number of tokens.
        longest_words: words from which an answer is too long.
        refused: whether the server marks the answer as a refusal.
    """
    words = _LETTERS.findall(text.lower())
    if refused or _REFUSAL.match(text.lstrip("\"'*# ")):
        return Answer.REFUSED
    if not words:
        return Answer.EMPTY
    if finish_reason == "length":
        return Answer.CUT_OFF
    if len(words) > longest_words:
        return Answer.TOO_LONG
    if not _is_english(words):
        return Answer.WRONG_LANGUAGE
    if len(words) <= LABEL_WORDS and labels_in(text):
        return Answer.LABEL_ONLY
    return Answer.OK


def labels_in(text: str) -> set[str]:
    """The labels that a text names, as they are written in `labels`; a compound does not count as its parts."""
    names = {label.lower(): label for label in (*COMPOUND, *BASIC)}
    return {names[match.lower()] for match in _LABELS.findall(text)}


def _is_english(words: list[str]) -> bool:
    letters = "".join(words)
    if sum(c.isascii() for c in letters) < LATIN_SHARE * len(letters):
        return False
    return len(words) < LANGUAGE_WORDS or sum(w in ENGLISH_WORDS for w in words) >= ENGLISH_SHARE * len(words)
