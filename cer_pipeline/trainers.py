"""Everything that can be trained: heads of branches, plug-ins included, and fusions.

Belongs here: joining the trainers that branches and the fusion declare. Light at import. Does not belong here: what a
trainer is (`training.trainer`) or any training.
"""

from __future__ import annotations

from cer_pipeline.branches import registry
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.specs import TRAINERS as FUSION_TRAINERS
from cer_pipeline.profiles import Profile
from cer_pipeline.training.trainer import Trainer


def trainers(profile: Profile) -> dict[str, Trainer]:
    """The trainers by name: those of all shipped branches, of the plug-ins that a profile enables, and of the fusion.

    Raises:
        CerError: the profile enables what is no branch, or two trainers have one name.
    """
    by_branch = registry.shipped() | {branch.name: branch for branch in registry.branches(profile)}
    found: dict[str, Trainer] = {}
    for trainer in (*(t for branch in by_branch.values() for t in branch.trainers), *FUSION_TRAINERS):
        if found.setdefault(trainer.name, trainer) is not trainer:
            raise CerError("two trainers have the same name", trainer.name, "rename one of them")
    return found


def trainer(profile: Profile, name: str) -> Trainer:
    """The trainer of a name.

    Raises:
        CerError: nothing of this name can be trained, a branch without a training, or as `trainers`.
    """
    known = trainers(profile)
    if name not in known and name in registry.shipped():
        raise CerError("no training of this branch is built in", name, f"these can be trained: {', '.join(known)}")
    if name not in known:
        raise CerError("nothing of this name can be trained", name, f"choose one of: {', '.join(known)}")
    return known[name]
