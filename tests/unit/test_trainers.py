"""Everything that can be trained is found from the branches and the fusion."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

from cer_pipeline.branches import registry
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.specs import TRAINERS
from cer_pipeline.profiles import load_profile
from cer_pipeline.trainers import trainer, trainers
from cer_pipeline.training.trainer import Trainer

PLUGGED = Trainer("plugged", "somewhere:train", "A plug-in.")


def with_plug_in(monkeypatch: pytest.MonkeyPatch, *given: Trainer) -> None:
    """Let the profile enable a plug-in branch with some trainers."""
    branch = replace(registry.shipped()["face_static"], name="plugged", trainers=given)
    monkeypatch.setattr(registry, "branches", lambda profile: (branch,))


def test_the_trainers_are_those_of_the_shipped_branches_and_of_the_fusion() -> None:
    declared = [t.name for branch in registry.shipped().values() for t in branch.trainers]
    assert list(trainers(load_profile())) == [*declared, *(t.name for t in TRAINERS)]
    assert {"scene_minilm", "scene_signs", "mhpf", "face_emo_mamba"} <= trainers(load_profile()).keys()


def test_every_trainer_names_a_function_that_exists() -> None:
    for found in trainers(load_profile()).values():
        module, _, name = found.function.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_trainer_of_an_enabled_plug_in_is_found_beside_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plug_in(monkeypatch, PLUGGED)
    assert trainer(load_profile(), "plugged") is PLUGGED
    assert trainer(load_profile(), "text_minilm").name == "text_minilm"


def test_a_plug_in_cannot_take_the_name_of_another_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plug_in(monkeypatch, replace(PLUGGED, name="mhpf"))
    with pytest.raises(CerError, match="two trainers have the same name: mhpf"):
        trainers(load_profile())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CerError, match="nothing of this name can be trained: face_static - choose one of: face_emo"):
        trainer(load_profile(), "face_static")
