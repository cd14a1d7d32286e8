"""The branches face_emo_transformer and face_emo_mamba (Table 1, IDs 2 and 3): the face over time.

Belongs here: the sequence that the temporal heads read, and the stages around the heads.
Does not belong here: the heads (`branches.face.temporal_head`), their training, the specs (`face`).

The paper's features are EmoAffectNet's; here a step holds the blendshapes, the logits of the expression network and the
head's pose. The heads need training on labelled video of faces; until there is one, the branches are model_unavailable.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.face import subject_tracks as face_tracks
from cer_pipeline.branches.face.specs import ENCODER, LOGITS, MAMBA, STEP_FEATURES, STEPS, TRANSFORMER
from cer_pipeline.branches.face.subject_tracks import SubjectFaces, SubjectTrack
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status

_KEY: Final = ("segment_id", "video_id", "segment")


def sequence(track: SubjectTrack, inside: NDArray[np.bool_], first: int) -> NDArray[np.float64]:
    """A window of a track as [20, 63]: `face.STEP_FEATURES` for each step, `seen` last.

    Args:
        track: the subject.
        inside: [n] which samples the window owns.
        first: first sample of the window.
    """
    out = np.zeros((STEPS, len(STEP_FEATURES)))
    steps = track.samples[inside] - first
    seen = np.ones((len(steps), 1))
    values = (track.blendshapes[inside], track.features[inside, :LOGITS], track.pose[inside], seen)
    out[steps] = np.concatenate(values, axis=1)
    return out


class _Features:
    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._schema = tables.features(self.branch, STEPS * len(STEP_FEATURES)).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        rows = []
        for video_id, segments in face_tracks.by_video(units).items():
            faces = face_tracks.read(self._inputs, video_id, ENCODER)
            rows += [self._row(segment, faces) for segment in segments]
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _row(self, segment: dict, faces: SubjectFaces) -> dict:
        key = {name: segment[name] for name in _KEY}
        if segment["status"] != Status.OK:
            return key | {"features": None, "status": segment["status"], "reason": segment["reason"]}
        first, count = segment["first_sample"], segment["samples"]
        for track in faces.tracks:
            inside = track.of_window(segment["segment"], first, count)
            if inside.any():
                flat = sequence(track, inside, first).ravel().tolist()
                return key | {"features": flat, "status": str(Status.OK), "reason": None}
        status, reason = face_tracks.why_absent(faces, range(first, first + count))
        return key | {"features": None, "status": str(status), "reason": reason}


class TransformerFeatures(_Features):
    """Stage features/face_emo_transformer."""

    branch = TRANSFORMER


class MambaFeatures(_Features):
    """Stage features/face_emo_mamba."""

    branch = MAMBA


class _Probabilities:
    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        from cer_pipeline.branches.face import temporal_head as temporal

        self._head = temporal.load(context.weights.path(f"head_{self.branch}"))
        self._inputs = context.inputs
        self._schema = tables.probabilities(self.branch).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        read = self._inputs.table(f"features/{self.branch}", ["segment_id", "features", "status", "reason"])
        found = {row["segment_id"]: row for row in read.to_pylist()}
        rows = []
        for unit in units.to_pylist():
            row = found[unit["segment_id"]]
            out = {name: unit[name] for name in _KEY} | {"status": row["status"], "reason": row["reason"]}
            if row["status"] == Status.OK:
                p = self._head.probabilities(np.array(row["features"], dtype=np.float32).reshape(STEPS, -1))
                out |= dict(zip(BASIC_COLUMNS, p.tolist(), strict=True)) | {"model": f"head_{self.branch}"}
            rows.append(out)
        return pa.Table.from_pylist(rows, schema=self._schema)


class TransformerProbabilities(_Probabilities):
    """Stage probabilities/face_emo_transformer."""

    branch = TRANSFORMER


class MambaProbabilities(_Probabilities):
    """Stage probabilities/face_emo_mamba."""

    branch = MAMBA
