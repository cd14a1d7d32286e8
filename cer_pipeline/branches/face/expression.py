"""The branch face_emoaffectnet (Table 1, ID 1): EmoAffectNet on single pictures.

Belongs here: the stages that turn its outputs into features and probabilities per segment and per sample. Does not
belong here: the network (`emoaffectnet`), the faces that it reads (`frame_encoder`), the specs (`specs`).

The probabilities of a window are the mean over the samples of its subject, as in the published code. Other is 0: the
network does not know it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline import tables
from cer_pipeline.branches.face.specs import EMBEDDING, EMOAFFECTNET, EXPRESSION, LOGITS
from cer_pipeline.branches.face.subject_tracks import Features, SubjectTrack, feature_rows, sample_rows
from cer_pipeline.branches.rows import Row, probability_rows, read_features
from cer_pipeline.labels import BASIC
from cer_pipeline.stage import StageContext
from cer_pipeline.zoo.entries import load_entries

_SIZE: Final = LOGITS + EMBEDDING


def native_probabilities(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distributions [n, 7] in the network's own order, from its outputs [n, 519]."""
    return softmax(outputs[:, EMBEDDING:], axis=1)


def to_basic(native: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distributions [..., 7] of the network as distributions [..., 8] in the order of `labels.BASIC`."""
    order = load_entries()[EMOAFFECTNET].basic_order()
    p = np.stack([np.zeros(native.shape[:-1]) if i is None else native[..., i] for i in order], axis=-1)
    return p / p.sum(axis=-1, keepdims=True)


class ExpressionFeatures:
    """Stage features/face_emoaffectnet."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._schema = tables.features(EXPRESSION, _SIZE).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""

        def features(track: SubjectTrack) -> Features:
            values = np.concatenate([native_probabilities(track.features), track.features[:, :EMBEDDING]], axis=1)
            return lambda inside, *_: values[inside].mean(axis=0).tolist()

        rows = feature_rows(self._inputs, units, EMOAFFECTNET, features)
        return pa.Table.from_pylist(rows, schema=self._schema)


class ExpressionProbabilities:
    """Stage probabilities/face_emoaffectnet: from the features, without reading faces again."""

    def __init__(self, context: StageContext) -> None:
        self._features = read_features(context, f"features/{EXPRESSION}")

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        return probability_rows(units, self._features, self._predict, tables.probabilities(EXPRESSION))

    def _predict(self, _: Row, features: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
        p = to_basic(features[:LOGITS].astype(np.float64))
        assert len(p) == len(BASIC)
        return EMOAFFECTNET, p


class ExpressionSamples:
    """Stage samples/face_emoaffectnet: the same prediction on every grid sample."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._schema = tables.sample_probabilities(EXPRESSION).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video."""
        videos = units.column("video_id").to_pylist()
        rows = [row for video in videos for row in sample_rows(self._inputs, video, EMOAFFECTNET, _predict)]
        return pa.Table.from_pylist(rows, schema=self._schema)


def _predict(track: SubjectTrack) -> NDArray[np.float64]:
    return to_basic(native_probabilities(track.features))
