"""The subject faces of a video as arrays: what every face branch reads.

Belongs here: reading `faces` and `face_features/*` of one video, without pictures, and the rows of feature and sample
tables. Does not belong here: any feature or prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.branches.rows import Row, by_video, empty_row, feature_row
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.stage import Inputs, video_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import N_BLENDSHAPES

POSE: Final[tuple[str, ...]] = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class SubjectTrack:
    """The samples of one track on which it is the subject of some window.

    Args:
        track: track number.
        samples: [n] grid samples, ascending.
        windows: for each sample the windows whose subject it is.
        blendshapes: [n, 52].
        pose: [n, 3] yaw, pitch, roll, degrees.
        features: [n, k] output of the face model.
    """

    track: int
    samples: NDArray[np.int64]
    windows: tuple[frozenset[int], ...]
    blendshapes: NDArray[np.float64]
    pose: NDArray[np.float64]
    features: NDArray[np.float64]

    def of_window(self, window: int, first: int, count: int) -> NDArray[np.bool_]:
        """Which samples belong to a window of which this track is the subject: [n]."""
        subject = np.array([window in w for w in self.windows], dtype=bool)
        return subject & (self.samples >= first) & (self.samples < first + count)


@dataclass(frozen=True)
class SubjectFaces:
    """All subject faces of one video.

    Args:
        tracks: one entry a track.
        absent: for every sample without a value: its status and reason.
        samples: all grid samples of the video, ascending.
    """

    tracks: tuple[SubjectTrack, ...]
    absent: dict[int, tuple[str, str]]
    samples: tuple[int, ...]


def read(inputs: Inputs, video_id: str, encoder: str) -> SubjectFaces:
    """Read the subject faces of a video with the output of one face model.

    Args:
        inputs: tables of the shard.
        video_id: the video.
        encoder: name of the face model: the table is `face_features/ENCODER`.
    """
    columns = ["sample", "face", "features", "status", "reason"]
    encoded = list(video_rows(inputs, f"face_features/{encoder}", video_id, columns))
    columns = ["sample", "face", "track", "subject_of", "blendshapes", *POSE, "status"]
    faces = {(r["sample"], r["face"]): r for r in video_rows(inputs, "faces", video_id, columns)}
    by_track: dict[int, list[tuple[dict, dict]]] = {}
    absent: dict[int, tuple[str, str]] = {}
    for row in encoded:
        if row["status"] == Status.OK:
            face = faces[row["sample"], row["face"]]
            by_track.setdefault(face["track"], []).append((face, row))
        else:
            absent[row["sample"]] = (row["status"], row["reason"] or "")
    tracks = tuple(_track(track, pairs) for track, pairs in sorted(by_track.items()))
    return SubjectFaces(tracks, absent, tuple(sorted({row["sample"] for row in encoded})))


def why_absent(faces: SubjectFaces, samples: Iterable[int]) -> tuple[Status, str]:
    """Status and reason of a window that shows no subject face.

    The status is that of most of its samples. The reason counts the samples or, for another status than `no_face`, is
    that of the first sample with this status.

    Args:
        faces: of the video.
        samples: of the window.
    """
    wanted = list(samples)
    counts = Counter(faces.absent[s][0] for s in wanted if s in faces.absent)
    common = max(counts, key=lambda s: (counts[s], s), default=str(Status.NO_FACE))
    reason = f"{len(wanted)} samples, none with a face of the subject"
    if common != Status.NO_FACE:
        first = next(faces.absent[s][1] for s in wanted if s in faces.absent and faces.absent[s][0] == common)
        reason = first or reason
    return Status(common), reason


Features = Callable[[NDArray[np.bool_], int, int], Sequence[float]]
"""(which samples of a track belong to a window [n], first sample of the window, its samples) -> its features."""


def feature_rows(
    inputs: Inputs, units: pa.Table, encoder: str, features: Callable[[SubjectTrack], Features]
) -> list[Row]:
    """Rows of a feature table: the features of the subject of each window, or why it has none.

    Args:
        inputs: tables of the shard.
        units: segments, rows of the plan.
        encoder: see `read`.
        features: called once a track; returns what computes the features of one of its windows.
    """
    rows = []
    for video_id, segments in by_video(units).items():
        faces = read(inputs, video_id, encoder)
        tracks = [(track, features(track)) for track in faces.tracks]
        rows += [_feature_row(segment, faces, tracks) for segment in segments]
    return rows


def sample_rows(
    inputs: Inputs, video_id: str, encoder: str, predict: Callable[[SubjectTrack], NDArray[np.float64]]
) -> list[Row]:
    """Rows of a table `samples/...` of one video: the mean over the subject faces of a sample, or why it has none.

    Args:
        inputs: tables of the shard.
        video_id: the video.
        encoder: see `read`.
        predict: a track -> distributions over the basic emotions, [samples, 8].
    """
    faces = read(inputs, video_id, encoder)
    seen: dict[int, list[NDArray[np.float64]]] = {}
    for track in faces.tracks:
        for sample, values in zip(track.samples.tolist(), predict(track), strict=True):
            seen.setdefault(sample, []).append(values)
    rows = []
    for sample in faces.samples:
        row: Row = {"video_id": video_id, "sample": sample, "faces": len(seen.get(sample, []))}
        if sample in seen:
            p = np.mean(seen[sample], axis=0)
            row |= dict(zip(BASIC_COLUMNS, (p / p.sum()).tolist(), strict=True))
            row |= {"status": str(Status.OK), "reason": None}
        else:
            status, reason = faces.absent[sample]
            row |= {"status": status, "reason": reason or None}
        rows.append(row)
    return rows


def _feature_row(segment: Row, faces: SubjectFaces, tracks: Sequence[tuple[SubjectTrack, Features]]) -> Row:
    if segment["status"] != Status.OK:
        return empty_row(segment)
    first, count = segment["first_sample"], segment["samples"]
    for track, features in tracks:
        inside = track.of_window(segment["segment"], first, count)
        if inside.any():  # a window has one subject at most
            return feature_row(segment, features(inside, first, count))
    return empty_row(segment, *why_absent(faces, range(first, first + count)))


def _track(number: int, pairs: list[tuple[dict, dict]]) -> SubjectTrack:
    pairs = sorted(pairs, key=lambda pair: pair[0]["sample"])
    faces = [face for face, _ in pairs]
    return SubjectTrack(
        track=number,
        samples=np.array([f["sample"] for f in faces], dtype=np.int64),
        windows=tuple(frozenset(f["subject_of"]) for f in faces),
        blendshapes=np.array([f["blendshapes"] for f in faces], dtype=np.float64).reshape(-1, N_BLENDSHAPES),
        pose=np.array([[f[name] for name in POSE] for f in faces], dtype=np.float64),
        features=np.array([row["features"] for _, row in pairs], dtype=np.float64),
    )
