"""The branch face_static (Table 1, ID 1): one expression per picture, by two experts.

Belongs here: the stages that turn faces into features and probabilities per segment and per sample.
Does not belong here: the rules (`facs`), the network (`mini_xception`), the specs (`face`).

The two experts judge every sample of a subject's track: the expression network behind its guard, and the prototypes of
action units. The branch says their weighted mean, and a window the mean over the samples on which its subject is seen.
All of it is linear after the two judgements, so a window's probabilities are exactly the mean of its samples'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.face import facs
from cer_pipeline.branches.face import subject_tracks as face_tracks
from cer_pipeline.branches.face.specs import ENCODER, LOGITS, NATIVE, STATIC, STATIC_FEATURES
from cer_pipeline.branches.face.subject_tracks import SubjectFaces, SubjectTrack
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status

MODEL: Final = "mini_xception+facs"
_SECTION: Final = "face_static"
_N: Final = len(BASIC)


def judged(track: SubjectTrack, settings: Mapping[str, Any]) -> facs.Judgement:
    """Both experts on one track."""
    return facs.judge(facs.Track(track.samples, track.blendshapes, track.features[:, :LOGITS], NATIVE), settings)


def mixed(network: NDArray[np.float64], prototypes: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Weighted mean of the two experts' distributions, [..., 8] each.

    Args:
        network: the guarded network.
        prototypes: the action units.
        share: weight of the network, 0..1.
    """
    p = share * network + (1 - share) * prototypes
    return p / p.sum(axis=-1, keepdims=True)


def pooled(
    track: SubjectTrack, judgement: facs.Judgement, inside: NDArray[np.bool_], samples: int
) -> NDArray[np.float64]:
    """One vector for a window, in the order of `face.STATIC_FEATURES`.

    Args:
        track: the subject.
        judgement: on all of its samples.
        inside: [n] which samples the window owns; at least one.
        samples: grid samples of the window, with a face or not.
    """
    units, logits, pose = judgement.units[inside], track.features[inside, :LOGITS], track.pose[inside]
    parts = (
        judgement.network[inside].mean(axis=0),
        judgement.prototypes[inside].mean(axis=0),
        [inside.sum(), inside.sum() / samples],
        units.mean(axis=0),
        units.max(axis=0),
        units.std(axis=0),
        judgement.rest,
        [judgement.smile[inside].mean(), judgement.smile[inside].max()],
        logits.mean(axis=0),
        logits.std(axis=0),
        pose.mean(axis=0),
        pose.std(axis=0),
    )
    return np.concatenate([np.asarray(p, dtype=np.float64) for p in parts])


class StaticFeatures:
    """Stage features/face_static."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._settings = context.profile[_SECTION]
        self._schema = tables.features(STATIC, len(STATIC_FEATURES)).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        rows = []
        for video_id, segments in face_tracks.by_video(units).items():
            faces = face_tracks.read(self._inputs, video_id, ENCODER)
            judgements = [judged(track, self._settings) for track in faces.tracks]
            rows += [self._row(segment, faces, judgements) for segment in segments]
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _row(self, segment: dict, faces: SubjectFaces, judgements: list[facs.Judgement]) -> dict:
        key = {name: segment[name] for name in ("segment_id", "video_id", "segment")}
        if segment["status"] != Status.OK:
            return key | {"features": None, "status": segment["status"], "reason": segment["reason"]}
        first, count = segment["first_sample"], segment["samples"]
        for track, judgement in zip(faces.tracks, judgements, strict=True):
            inside = track.of_window(segment["segment"], first, count)
            if inside.any():  # a window has one subject at most
                features = pooled(track, judgement, inside, count)
                return key | {"features": features.tolist(), "status": str(Status.OK), "reason": None}
        status, reason = face_tracks.why_absent(faces, range(first, first + count))
        return key | {"features": None, "status": str(status), "reason": reason}


class StaticProbabilities:
    """Stage probabilities/face_static: from the features, without reading faces again."""

    def __init__(self, context: StageContext) -> None:
        self._share = float(context.profile[_SECTION]["network_share"])
        self._inputs = context.inputs
        self._schema = tables.probabilities(STATIC).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        read = self._inputs.table(f"features/{STATIC}", ["segment_id", "features", "status", "reason"])
        found = {row["segment_id"]: row for row in read.to_pylist()}
        rows = []
        for unit in units.to_pylist():
            row = found[unit["segment_id"]]
            out = {name: unit[name] for name in ("segment_id", "video_id", "segment")}
            out |= {"status": row["status"], "reason": row["reason"]}
            if row["status"] == Status.OK:
                vector = np.array(row["features"], dtype=np.float64)
                p = mixed(vector[:_N], vector[_N : 2 * _N], self._share)
                out |= dict(zip(BASIC_COLUMNS, p.tolist(), strict=True)) | {"model": MODEL}
            rows.append(out)
        return pa.Table.from_pylist(rows, schema=self._schema)


class StaticSamples:
    """Stage samples/face_static: the same judgement on every grid sample."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._settings = context.profile[_SECTION]
        self._schema = tables.sample_probabilities(STATIC).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video."""
        rows = []
        for video_id in units.column("video_id").to_pylist():
            rows += self._video(video_id)
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _video(self, video_id: str) -> list[dict]:
        faces = face_tracks.read(self._inputs, video_id, ENCODER)
        seen: dict[int, list[NDArray[np.float64]]] = {}
        for track in faces.tracks:
            judgement = judged(track, self._settings)
            p = mixed(judgement.network, judgement.prototypes, self._settings["network_share"])
            for sample, values in zip(track.samples.tolist(), p, strict=True):
                seen.setdefault(sample, []).append(values)
        rows = []
        for sample in faces.samples:
            row: dict[str, Any] = {"video_id": video_id, "sample": sample, "faces": len(seen.get(sample, []))}
            if sample in seen:
                p = np.mean(seen[sample], axis=0)
                row |= dict(zip(BASIC_COLUMNS, (p / p.sum()).tolist(), strict=True))
                row |= {"status": str(Status.OK), "reason": None}
            else:
                status, reason = faces.absent[sample]
                row |= {"status": status, "reason": reason or None}
            rows.append(row)
        return rows
