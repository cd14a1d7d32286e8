"""Voice activity detection: Silero VAD over the sound of a video.

Belongs here: the network, the gain of quiet sound for it and the recogniser, the rules from probabilities to intervals,
the rows of `speech`. Does not belong here: words (`asr`) or emotions of the voice (`branches.audio.specs`).

Source of network and rules: snakers4/silero-vad, version 6. The input of a step is the last 64 samples of the
chunk before and 512 new ones at 16 kHz; the state is kept over the whole sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.profiles.sections import Loudness
from cer_pipeline.profiles.sections import Speech as Rules
from cer_pipeline.sound_file import SAMPLE_RATE_HZ, read_sound_file
from cer_pipeline.stage import UNIT, StageContext, video_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import SPEECH

CHUNK: Final = 512  # new samples per step at 16 kHz
CONTEXT: Final = 64  # samples of the chunk before, at 16 kHz
STATE: Final = (2, 1, 128)  # of the recurrent layer
STEP_S: Final = CHUNK / SAMPLE_RATE_HZ
BLOCK: Final = 320  # samples of a block whose level is measured: 20 ms


@dataclass(frozen=True)
class Interval:
    """Speech from `start_s` to `end_s`; `score` is the mean probability of its steps, before padding."""

    start_s: float
    end_s: float
    score: float


class SileroVad:
    """The network.

    Args:
        model: the file silero_vad.onnx.
    """

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # steps are sequential and small: more threads would idle
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probability of every step of 32 ms; the last chunk is filled with silence.

        Args:
            sound: mono, 16 kHz, -1..1.
        """
        steps = -(-len(sound) // CHUNK)
        padded = np.zeros(CONTEXT + steps * CHUNK, np.float32)
        padded[CONTEXT : CONTEXT + len(sound)] = sound
        state = np.zeros(STATE, np.float32)
        rate = np.array(SAMPLE_RATE_HZ, np.int64)
        probabilities = np.empty(steps, np.float32)
        for i in range(steps):
            chunk = padded[None, i * CHUNK : i * CHUNK + CONTEXT + CHUNK]
            out, state = self._session.run(None, {"input": chunk, "state": state, "sr": rate})
            probabilities[i] = np.asarray(out)[0, 0]
        return probabilities


def intervals(probabilities: Sequence[float] | NDArray[np.float32], duration_s: float, rules: Rules) -> list[Interval]:
    """Speech intervals from the probabilities of steps of 32 ms.

    Args:
        probabilities: one per step.
        duration_s: length of the sound, s; no interval ends later.
        rules: section [speech] of the profile.
    """
    p = np.asarray(probabilities, np.float64)
    steps: list[tuple[int, int]] = []
    for run in _runs(p, rules):
        if (run[1] - run[0]) * STEP_S >= rules.min_speech_s:
            steps += _cut(p, run, int(rules.max_speech_s / STEP_S))
    edges = [(start * STEP_S, min(end * STEP_S, duration_s)) for start, end in steps]
    scores = [float(p[start:end].mean()) for start, end in steps]
    return [Interval(*edge, score) for edge, score in zip(_padded(edges, duration_s, rules.pad_s), scores, strict=True)]


def _runs(p: NDArray[np.float64], rules: Rules) -> list[tuple[int, int]]:
    """Runs of speech as (first step, step after the last), with short silences bridged."""
    patience = rules.min_silence_s / STEP_S
    runs: list[tuple[int, int]] = []
    start: int | None = None  # of the run that is open
    quiet: int | None = None  # first step of the silence that may end it
    for i, value in enumerate(p):
        if value >= rules.threshold:
            start, quiet = i if start is None else start, None
        elif start is not None and value < rules.release:
            quiet = i if quiet is None else quiet
        if start is not None and quiet is not None and i - quiet + 1 >= patience:
            runs.append((start, quiet))
            start = quiet = None
    if start is not None:
        runs.append((start, len(p) if quiet is None else quiet))
    return runs


def _cut(p: NDArray[np.float64], run: tuple[int, int], longest: int) -> list[tuple[int, int]]:
    """The run in parts of at most `longest` steps, cut at the least probable step of the second half of each."""
    start, end = run
    parts = []
    while end - start > longest:
        half = start + longest // 2
        at = half + int(np.argmin(p[half : start + longest]))
        parts.append((start, at))
        start = at
    return [*parts, (start, end)]


def _padded(edges: Sequence[tuple[float, float]], duration_s: float, pad_s: float) -> list[tuple[float, float]]:
    starts = [max(0.0, start - pad_s) for start, _ in edges]
    ends = [min(duration_s, end + pad_s) for _, end in edges]
    for i in range(1, len(edges)):
        if ends[i - 1] > starts[i]:
            ends[i - 1] = starts[i] = (edges[i - 1][1] + edges[i][0]) / 2
    return list(zip(starts, ends, strict=True))


def read_sound(flac: bytes) -> NDArray[np.float32]:
    """The sound of an audio row: mono, 16 kHz, -1..1.

    Raises:
        ValueError: another rate or more than one channel.
    """
    sound, rate = read_sound_file(flac)
    if rate != SAMPLE_RATE_HZ or sound.shape[1] != 1:
        raise ValueError(f"the sound must be mono at {SAMPLE_RATE_HZ} Hz, not {sound.shape[1]} channels at {rate} Hz")
    return sound[:, 0]


def loud_level(sound: NDArray[np.float32]) -> float:
    """RMS that blocks of 20 ms reach for a second in total, or for a tenth of a sound of less than 10 s.

    It estimates the level of the loudest words: clicks and slams are shorter, and pauses have no influence.

    Args:
        sound: mono, 16 kHz, at least one sample.
    """
    whole = len(sound) // BLOCK * BLOCK
    blocks = sound[:whole].reshape(-1, BLOCK) if whole else sound[None]
    power = np.mean(np.square(blocks, dtype=np.float64), axis=1)
    rank = max(1, min(SAMPLE_RATE_HZ // BLOCK, len(power) // 10))
    return float(np.sqrt(np.partition(power, -rank)[-rank]))


def amplified(sound: NDArray[np.float32], loudness: Loudness) -> NDArray[np.float32]:
    """The input of the speech detector and the recogniser: quiet sound is amplified, nothing is attenuated.

    Args:
        sound: mono, 16 kHz, -1..1, of any number of samples.
        loudness: section [loudness] of the profile.
    """
    level = loud_level(sound) if len(sound) else 0.0
    if level == 0:  # digital silence has no level
        return sound
    gain = min(10 ** (loudness.level_dbfs / 20) / level, 10 ** (loudness.gain_db / 20))
    return sound if gain <= 1 else np.clip(sound * np.float32(gain), -1, 1)


class Speech:
    """Speech intervals of a video."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._rules = Rules(**context.profile["speech"])
        self._loudness = Loudness(**context.profile["loudness"])
        self._vad = SileroVad(context.weights.path("silero_vad"))

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the speech table for a batch of videos."""
        rows = [row for video in units.column(UNIT).to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=SPEECH.schema)

    def _video(self, video: str) -> list[dict[str, Any]]:
        rows = list(video_rows(self._context.inputs, "audio", video))
        if not rows or rows[0]["status"] != Status.OK:
            status, reason = (rows[0]["status"], rows[0]["reason"]) if rows else (Status.NO_AUDIO, "no sound")
            return [{"video_id": video, "interval": 0, "status": str(status), "reason": reason}]
        sound = amplified(read_sound(rows[0]["flac"]), self._loudness)
        speech = intervals(self._vad(sound), len(sound) / SAMPLE_RATE_HZ, self._rules)
        self._context.counters["calls/silero_vad"] += 1
        if not speech:
            reason = "no speech was heard"
            return [{"video_id": video, "interval": 0, "status": str(Status.NO_SPEECH), "reason": reason}]
        return [
            {
                "video_id": video,
                "interval": i,
                "start_s": interval.start_s,
                "end_s": interval.end_s,
                "score": interval.score,
                "status": str(Status.OK),
            }
            for i, interval in enumerate(speech)
        ]
