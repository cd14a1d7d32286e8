"""What is said: Whisper tiny.en over the speech of a video, and the words of every window.

Belongs here: the recogniser, the chunks that it hears, the guards against invented words, the stage behind the
transcripts table. Does not belong here: when somebody speaks (`speech`) or what the words mean (`branches.text`).

Rules:

* Whisper hears speech only: neighbouring speech intervals make one chunk while the silence between them is short and
  the chunk fits into its 30 s (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022).
* Decoding is deterministic: beam search at temperature 0, no retry by sampling, no text of the chunk before.
* A stretch that the model itself calls silent and is unsure of is dropped (`no_speech_prob` above and mean log
  probability below a limit: the rule of openai/whisper).
* A phrase that repeats itself in direct succession is a decoding loop: the first few stay, the rest goes.
* A word that touches no speech interval is dropped.
* A word belongs to every window that holds its middle, so to two where windows overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from faster_whisper import WhisperModel
from numpy.typing import NDArray

from cer_pipeline.perception.speech import RATE, read_sound
from cer_pipeline.stage import UNIT, StageContext
from cer_pipeline.status import Status
from cer_pipeline.tables import TRANSCRIPTS

MODEL: Final = "whisper_tiny_en"

Span = tuple[float, float]
"""Start and end, s in the video."""


@dataclass(frozen=True)
class Word:
    """A word as written, with a leading space where one belongs; times in s, probability 0..1."""

    word: str
    start_s: float
    end_s: float
    probability: float

    @property
    def middle_s(self) -> float:
        """The time that decides to which windows the word belongs."""
        return (self.start_s + self.end_s) / 2


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

    def __call__(self, sound: NDArray[np.float32]) -> list[Word]:
        """Words of a sound of at most 30 s, with times from its start.

        Args:
            sound: mono, 16 kHz, -1..1.
        """
        stretches, _ = self._model.transcribe(
            sound,
            language="en",
            beam_size=self._beam_size,
            temperature=[0.0],  # one temperature: nothing to fall back to
            compression_ratio_threshold=None,
            log_prob_threshold=self._log_probability,
            no_speech_threshold=self._no_speech,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,
        )
        return [
            Word(word.word, float(word.start), float(word.end), float(word.probability))
            for stretch in stretches
            for word in stretch.words or ()
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


def spoken(words: Sequence[Word], speech: Sequence[Span], slack_s: float) -> list[Word]:
    """The words that touch speech.

    Args:
        words: any words.
        speech: intervals.
        slack_s: how far a word may lie beside an interval, since its times come from attention and are not exact.
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


class Transcripts:
    """Words of every window of a video."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._settings = settings = context.profile["transcripts"]
        self._whisper = Whisper(
            context.weights.path(MODEL),
            compute_type=settings["compute_type"],
            beam_size=settings["beam_size"],
            no_speech=settings["no_speech"],
            log_probability=settings["log_probability"],
            threads=context.profile["execution"]["threads"],
        )

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the transcripts table for a batch of videos."""
        rows = [row for video in units.column(UNIT).to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=TRANSCRIPTS.schema)

    def _video(self, video: str) -> list[dict[str, Any]]:
        intervals = self._read("speech", video, ["start_s", "end_s", "status", "reason"])
        speech = [(row["start_s"], row["end_s"]) for row in intervals if row["status"] == Status.OK]
        words = self._words(video, speech) if speech else []
        rows = []
        for segment in self._read("segments", video, ["segment_id", "segment", "start_s", "end_s", "is_tail"]):
            window = (segment["start_s"], segment["end_s"])
            row: dict[str, Any] = {
                "segment_id": segment["segment_id"],
                "video_id": video,
                "segment": segment["segment"],
                "model": MODEL,
            }
            said = in_window(words, window, segment["is_tail"])
            if said:
                text = "".join(word.word for word in said).strip()
                row |= {"status": str(Status.OK), "text": text, "words": [_stored(word) for word in said]}
            elif any(start < window[1] and end > window[0] for start, end in speech):
                row |= {"status": str(Status.EMPTY_TRANSCRIPT), "reason": "speech was heard, but no word recognised"}
            elif not intervals or intervals[0]["status"] in (Status.OK, Status.NO_SPEECH):
                row |= {"status": str(Status.NO_SPEECH), "reason": "no speech was heard"}
            else:
                row |= {"status": intervals[0]["status"], "reason": intervals[0]["reason"]}
            rows.append(row)
        return rows

    def _read(self, table: str, video: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        return [row for batch in self._context.inputs.batches(table, video, columns) for row in batch.to_pylist()]

    def _words(self, video: str, speech: Sequence[Span]) -> list[Word]:
        settings = self._settings
        sound = read_sound(self._read("audio", video, ["flac"])[0]["flac"])
        words: list[Word] = []
        for start, end in chunks(speech, settings["chunk_s"], settings["chunk_silence_s"]):
            first = max(0, round((start - settings["lead_s"]) * RATE))
            heard = self._whisper(sound[first : round((end + settings["lead_s"]) * RATE)])
            self._context.counters[f"calls/{MODEL}"] += 1
            heard = without_loops(heard, settings["loop_words"], settings["loop_keep"])
            words += [_shifted(word, first / RATE, len(sound) / RATE) for word in heard]
        return spoken(words, speech, settings["word_slack_s"])


def _shifted(word: Word, by_s: float, until_s: float) -> Word:
    """The word in time of the video; the recogniser may place an end beyond the sound."""
    end = min(word.end_s + by_s, until_s)
    return replace(word, start_s=min(word.start_s + by_s, end), end_s=end)


def _stored(word: Word) -> dict[str, Any]:
    return {"word": word.word.strip(), "start_s": word.start_s, "end_s": word.end_s, "probability": word.probability}
