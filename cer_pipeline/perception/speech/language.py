"""Language of speech: its stretches, and whether the words of a recogniser are plausible for them.

Belongs here: pure functions over speech intervals, language probabilities and words. Does not belong here: the models
that give them, or the transcripts (`asr`).

A recogniser of one language invents words of it for any other, often with high probability: fluent phrases, or one
phrase repeatedly. Two independent measurements detect that:

* the language that a multilingual model predicts, stretch by stretch, since a speaker may change the language;
* the recogniser's words: for another language they are improbable, or they repeat themselves.

The words of a stretch that is clearly of the recogniser's language are kept; a stretch that clearly is not is not
transcribed. In between the words decide. The limits are in the profile, with what they were chosen on.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ENGLISH = "en"

Span = tuple[float, float]
"""Start and end, s in the video."""


@dataclass(frozen=True)
class Rules:
    """When a stretch counts as of the recogniser's language.

    Args:
        sure: probability of the language from which the words are kept unchecked.
        least: probability below which a stretch is not transcribed.
        words: in between, least mean probability of the words.
        compression: in between, greatest `compression` of the words.
    """

    sure: float
    least: float
    words: float
    compression: float


@dataclass(frozen=True)
class Stretch:
    """Neighbouring speech with one language prediction.

    Args:
        speech: intervals, s in the video, in order; at least one.
        languages: probability by language code (ISO 639-1, as Whisper writes it).
    """

    speech: tuple[Span, ...]
    languages: Mapping[str, float]

    @property
    def likeliest(self) -> str:
        """The code of the likeliest language."""
        return max(self.languages, key=lambda code: self.languages[code])

    def probability(self, language: str) -> float:
        """Probability of a language, 0..1."""
        return self.languages.get(language, 0.0)

    def overlap_s(self, window: Span) -> float:
        """Speech inside a window, s."""
        return sum(max(0.0, min(end, window[1]) - max(start, window[0])) for start, end in self.speech)

    def distance_s(self, time_s: float) -> float:
        """Distance of a time from the span of the first to the last interval, s; 0 inside."""
        return max(0.0, self.speech[0][0] - time_s, time_s - self.speech[-1][1])


def stretches(speech: Sequence[Span], longest_s: float) -> list[tuple[Span, ...]]:
    """Neighbouring speech in parts of about equal length.

    A part of less than half of that length joins the nearer of its neighbours: the language of a word or two cannot be
    predicted.

    Args:
        speech: intervals, in order; each stays whole.
        longest_s: length of a part, unless one interval is longer, or a short one joins it.
    """
    start, end = speech[0][0], speech[-1][1]
    count = max(1, math.ceil((end - start) / longest_s))
    parts: dict[int, tuple[Span, ...]] = {}
    for a, b in speech:
        index = min(count - 1, int(((a + b) / 2 - start) / (end - start) * count))
        parts[index] = (*parts.get(index, ()), (a, b))
    return _without_short(list(parts.values()), longest_s / 2)


def _without_short(parts: list[tuple[Span, ...]], shortest_s: float) -> list[tuple[Span, ...]]:
    """The parts, with each shorter one joined to the nearer of its neighbours that is not short itself."""
    is_short = [part[-1][1] - part[0][0] < shortest_s for part in parts]
    joined: dict[int, tuple[Span, ...]] = {}
    for i, part in enumerate(parts):
        gaps = {
            j: max(parts[j][0][0] - part[-1][1], part[0][0] - parts[j][-1][1])
            for j in (i - 1, i + 1)
            if is_short[i] and 0 <= j < len(parts) and not is_short[j]
        }
        target = min(gaps, key=lambda j: gaps[j]) if gaps else i
        joined[target] = (*joined.get(target, ()), *part)
    return [joined[i] for i in sorted(joined)]


def compression(text: str) -> float:
    """Length of a text over that of its zlib form: about 1 for plain sentences, more for a phrase in a loop.

    The compression ratio of openai/whisper.
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def plausible(stretch: Stretch, language: str, words: Sequence[tuple[str, float]], rules: Rules) -> bool:
    """Whether words are a plausible transcript of a stretch.

    Args:
        stretch: the speech.
        language: the language that the recogniser assumed.
        words: each word with its probability.
        rules: see `Rules`.
    """
    probability = stretch.probability(language)
    if probability >= rules.sure:
        return True
    if probability < rules.least or not words:
        return False
    mean = sum(p for _, p in words) / len(words)
    return mean >= rules.words and compression("".join(word for word, _ in words)) <= rules.compression
