"""The branches face_emo_transformer and face_emo_mamba (Table 1, IDs 2 and 3): the face over time.

Belongs here: the sequence that the temporal heads read, and the stages around the heads.
Does not belong here: the heads (`branches.face.temporal_head`), their training, the specs (`face`).

The paper's features are EmoAffectNet's; here a step holds the blendshapes, the logits of the expression network and the
head's pose. The heads need training on labelled video of faces; without one, the branches are model_unavailable.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.face.specs import ENCODER, LOGITS, MAMBA, STEP_FEATURES, STEPS_PER_WINDOW, TRANSFORMER
from cer_pipeline.branches.face.subject_tracks import Features, SubjectTrack, feature_rows
from cer_pipeline.branches.rows import Row, probability_rows, read_features
from cer_pipeline.stage import StageContext


def sequence(track: SubjectTrack, inside: NDArray[np.bool_], first: int) -> NDArray[np.float64]:
    """A window of a track as [20, 63]: `face.STEP_FEATURES` for each step, `seen` last.

    Args:
        track: the subject.
        inside: [n] which samples the window owns.
        first: first sample of the window.
    """
    out = np.zeros((STEPS_PER_WINDOW, len(STEP_FEATURES)))
    steps = track.samples[inside] - first
    seen = np.ones((len(steps), 1))
    values = (track.blendshapes[inside], track.features[inside, :LOGITS], track.pose[inside], seen)
    out[steps] = np.concatenate(values, axis=1)
    return out


class _Features:
    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._schema = tables.features(self.branch, STEPS_PER_WINDOW * len(STEP_FEATURES)).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""

        def features(track: SubjectTrack) -> Features:
            return lambda inside, first, _: sequence(track, inside, first).ravel().tolist()

        rows = feature_rows(self._inputs, units, ENCODER, features)
        return pa.Table.from_pylist(rows, schema=self._schema)


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
        self._features = read_features(context, f"features/{self.branch}")
        self._table = tables.probabilities(self.branch)

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        return probability_rows(units, self._features, self._predict, self._table)

    def _predict(self, _: Row, features: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
        return f"head_{self.branch}", self._head.probabilities(features.reshape(STEPS_PER_WINDOW, -1))


class TransformerProbabilities(_Probabilities):
    """Stage probabilities/face_emo_transformer."""

    branch = TRANSFORMER


class MambaProbabilities(_Probabilities):
    """Stage probabilities/face_emo_mamba."""

    branch = MAMBA
