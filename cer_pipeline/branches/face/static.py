"""The branch face_static (Table 1, ID 1): one expression per picture, by two experts.

Belongs here: the stages that turn faces into features and probabilities per segment and per sample.
Does not belong here: the rules (`facs`), the network (`mini_xception`), the specs (`face`).

The two experts predict every sample of a subject's track: the expression network behind its guard, and the prototypes
of action units. The prediction is their weighted mean, that of a window the mean over the samples that show its
subject.
All of it is linear after the two predictions, so a window's probabilities are exactly the mean of its samples'.
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
from cer_pipeline.branches.face.subject_tracks import Features, SubjectTrack, sample_rows
from cer_pipeline.branches.rows import Row, probability_rows, read_features
from cer_pipeline.labels import BASIC
from cer_pipeline.stage import StageContext

MODEL: Final = "mini_xception+facs"
_SECTION: Final = "face_static"
_N: Final = len(BASIC)


def predict_track(track: SubjectTrack, settings: Mapping[str, Any]) -> facs.Prediction:
    """Both experts on one track."""
    return facs.predict(facs.Track(track.samples, track.blendshapes, track.features[:, :LOGITS], NATIVE), settings)


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
    track: SubjectTrack, prediction: facs.Prediction, inside: NDArray[np.bool_], samples: int
) -> NDArray[np.float64]:
    """One vector for a window, in the order of `face.STATIC_FEATURES`.

    Args:
        track: the subject.
        prediction: on all of its samples.
        inside: [n] which samples the window owns; at least one.
        samples: grid samples of the window, with a face or not.
    """
    units, logits, pose = prediction.units[inside], track.features[inside, :LOGITS], track.pose[inside]
    parts = (
        prediction.network[inside].mean(axis=0),
        prediction.prototypes[inside].mean(axis=0),
        [inside.sum(), inside.sum() / samples],
        units.mean(axis=0),
        units.max(axis=0),
        units.std(axis=0),
        prediction.rest,
        [prediction.smile[inside].mean(), prediction.smile[inside].max()],
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
        rows = face_tracks.feature_rows(self._inputs, units, ENCODER, self._features)
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _features(self, track: SubjectTrack) -> Features:
        prediction = predict_track(track, self._settings)
        return lambda inside, _, samples: pooled(track, prediction, inside, samples).tolist()


class StaticProbabilities:
    """Stage probabilities/face_static: from the features, without reading faces again."""

    def __init__(self, context: StageContext) -> None:
        self._share = float(context.profile[_SECTION]["network_share"])
        self._features = read_features(context, f"features/{STATIC}")

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        return probability_rows(units, self._features, self._predict, tables.probabilities(STATIC))

    def _predict(self, _: Row, features: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
        network, prototypes = features[: 2 * _N].astype(np.float64).reshape(2, _N)
        return MODEL, mixed(network, prototypes, self._share)


class StaticSamples:
    """Stage samples/face_static: the same prediction on every grid sample."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._settings = context.profile[_SECTION]
        self._schema = tables.sample_probabilities(STATIC).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video."""
        videos = units.column("video_id").to_pylist()
        rows = [row for video in videos for row in sample_rows(self._inputs, video, ENCODER, self._predict)]
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _predict(self, track: SubjectTrack) -> NDArray[np.float64]:
        prediction = predict_track(track, self._settings)
        return mixed(prediction.network, prediction.prototypes, self._settings["network_share"])
