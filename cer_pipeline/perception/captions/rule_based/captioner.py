"""The rule-based captioner: tables and pictures -> measurements -> one text per window.

Belongs here: the class that reads the tables. Does not belong here: the arithmetic (`measures`), the words (`text`), or
putting captions into their table (`captions.stage`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import numpy as np

from cer_pipeline.perception.captions.captioner import FRAME_COLUMNS, Caption, Segment, status_without_pictures
from cer_pipeline.perception.captions.registry import RULE_BASED_VIEW
from cer_pipeline.perception.captions.rule_based import measures
from cer_pipeline.perception.captions.rule_based.text import (
    PROMPT,
    Face,
    Measurements,
    PictureStats,
    Sound,
    describe,
)
from cer_pipeline.profiles.sections import Describer
from cer_pipeline.sound_file import read_sound_file
from cer_pipeline.stage import StageContext, video_rows
from cer_pipeline.status import Status

NOT_DETECTED: Final = (Status.MODEL_UNAVAILABLE, Status.FAILED)
"""Statuses of rows of `faces` and `speech` under which it is not known what the window holds."""
PICTURE_SIZE: Final = (32, 18)  # width and height at which a picture is measured: enough for it, and fast


class RuleBasedCaptioner:
    """Windows -> one caption each, the view `RULE_BASED_VIEW`."""

    def __init__(self, context: StageContext, settings: Describer) -> None:
        self.inputs = context.inputs
        self.settings = settings

    def __call__(self, segments: Sequence[Segment]) -> Iterator[Caption]:
        """One caption for each segment; loudness and pitch are compared over all windows of its video."""
        for video, group in groupby(segments, lambda s: s.video_id):
            windows = list(group)
            pictures = self._pictures(video)
            faces = self._faces(video)
            sounds, sound_status = self._sounds(video, windows)
            for segment, sound in zip(windows, sounds, strict=True):
                yield self._caption(segment, pictures, faces, sound, sound_status)

    def _caption(
        self, segment: Segment, pictures: _Pictures, faces: _Faces, sound: Sound | None, sound_status: str
    ) -> Caption:
        samples = segment.sample_range
        stats = pictures.stats(samples, self.settings.cut)
        if stats is None and sound is None:
            status = pictures.status(samples)
            reason = f"neither picture nor sound: picture {status}, sound {sound_status}"
            return Caption(segment, RULE_BASED_VIEW, status=status, reason=reason)
        missing = faces.not_detected(samples)
        if stats is not None and missing is not None:
            reason = "the faces were not detected: see the reason in the table faces"
            return Caption(segment, RULE_BASED_VIEW, status=missing, reason=reason)
        measured = Measurements(
            people=None if stats is None else faces.people(samples),
            face=None if stats is None else faces.subject(segment, pictures),
            pictures=stats,
            sound=sound,
        )
        return Caption(segment, RULE_BASED_VIEW, describe(measured, self.settings), PROMPT, RULE_BASED_VIEW)

    def _rows(self, table: str, video: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        return list(video_rows(self.inputs, table, video, columns))

    def _pictures(self, video: str) -> _Pictures:
        pictures = _Pictures()
        before: np.ndarray | None = None
        for row in video_rows(self.inputs, "frames", video, FRAME_COLUMNS):
            pixels = _decode(row["jpeg"]) if row["status"] == Status.OK else None
            pictures.add(row, pixels, before)
            before = None if pixels is None else measures.luma(pixels)
        return pictures

    def _faces(self, video: str) -> _Faces:
        columns = ["sample", "h", "verified", "subject_of", "yaw", "pitch", "roll", "blendshapes", "status"]
        faces = _Faces()
        for row in self._rows("faces", video, columns):
            faces.rows[row["sample"]].append(row)
        return faces

    def _sounds(self, video: str, segments: Sequence[Segment]) -> tuple[list[Sound | None], str]:
        """The sound of every segment, and the status of the video's sound."""
        row = self._rows("audio", video, ["flac", "status"])[0]
        if row["status"] != Status.OK:
            return [None] * len(segments), row["status"]
        samples, rate = read_sound_file(row["flac"])
        speech = self._speech(video)
        sounds: list[Sound | None] = []
        for segment in segments:
            start = round(segment.start_s * rate)
            wave = samples[start : start + round((segment.end_s - segment.start_s) * rate), 0]
            empty = not len(wave)  # the sound may end before the picture
            sounds.append(None if empty else measures.measure_sound(wave, rate, segment.start_s, speech, self.settings))
        return measures.relate(sounds), row["status"]

    def _speech(self, video: str) -> list[tuple[float, float]] | None:
        rows = self._rows("speech", video, ["start_s", "end_s", "status"])
        if any(row["status"] in NOT_DETECTED for row in rows):
            return None
        return sorted((row["start_s"], row["end_s"]) for row in rows if row["status"] == Status.OK)


@dataclass
class _Pictures:
    """Measurements of the pictures of a video, by sample."""

    statuses: dict[int, str] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    heights: dict[int, int] = field(default_factory=dict)
    measures: dict[int, np.ndarray] = field(default_factory=dict)
    motion: dict[int, float] = field(default_factory=dict)

    def add(self, row: dict[str, Any], pixels: np.ndarray | None, before: np.ndarray | None) -> None:
        """Add the next sample; `before` is the luma of the sample before, None where that has no picture."""
        sample = row["sample"]
        self.statuses[sample] = row["status"]
        if pixels is None:
            return
        self.times[sample] = row["time_s"]
        self.heights[sample] = row["height"]
        self.measures[sample] = measures.measure_picture(pixels)
        self.motion[sample] = np.nan if before is None else float(np.abs(measures.luma(pixels) - before).mean())

    def stats(self, samples: range, cut: float) -> PictureStats | None:
        present = [k for k in samples if k in self.measures]
        rows = np.array([self.measures[k] for k in present])
        return measures.summarise_pictures(rows, np.array([self.motion[k] for k in present]), cut)

    def status(self, samples: range) -> str:
        return status_without_pictures({"status": self.statuses[k]} for k in samples if k in self.statuses)


@dataclass
class _Faces:
    """The rows of the faces table of a video, by sample."""

    rows: defaultdict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def not_detected(self, samples: range) -> str | None:
        """Why the window's faces are unknown; None where they are known."""
        for k in samples:
            for row in self.rows.get(k, ()):
                if row["status"] in NOT_DETECTED:
                    return row["status"]
        # Where a model is missing, one row stands for the whole video, at whatever sample.
        all_rows = [row for rows in self.rows.values() for row in rows]
        if all_rows and all(row["status"] in NOT_DETECTED for row in all_rows):
            return all_rows[0]["status"]
        return None

    def people(self, samples: range) -> int:
        return measures.people_at_once([sum(bool(r["verified"]) for r in self.rows.get(k, ())) for k in samples])

    def subject(self, segment: Segment, pictures: _Pictures) -> Face | None:
        samples = segment.sample_range
        rows = [
            (k, row)
            for k in samples
            for row in self.rows.get(k, ())
            if segment.segment in row["subject_of"] and row["blendshapes"] is not None and k in pictures.heights
        ]
        return measures.measure_face(
            blendshapes=np.array([row["blendshapes"] for _, row in rows]),
            angles=np.array([[row["yaw"] or 0.0, row["pitch"] or 0.0, row["roll"] or 0.0] for _, row in rows]),
            heights=np.array([(row["h"] or 0.0) / pictures.heights[k] for k, row in rows]),
            times=np.array([pictures.times[k] for k, _ in rows]),
            place=np.array([(k - samples.start) / len(samples) for k, _ in rows]),
            samples=sum(k in pictures.heights for k in samples),
        )


def _decode(jpeg: bytes) -> np.ndarray:
    """A JPEG as RGB of `PICTURE_SIZE`, decoded at an eighth of its size."""
    import cv2

    from cer_pipeline.perception.jpeg import decode_jpeg

    small = decode_jpeg(jpeg, cv2.IMREAD_REDUCED_COLOR_8)
    return cv2.cvtColor(cv2.resize(small, PICTURE_SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
