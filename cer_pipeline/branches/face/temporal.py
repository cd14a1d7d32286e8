"""The temporal face branches (Table 1, IDs 2 to 5): the face over time.

Belongs here: the sequence that the temporal heads read, and the stages around the heads.
Does not belong here: the heads (`branches.face.temporal_head`), their training, the specs (`face`).

The paper's features are those of EmoAffectNet and CLIP. A step of the branches of the embedded profile, face_emo_*,
holds the blendshapes, the logits of mini-XCEPTION and the head's pose instead. The heads need training on labelled
video of faces; without one, the branches are model_unavailable.
"""

from __future__ import annotations

import contextlib
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.face import specs
from cer_pipeline.branches.face.specs import STEP_SIZES, STEPS_PER_WINDOW
from cer_pipeline.branches.face.subject_tracks import Features, SubjectTrack, feature_rows
from cer_pipeline.branches.rows import Row, probability_rows, read_features
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status


def sequence(
    track: SubjectTrack, values: NDArray[np.float64], inside: NDArray[np.bool_], first: int
) -> NDArray[np.float64]:
    """A window of a track as [20, k + 1]: the values of each step, and last the flag `seen`.

    Args:
        track: the subject.
        values: [n, k] of its samples.
        inside: [n] which samples the window owns.
        first: first sample of the window.
    """
    out = np.zeros((STEPS_PER_WINDOW, values.shape[1] + 1))
    steps = track.samples[inside] - first
    out[steps, :-1] = values[inside]
    out[steps, -1] = 1
    return out


class _Features:
    branch: ClassVar[str]
    encoder: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._schema = tables.features(self.branch, STEPS_PER_WINDOW * (STEP_SIZES[self.branch] + 1)).schema

    def values(self, track: SubjectTrack) -> NDArray[np.float64]:
        """What a step holds without the flag: [samples, values]."""
        return track.features[:, : STEP_SIZES[self.branch]]

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""

        def features(track: SubjectTrack) -> Features:
            values = self.values(track)
            return lambda inside, first, _: sequence(track, values, inside, first).ravel().tolist()

        rows = feature_rows(self._inputs, units, self.encoder, features)
        return pa.Table.from_pylist(rows, schema=self._schema)


class _BlendshapeFeatures(_Features):
    encoder = specs.ENCODER

    def values(self, track: SubjectTrack) -> NDArray[np.float64]:
        """See `specs.STEP_FEATURES`."""
        return np.concatenate([track.blendshapes, track.features[:, : specs.LOGITS], track.pose], axis=1)


class TransformerFeatures(_BlendshapeFeatures):
    """Stage features/face_emo_transformer."""

    branch = specs.TRANSFORMER


class MambaFeatures(_BlendshapeFeatures):
    """Stage features/face_emo_mamba."""

    branch = specs.MAMBA


class ExpressionTransformerFeatures(_Features):
    """Stage features/face_emoaffectnet_transformer."""

    branch, encoder = specs.EXPRESSION_TRANSFORMER, specs.EMOAFFECTNET


class ExpressionMambaFeatures(_Features):
    """Stage features/face_emoaffectnet_mamba."""

    branch, encoder = specs.EXPRESSION_MAMBA, specs.EMOAFFECTNET


class ClipTransformerFeatures(_Features):
    """Stage features/face_clip_transformer."""

    branch, encoder = specs.CLIP_TRANSFORMER, specs.CLIP


class ClipMambaFeatures(_Features):
    """Stage features/face_clip_mamba."""

    branch, encoder = specs.CLIP_MAMBA, specs.CLIP


class _Probabilities:
    branch: ClassVar[str]

    def __init__(self, context: StageContext) -> None:
        from cer_pipeline.branches.face import temporal_head as temporal
        from cer_pipeline.torch_batches import choose_device

        execution = context.profile["execution"]
        self._device, self._batch = choose_device(execution["device"]), execution["batch"]
        path = context.weights.path(f"head_{self.branch}")
        self._head = temporal.load(path, self.branch, STEP_SIZES[self.branch]).to(self._device)
        self._features = read_features(context, f"features/{self.branch}")
        self._table = tables.probabilities(self.branch)

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        p = self._probabilities([s for s in units.column("segment_id").to_pylist() if self._known(s)])

        def predict(unit: Row, _: NDArray[np.float32]) -> tuple[str, NDArray[np.float64]]:
            return f"head_{self.branch}", p[unit["segment_id"]]

        return probability_rows(units, self._features, predict, self._table)

    def _known(self, segment: str) -> bool:
        return self._features[segment]["status"] == Status.OK

    def _probabilities(self, segments: list[str]) -> dict[str, NDArray[np.float64]]:
        import torch

        from cer_pipeline.torch_batches import run_in_batches
        from cer_pipeline.torch_threads import one_thread

        if not segments:
            return {}
        steps = [np.asarray(self._features[s]["features"], np.float32).reshape(STEPS_PER_WINDOW, -1) for s in segments]
        with one_thread() if self._device.type == "cpu" else contextlib.nullcontext():
            logits = run_in_batches(
                lambda batch: self._head(batch[..., :-1], batch[..., -1] > 0.5)[0],
                [torch.from_numpy(values) for values in steps],
                self._batch,
                self._device,
            )
        return dict(zip(segments, torch.softmax(logits.to(torch.float64), dim=-1).numpy(), strict=True))


class TransformerProbabilities(_Probabilities):
    """Stage probabilities/face_emo_transformer."""

    branch = specs.TRANSFORMER


class MambaProbabilities(_Probabilities):
    """Stage probabilities/face_emo_mamba."""

    branch = specs.MAMBA


class ExpressionTransformerProbabilities(_Probabilities):
    """Stage probabilities/face_emoaffectnet_transformer."""

    branch = specs.EXPRESSION_TRANSFORMER


class ExpressionMambaProbabilities(_Probabilities):
    """Stage probabilities/face_emoaffectnet_mamba."""

    branch = specs.EXPRESSION_MAMBA


class ClipTransformerProbabilities(_Probabilities):
    """Stage probabilities/face_clip_transformer."""

    branch = specs.CLIP_TRANSFORMER


class ClipMambaProbabilities(_Probabilities):
    """Stage probabilities/face_clip_mamba."""

    branch = specs.CLIP_MAMBA
