"""The stage `captions` as the describer fills it: from tables and media to measurements to a text per window.

Belongs here: the spec and its plan (light at import), and the class that reads the tables. Does not belong here: the
arithmetic (`measures`) or the words (`text`). Whoever brings captions from elsewhere writes the same
table under another prompt; readers of captions only look at `prompt`, `text` and `status`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from cer_pipeline.perception.captions.rule_based import measures
from cer_pipeline.perception.captions.rule_based.text import (
    PROMPT,
    Face,
    Light,
    Measurements,
    Settings,
    Sound,
    describe,
)
from cer_pipeline.profiles import Profile
from cer_pipeline.sound_file import read_sound_file
from cer_pipeline.stage import INPUTS, UNIT, Inputs, StageContext, StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import CAPTIONS as TABLE

READS: Final = ("segments", "frames", "faces", "audio", "speech")
MODEL: Final = "describer"
NOT_LOOKED_AT: Final = (Status.MODEL_UNAVAILABLE, Status.FAILED)
SIGHT: Final = (32, 18)  # width and height at which the light is measured: enough for it, and fast


def _plan(inputs: Inputs, _: Profile) -> pa.Table:
    counts = Counter(inputs.table("segments", ["video_id"]).column("video_id").to_pylist())
    seen = [inputs.digests(name) for name in READS]
    return pa.table(
        {
            UNIT: pa.array(list(counts), pa.string()),
            INPUTS: pa.array([digest(*(d.get(video, "") for d in seen)) for video in counts], pa.string()),
            "segments": pa.array(list(counts.values()), pa.int32()),
        }
    )


def _placeholder_keys(unit: dict[str, Any]) -> list[dict[str, Any]]:
    return [_keys(unit[UNIT], i) for i in range(unit["segments"])]


def _keys(video_id: str, segment: int) -> dict[str, Any]:
    return {"segment_id": f"{video_id}/{segment:04d}", "video_id": video_id, "segment": segment, "view": MODEL}


CAPTIONS = StageSpec(
    table=TABLE,
    description="What is visible and audible in every segment, in plain sentences without any word for an emotion.",
    group="perception",
    reads={
        "segments": ("video_id", "segment", "start_s", "end_s", "first_sample", "samples"),
        "frames": ("sample", "time_s", "height", "jpeg", "status"),
        "faces": ("sample", "h", "verified", "subject_of", "yaw", "pitch", "roll", "blendshapes", "status"),
        "audio": ("flac", "status"),
        "speech": ("start_s", "end_s", "status"),
    },
    inputs=READS,
    plan=_plan,
    stage="cer_pipeline.perception.captions.rule_based.stage:DescribeSegments",
    code_version="2",
    config=("describer",),
    placeholder_keys=_placeholder_keys,
    kinds=("parquet", "numpy"),
    chunk_units=8,
)


class DescribeSegments:
    """Units (videos) -> one caption per segment."""

    def __init__(self, context: StageContext) -> None:
        section = context.profile["describer"]
        self.inputs = context.inputs
        self.settings = Settings.of(section)
        self.voice = measures.VoiceSettings(**{n: section[n] for n in measures.VoiceSettings.__dataclass_fields__})

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of `captions` for videos of the plan."""
        rows = [row for video in units.column(UNIT).to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=TABLE.schema)

    def _video(self, video: str) -> Iterable[dict[str, Any]]:
        segments = self._rows("segments", video, ["segment", "start_s", "end_s", "first_sample", "samples"])
        segments.sort(key=lambda row: row["segment"])
        pictures = self._pictures(video)
        faces = self._faces(video)
        sounds, sound_status = self._sounds(video, segments)
        for segment, sound in zip(segments, sounds, strict=True):
            yield _keys(video, segment["segment"]) | self._caption(segment, pictures, faces, sound, sound_status)

    def _caption(
        self, segment: dict[str, Any], pictures: _Pictures, faces: _Faces, sound: Sound | None, sound_status: str
    ) -> dict[str, Any]:
        samples = range(segment["first_sample"], segment["first_sample"] + segment["samples"])
        light = pictures.light(samples, self.settings.cut)
        if light is None and sound is None:
            status = pictures.status(samples)
            return {"status": status, "reason": f"neither picture nor sound: picture {status}, sound {sound_status}"}
        unseen = faces.not_looked_at(samples)
        if light is not None and unseen is not None:
            return {"status": unseen, "reason": "the faces were not looked for"}
        measured = Measurements(
            people=None if light is None else faces.people(samples),
            face=None if light is None else faces.subject(segment, samples, pictures),
            light=light,
            sound=sound,
        )
        text = describe(measured, self.settings)
        return {"prompt": PROMPT, "text": text, "model": MODEL, "status": str(Status.OK), "reason": None}

    def _rows(self, table: str, video: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        return [row for batch in self.inputs.batches(table, video, columns) for row in batch.to_pylist()]

    def _pictures(self, video: str) -> _Pictures:
        found = _Pictures()
        before: np.ndarray | None = None
        for batch in self.inputs.batches("frames", video, ["sample", "time_s", "height", "jpeg", "status"]):
            for row in batch.to_pylist():
                pixels = _decode(row["jpeg"]) if row["status"] == Status.OK else None
                found.add(row, pixels, before)
                before = None if pixels is None else measures.luma(pixels)
        return found

    def _faces(self, video: str) -> _Faces:
        columns = ["sample", "h", "verified", "subject_of", "yaw", "pitch", "roll", "blendshapes", "status"]
        found = _Faces()
        for row in self._rows("faces", video, columns):
            found.rows[row["sample"]].append(row)
        return found

    def _sounds(self, video: str, segments: Sequence[dict[str, Any]]) -> tuple[list[Sound | None], str]:
        """The sound of every segment, and the status of the video's sound."""
        row = self._rows("audio", video, ["flac", "status"])[0]
        if row["status"] != Status.OK:
            return [None] * len(segments), row["status"]
        samples, rate = read_sound_file(row["flac"])
        speech = self._speech(video)
        found: list[Sound | None] = []
        for segment in segments:
            start = round(segment["start_s"] * rate)
            wave = samples[start : start + round((segment["end_s"] - segment["start_s"]) * rate), 0]
            empty = not len(wave)  # the sound may end before the picture
            found.append(None if empty else measures.measure_sound(wave, rate, segment["start_s"], speech, self.voice))
        return measures.relate(found), row["status"]

    def _speech(self, video: str) -> list[tuple[float, float]] | None:
        rows = self._rows("speech", video, ["start_s", "end_s", "status"])
        if any(row["status"] in NOT_LOOKED_AT for row in rows):
            return None
        return sorted((row["start_s"], row["end_s"]) for row in rows if row["status"] == Status.OK)


@dataclass
class _Pictures:
    """What is kept of the pictures of a video: a few numbers per sample."""

    statuses: dict[int, str] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    heights: dict[int, int] = field(default_factory=dict)
    looks: dict[int, np.ndarray] = field(default_factory=dict)
    motion: dict[int, float] = field(default_factory=dict)

    def add(self, row: dict[str, Any], pixels: np.ndarray | None, before: np.ndarray | None) -> None:
        """Take in the next sample; `before` is the luma of the one before it, None where that has no picture."""
        sample = row["sample"]
        self.statuses[sample] = row["status"]
        if pixels is None:
            return
        self.times[sample] = row["time_s"]
        self.heights[sample] = row["height"]
        self.looks[sample] = measures.measure_picture(pixels)
        self.motion[sample] = np.nan if before is None else float(np.abs(measures.luma(pixels) - before).mean())

    def light(self, samples: range, cut: float) -> Light | None:
        there = [k for k in samples if k in self.looks]
        looks = np.array([self.looks[k] for k in there])
        return measures.measure_light(looks, np.array([self.motion[k] for k in there]), cut)

    def status(self, samples: range) -> str:
        """The commonest status of the window's samples; no_video where it has none."""
        counts = Counter(self.statuses[k] for k in samples if k in self.statuses)
        return min(counts, key=lambda s: (-counts[s], s)) if counts else str(Status.NO_VIDEO)


@dataclass
class _Faces:
    """The rows of the faces table of a video, by sample."""

    rows: defaultdict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def not_looked_at(self, samples: range) -> str | None:
        """Why the window's faces are unknown; None where they are known."""
        for k in samples:
            for row in self.rows.get(k, ()):
                if row["status"] in NOT_LOOKED_AT:
                    return row["status"]
        # A missing model answers once for the whole video, whatever the sample.
        everything = [row for rows in self.rows.values() for row in rows]
        if everything and all(row["status"] in NOT_LOOKED_AT for row in everything):
            return everything[0]["status"]
        return None

    def people(self, samples: range) -> int:
        return measures.people_at_once([sum(bool(r["verified"]) for r in self.rows.get(k, ())) for k in samples])

    def subject(self, segment: dict[str, Any], samples: range, pictures: _Pictures) -> Face | None:
        found = [
            (k, row)
            for k in samples
            for row in self.rows.get(k, ())
            if segment["segment"] in row["subject_of"] and row["blendshapes"] is not None and k in pictures.heights
        ]
        return measures.measure_face(
            blendshapes=np.array([row["blendshapes"] for _, row in found]),
            angles=np.array([[row["yaw"] or 0.0, row["pitch"] or 0.0, row["roll"] or 0.0] for _, row in found]),
            heights=np.array([(row["h"] or 0.0) / pictures.heights[k] for k, row in found]),
            times=np.array([pictures.times[k] for k, _ in found]),
            place=np.array([(k - samples.start) / len(samples) for k, _ in found]),
            samples=sum(k in pictures.heights for k in samples),
        )


def _decode(jpeg: bytes) -> np.ndarray:
    """A JPEG as RGB of `SIGHT`, decoded at an eighth of its size."""
    import cv2

    small = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_COLOR_8)
    if small is None:
        raise ValueError("a stored frame is no JPEG")
    return cv2.cvtColor(cv2.resize(small, SIGHT, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
