"""Speech recognition: Whisper or Parakeet over the speech of a video, and the words of every window.

Belongs here: Whisper, the chunks of a recogniser's input, the guards against invented words, the rows of `transcripts`.
Does not belong here: other recognisers (`parakeet`, `parakeet_nemo`), speech detection (`vad`), the rules on languages
(`language`) or emotions of words (`branches.text.branch`).

Parakeet may also be given each window with speech, whole and alone, as in the paper (`transcripts_parakeet.scope`). The
rules hold for all recognisers, except that a window is no chunk:

* Whisper is given speech only: neighbouring speech intervals make one chunk while the silence between them is short and
  the chunk fits into its 30 s (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022).
* Whisper tiny.en is trained on English alone and invents English words for other languages. Whisper base therefore
  predicts the language of every stretch of a few seconds first, out of 99; `language` has the rules. Where Whisper base
  is the recogniser as well, every stretch is transcribed in its own language.
* Both are given the sound with the gain of the speech detector (`vad.amplified`).
* Decoding is deterministic: beam search at temperature 0, no retry by sampling, no text of the chunk before.
* A stretch with a high probability of silence and improbable words is dropped (`no_speech_prob` above and mean log
  probability below a limit: the rule of openai/whisper).
* A phrase that repeats itself in direct succession is a decoding loop: the first few stay, the rest goes.
* A word that touches no speech interval is dropped.
* A word belongs to every window that holds its middle, so to two where windows overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from numpy.typing import NDArray

from cer_pipeline.perception.speech.language import ENGLISH, Rules, Span, Stretch, plausible, stretches
from cer_pipeline.perception.speech.recognisers import (
    DETECTOR,
    PARAKEET,
    PARAKEET_NEMO,
    PARAKEET_SECTION,
    recogniser_of,
)
from cer_pipeline.perception.speech.vad import amplified, read_sound
from cer_pipeline.perception.speech.word import Word
from cer_pipeline.profiles.sections import Loudness
from cer_pipeline.sound_file import SAMPLE_RATE_HZ
from cer_pipeline.stage import UNIT, StageContext, video_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import TRANSCRIPTS

NO_WORD: Final = "speech was heard, but no word recognised"

_FRAMES: Final = 100  # log-mel frames a second
_ENCODER_INPUT_S: Final = (4.0, 30.0)  # least and greatest length of the encoder's input for predicting the language
_SILENCE_S: Final = 1.0  # behind the speech, as in the 30 s that Whisper was trained on


class Whisper:
    """The recogniser.

    Args:
        folder: folder with model.bin, config.json, tokenizer.json and vocabulary.txt.
        compute_type: arithmetic of the runtime: int8 or float32.
        beam_size: hypotheses of the beam search.
        no_speech: probability of silence above which an unsure stretch is dropped.
        log_probability: mean log probability below which a stretch counts as unsure.
        threads: threads of the runtime.
    """

    def __init__(
        self,
        folder: Path,
        *,
        compute_type: str,
        beam_size: int,
        no_speech: float,
        log_probability: float,
        threads: int = 1,
    ) -> None:
        self._model = WhisperModel(
            str(folder), device="cpu", compute_type=compute_type, cpu_threads=threads, local_files_only=True
        )
        self._beam_size = beam_size
        self._no_speech = no_speech
        self._log_probability = log_probability

    def languages(self, sound: NDArray[np.float32]) -> dict[str, float]:
        """Probability of every language of the model, by its code.

        The encoder is given the sound and a second of silence, not Whisper's 30 s: for 5 s that takes a fifth of the
        time and differs by 0.05 at most in the clips of one language.

        Args:
            sound: mono, 16 kHz, -1..1; anything beyond 30 s is ignored.
        """
        shortest, longest = _ENCODER_INPUT_S
        input_s = min(longest, max(shortest, len(sound) / SAMPLE_RATE_HZ + _SILENCE_S))
        mel = pad_or_trim(self._model.feature_extractor(sound), round(input_s * _FRAMES))
        languages = self._model.model.detect_language(self._model.encode(mel))[0]
        return {token.strip("<|>"): float(probability) for token, probability in languages}

    def __call__(self, sound: NDArray[np.float32], language: str = ENGLISH) -> list[Word]:
        """Words of a sound of at most 30 s, with times from its start.

        Args:
            sound: mono, 16 kHz, -1..1.
            language: code of the language; a model of one language ignores it.
        """
        segments, _ = self._model.transcribe(
            sound,
            language=language,
            beam_size=self._beam_size,
            temperature=[0.0],  # one temperature: no retry by sampling
            compression_ratio_threshold=None,
            log_prob_threshold=self._log_probability,
            no_speech_threshold=self._no_speech,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,
        )
        return [
            Word(word.word, float(word.start), float(word.end), float(word.probability))
            for segment in segments
            for word in segment.words or ()
        ]


def chunks(speech: Sequence[Span], longest_s: float, silence_s: float) -> list[Span]:
    """Neighbouring speech intervals as spans for the recogniser.

    Args:
        speech: intervals in order, none longer than `longest_s`.
        longest_s: greatest length of a span.
        silence_s: greatest silence inside a span.
    """
    spans: list[Span] = []
    for start, end in speech:
        if spans and start - spans[-1][1] <= silence_s and end - spans[-1][0] <= longest_s:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def without_loops(words: Sequence[Word], longest: int, keep: int) -> list[Word]:
    """The words with every phrase that repeats itself in direct succession cut to its first `keep` times.

    Args:
        words: in order.
        longest: words of the longest phrase that is looked for.
        keep: how often a phrase may stand in a row.
    """
    kept: list[Word] = []
    for word in words:
        kept.append(word)
        for n in range(1, longest + 1):
            tail = [_plain(w.word) for w in kept[-n * (keep + 1) :]]
            if len(tail) == n * (keep + 1) and all(tail[i] == tail[i % n] for i in range(len(tail))):
                del kept[-n:]
                break
    return kept


def _plain(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


def within_speech(words: Sequence[Word], speech: Sequence[Span], slack_s: float) -> list[Word]:
    """The words that overlap with speech.

    Args:
        words: any words.
        speech: intervals.
        slack_s: distance from an interval at which a word still counts, since its times are estimated from attention.
    """
    return [
        word
        for word in words
        if any(word.start_s < end + slack_s and word.end_s > start - slack_s for start, end in speech)
    ]


def in_window(words: Sequence[Word], window: Span, last: bool) -> list[Word]:
    """The words whose middle lies in [start, end); in the last window, whose sound may outlast its end, from start on.

    Args:
        words: in order.
        window: start and end.
        last: whether the window ends with the video.
    """
    start, end = window
    return [word for word in words if start <= word.middle_s and (last or word.middle_s < end)]


@dataclass(frozen=True)
class Transcribed:
    """A stretch of speech with its transcript.

    Args:
        stretch: when, with the language probabilities.
        language: code of the language of its words, or of the likeliest one where there are none.
        words: words whose middle lies in it or next to it; empty where they are implausible.
        status: ok, or why there are no words.
        reason: the status in words.
    """

    stretch: Stretch
    language: str
    words: list[Word]
    status: Status = Status.OK
    reason: str | None = None


def transcribed(stretch: Stretch, language: str, words: list[Word], rules: Rules, model: str) -> Transcribed:
    """The words of a stretch, or the reason why they are not kept.

    Args:
        stretch: the speech.
        language: the language that the recogniser assumed; empty where it was not run.
        words: its words.
        rules: when words are plausible.
        model: zoo id of the recogniser, for the reason.
    """
    likeliest = stretch.likeliest
    english = f"English {stretch.probability(ENGLISH):.2f}"
    likely = english if likeliest == ENGLISH else f"{likeliest} {stretch.probability(likeliest):.2f}, {english}"
    if not language:
        reason = f"the language is another one ({likely}), and {model} knows English only"
        return Transcribed(stretch, likeliest, [], Status.NOT_ENGLISH, reason)
    if words and plausible(stretch, language, [(word.word, word.probability) for word in words], rules):
        return Transcribed(stretch, language, words)
    other = model != DETECTOR and likeliest != ENGLISH
    status = Status.NOT_ENGLISH if other else Status.EMPTY_TRANSCRIPT
    what = f"the words are not believed: mean probability {_mean(words):.2f}" if words else NO_WORD
    return Transcribed(stretch, likeliest, [], status, f"{what}, language {likely}" if words or other else what)


def _mean(words: Sequence[Word]) -> float:
    return sum(word.probability for word in words) / len(words)


def window_row(transcript: Sequence[Transcribed], window: Span, last: bool) -> dict[str, Any] | None:
    """Text, words, language and status of a window; None for a window without speech.

    The text is in one language, that of most of the speech whose words are kept. Without words, the status and reason
    are those of the stretch with most speech in the window.

    Args:
        transcript: the stretches of the video, in order.
        window: start and end, s.
        last: whether the window ends with the video.
    """
    shares = [part.stretch.overlap_s(window) for part in transcript]
    inside = [part for part, share in zip(transcript, shares, strict=True) if share > 0]
    row: dict[str, Any] = {}
    if inside:
        total = sum(shares)
        english = sum(part.stretch.probability(ENGLISH) * share for part, share in zip(transcript, shares, strict=True))
        row["english"] = english / total
    words_of = [(part, in_window(part.words, window, last)) for part in transcript]
    speech_s: dict[str, float] = {}
    for (part, words), share in zip(words_of, shares, strict=True):
        if words:
            speech_s[part.language] = speech_s.get(part.language, 0.0) + share
    if speech_s:
        language = max(speech_s, key=lambda code: speech_s[code])
        words = [word for part, inside_words in words_of if part.language == language for word in inside_words]
        text = "".join(word.word for word in words).strip()
        stored = [_stored(word) for word in words]
        return row | {"status": str(Status.OK), "text": text, "words": stored, "language": language}
    if not inside:
        return None
    main = transcript[max(range(len(transcript)), key=lambda i: shares[i])]
    status, reason = (main.status, main.reason) if main.status != Status.OK else (Status.EMPTY_TRANSCRIPT, NO_WORD)
    return row | {"status": str(status), "reason": reason, "language": main.language}


Recogniser = Callable[[NDArray[np.float32], str], list[Word]]
"""(mono sound at 16 kHz, code of the language) -> words with times from its start."""
TranscriptOf = Callable[[Span], Sequence[Transcribed]]
"""Window -> the transcript from which its row is made."""


def _nothing(_: Span) -> Sequence[Transcribed]:
    return ()


class Transcripts:
    """Words of every window of a video."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._settings = settings = context.profile["transcripts"]
        self._model = recogniser_of(context.profile)
        self._parakeet = context.profile[PARAKEET_SECTION] if self._model == PARAKEET else {}
        self._loudness = Loudness(**context.profile["loudness"])
        self._rules = Rules(
            sure=settings["language_sure"],
            least=settings["language_least"],
            words=settings["word_probability"],
            compression=settings["compression"],
        )

    def _load_parakeet(self) -> Recogniser:
        from cer_pipeline.torch_batches import choose_device

        device = choose_device(self._context.profile["execution"]["device"])
        if self._parakeet["runtime"] == "nemo":
            from cer_pipeline.perception.speech.parakeet_nemo import NemoParakeet

            return NemoParakeet(self._context.weights.path(PARAKEET_NEMO), self._parakeet["local_attention"], device)
        from cer_pipeline.perception.speech.parakeet import Parakeet

        return Parakeet(self._context.weights.path(PARAKEET), device)

    def _load(self, model: str) -> Whisper:
        settings = self._settings
        return Whisper(
            self._context.weights.path(model),
            compute_type=settings["compute_type"],
            beam_size=settings["beam_size"],
            no_speech=settings["no_speech"],
            log_probability=settings["log_probability"],
            threads=self._context.profile["execution"]["threads"],
        )

    @cached_property
    def _recogniser(self) -> Recogniser:
        """The recogniser; loaded with the first speech."""
        if self._model == PARAKEET:
            return self._load_parakeet()
        return self._detector if self._model == DETECTOR else self._load(self._model)

    @cached_property
    def _detector(self) -> Whisper:
        return self._load(DETECTOR)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the transcripts table for a batch of videos."""
        rows = [row for video in units.column(UNIT).to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=TRANSCRIPTS.schema)

    def _video(self, video: str) -> list[dict[str, Any]]:
        intervals = self._read("speech", video, ["start_s", "end_s", "status", "reason"])
        speech = [(row["start_s"], row["end_s"]) for row in intervals if row["status"] == Status.OK]
        transcript_of = self._transcripts(video, speech) if speech else _nothing
        silence = (
            {"status": str(Status.NO_SPEECH), "reason": "no speech was heard"}
            if not intervals or intervals[0]["status"] in (Status.OK, Status.NO_SPEECH)
            else {"status": intervals[0]["status"], "reason": intervals[0]["reason"]}
        )
        rows = []
        for segment in self._read("segments", video, ["segment_id", "segment", "start_s", "end_s", "is_tail"]):
            window = (segment["start_s"], segment["end_s"])
            row = {
                "segment_id": segment["segment_id"],
                "video_id": video,
                "segment": segment["segment"],
                "model": self._model,
            }
            rows.append(row | (window_row(transcript_of(window), window, segment["is_tail"]) or silence))
        return rows

    def _read(self, table: str, video: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        return list(video_rows(self._context.inputs, table, video, columns))

    def _transcripts(self, video: str, speech: Sequence[Span]) -> TranscriptOf:
        """The transcript from which the row of a window is made: that of the whole video, or of the window alone."""
        sound = amplified(read_sound(self._read("audio", video, ["flac"])[0]["flac"]), self._loudness)
        found = self._stretches(sound, speech)
        if self._parakeet.get("scope") == "window":
            known = list(found)
            return lambda window: self._of_window(sound, known, window)
        transcript = self._of_video(sound, found)
        return lambda _: transcript

    def _of_video(self, sound: NDArray[np.float32], found: Iterable[Stretch]) -> list[Transcribed]:
        """The transcript of a video, stretch by stretch."""
        settings = self._settings
        transcript: list[Transcribed] = []
        # Neighbours of one language are transcribed together, since a recogniser needs the context.
        for language, group in groupby(found, self._assumed_language):
            run = list(group)
            speech = [interval for stretch in run for interval in stretch.speech]
            spans = [self._samples(*span) for span in chunks(speech, settings["chunk_s"], settings["chunk_silence_s"])]
            words = self._words(sound, spans if language else [], speech, language)
            transcript += self._parts(run, *words)
        return transcript

    def _of_window(self, sound: NDArray[np.float32], found: Sequence[Stretch], window: Span) -> list[Transcribed]:
        """The transcript of a window: its sound alone, for each stretch of speech that reaches into it."""
        run = [stretch for stretch in found if stretch.overlap_s(window) > 0]
        speech = [interval for stretch in run for interval in stretch.speech]
        is_english = any(self._assumed_language(stretch) for stretch in run)
        start, end = (round(time_s * SAMPLE_RATE_HZ) for time_s in window)
        return self._parts(run, *self._words(sound, [(start, end)] if is_english else [], speech, ENGLISH))

    def _parts(self, run: Sequence[Stretch], words: Sequence[Word], loops: set[Word]) -> list[Transcribed]:
        """Each stretch with the words that are nearest to it."""
        parts = []
        for i, stretch in enumerate(run):
            nearest = [word for word in words if _nearest(run, word.middle_s) == i]
            part = transcribed(stretch, self._assumed_language(stretch), nearest, self._rules, self._model)
            parts.append(replace(part, words=[word for word in part.words if word not in loops]))
        return parts

    def _stretches(self, sound: NDArray[np.float32], speech: Sequence[Span]) -> Iterator[Stretch]:
        settings = self._settings
        for start, end in chunks(speech, settings["chunk_s"], settings["chunk_silence_s"]):
            inside = [span for span in speech if start <= span[0] and span[1] <= end]
            for part in stretches(inside, settings["language_s"]):
                first, last = self._samples(part[0][0], part[-1][1])
                yield Stretch(part, self._detector.languages(sound[first:last]))
                self._context.counters[f"calls/{DETECTOR}"] += 1

    def _assumed_language(self, stretch: Stretch) -> str:
        """The language that the recogniser assumes for a stretch; empty where it is to be left out."""
        if self._model == DETECTOR:
            return stretch.likeliest
        return ENGLISH if stretch.probability(ENGLISH) >= self._rules.least else ""

    def _words(
        self, sound: NDArray[np.float32], spans: Iterable[tuple[int, int]], speech: Sequence[Span], language: str
    ) -> tuple[list[Word], set[Word]]:
        """The words in speech, and those of them that continue a loop, which `plausible` must see as well.

        Args:
            sound: of the video.
            spans: first sample, and the one after the last, of each sound that the recogniser is given.
            speech: intervals that words must touch.
            language: that the recogniser assumes.
        """
        settings = self._settings
        words: list[Word] = []
        loops: set[Word] = set()
        for first, last in spans:
            chunk = self._recogniser(sound[first:last], language)
            self._context.counters[f"calls/{self._model}"] += 1
            chunk = [_shifted(word, first / SAMPLE_RATE_HZ, len(sound) / SAMPLE_RATE_HZ) for word in chunk]
            loops |= {*chunk} - {*without_loops(chunk, settings["loop_words"], settings["loop_keep"])}
            words += chunk
        return within_speech(words, speech, settings["word_slack_s"]), loops

    def _samples(self, start_s: float, end_s: float) -> tuple[int, int]:
        """First sample of a span with its lead, and the sample after its last one."""
        lead_s = self._settings["lead_s"]
        return max(0, round((start_s - lead_s) * SAMPLE_RATE_HZ)), round((end_s + lead_s) * SAMPLE_RATE_HZ)


def _nearest(run: Sequence[Stretch], time_s: float) -> int:
    return min(range(len(run)), key=lambda i: run[i].distance_s(time_s))


def _shifted(word: Word, by_s: float, until_s: float) -> Word:
    """The word in time of the video; the recogniser may place an end beyond the sound."""
    end = min(word.end_s + by_s, until_s)
    return replace(word, start_s=min(word.start_s + by_s, end), end_s=end)


def _stored(word: Word) -> dict[str, Any]:
    return {"word": word.word.strip(), "start_s": word.start_s, "end_s": word.end_s, "probability": word.probability}
