"""Everything that can be trained is found from the branches and the fusion."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace

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


SETTINGS = {
    "audio_uncertainty": "cer_pipeline.branches.audio.train:AudioSettings",
    "audio_bilstm": "cer_pipeline.branches.audio.train:AudioSettings",
    "face_emo_transformer": "cer_pipeline.branches.face.train:TemporalSettings",
    "face_emo_mamba": "cer_pipeline.branches.face.train:TemporalSettings",
    "text_minilm": "cer_pipeline.branches.text.train:TextSettings",
    "scene_minilm": "cer_pipeline.branches.scene.train:SceneSettings",
    "scene_signs": "cer_pipeline.branches.scene.train_au:AUHeadSettings",
    **dict.fromkeys(
        (
            "face_emoaffectnet_transformer",
            "face_emoaffectnet_mamba",
            "face_clip_transformer",
            "face_clip_mamba",
        ),
        "cer_pipeline.branches.face.train:TemporalSettings",
    ),
    **dict.fromkeys(
        ("scene_jina", "scene_roberta", "scene_clip", "text_jina", "text_roberta", "text_clip"),
        "cer_pipeline.branches.encoders.train:ProbeSettings",
    ),
    "mhpf": "cer_pipeline.fusion.train.fit:Settings",
    "feature_fusion": "cer_pipeline.fusion.train.feature_level:FeatureSettings",
}
"""Trainer -> import path of the dataclass that its options set."""

BESIDE = {
    "face_emo_transformer": {"trials"},
    "face_emo_mamba": {"trials"},
    "face_emoaffectnet_transformer": {"trials"},
    "face_emoaffectnet_mamba": {"trials"},
    "face_clip_transformer": {"trials"},
    "face_clip_mamba": {"trials"},
    "text_minilm": {"meld"},
    "mhpf": {"branches", "voice", "face", "last_actor", "folds"},
    "feature_fusion": {"branches"},
}
"""Trainer -> options that are no fields, as the docstring of its function lists them."""


def test_every_trainer_declares_the_fields_of_its_settings_as_options() -> None:
    shipped = trainers(load_profile())
    assert SETTINGS.keys() == shipped.keys()
    for name, path in SETTINGS.items():
        module, _, settings = path.partition(":")
        known = {field.name for field in fields(getattr(importlib.import_module(module), settings))}
        # Inner folds choose the options of the candidates, and the training refuses them.
        chosen = {"epochs", "divergence"} if name.startswith("audio") else set()
        assert len(shipped[name].options) == len(set(shipped[name].options))
        assert set(shipped[name].options) == known - chosen | BESIDE.get(name, set())


def test_an_option_that_a_training_does_not_take_is_refused_with_the_nearest_one() -> None:
    trainer(load_profile(), "mhpf").check_options(["heads", "last_actor"])
    with pytest.raises(CerError, match="no such option of the training of mhpf: sharpnes - did you mean sharpness"):
        trainer(load_profile(), "mhpf").check_options(["heads", "sharpnes"])
    with pytest.raises(CerError, match="no such option of the training of plugged: epochs - it takes none"):
        PLUGGED.check_options(["epochs"])


def test_the_trainer_of_an_enabled_plug_in_is_found_beside_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plug_in(monkeypatch, PLUGGED)
    assert trainer(load_profile(), "plugged") is PLUGGED
    assert trainer(load_profile(), "text_minilm").name == "text_minilm"


def test_a_plug_in_cannot_take_the_name_of_another_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plug_in(monkeypatch, replace(PLUGGED, name="mhpf"))
    with pytest.raises(CerError, match="two trainers have the same name: mhpf"):
        trainers(load_profile())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CerError, match="nothing of this name can be trained: face_statik - choose one of: face_emo"):
        trainer(load_profile(), "face_statik")


def test_a_branch_without_a_training_is_named_as_such() -> None:
    with pytest.raises(CerError, match="no training of this branch is built in: audio_wavlm_bilstm - these can be"):
        trainer(load_profile(), "audio_wavlm_bilstm")
