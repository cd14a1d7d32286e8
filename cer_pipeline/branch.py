"""What a branch is: the stages of one modality under one name, and how its heads are trained.

Belongs here: the branch contract. Does not belong here: the list of branches (`registry`) or any model.
"""

from __future__ import annotations

from dataclasses import dataclass

from cer_pipeline.stage import StageSpec
from cer_pipeline.training.trainer import Trainer


@dataclass(frozen=True)
class BranchSpec:
    """One modality's way to 8 probabilities per segment.

    Args:
        name: branch name: table suffix, column suffix and metric key; `[a-z0-9_]+`.
        title: what people read.
        modality: one of the paper's six: face, face in time, scene, label, audio or text. Without a trained fusion the
            branches of one modality share its weight.
        table1: ID of the paper's Table 1 that it stands for; None where it stands for none.
        features: stage that makes `features/NAME`, one row per segment.
        probabilities: stage that makes `probabilities/NAME`, one row per segment.
        extra: stages that only this branch family needs, such as `face_features/ENCODER`; several branches may name
            the same one.
        samples: stage that makes `samples/NAME`, the same prediction for every grid sample; None where the branch
            predicts whole windows only.
        trainers: how its heads are trained; empty where it has none that can be.
    """

    name: str
    title: str
    modality: str
    table1: int | None
    features: StageSpec
    probabilities: StageSpec
    extra: tuple[StageSpec, ...] = ()
    samples: StageSpec | None = None
    trainers: tuple[Trainer, ...] = ()
