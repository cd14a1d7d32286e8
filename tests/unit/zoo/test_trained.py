"""Heads that were trained here are found before the shipped ones, by digest, and never half."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cer_pipeline.errors import CerError
from cer_pipeline.zoo import open_zoo
from cer_pipeline.zoo.head_file import load_head, save_head
from cer_pipeline.zoo.trained import publish, read_current, retire, trained_heads


def trained(folder: Path, value: float, branch: str = "scene_minilm") -> Path:
    save_head(folder / f"{branch}.safetensors", {"w": np.full(3, value)}, {"branch": branch})
    (folder / f"{branch}.md").write_text(f"# card {value}\n")
    (folder / f"{branch}.scores.json").write_text("{}")
    (folder / f"{branch}.state").write_bytes(b"moments")
    (folder / "something_else.bin").write_bytes(b"scratch")
    return folder


def test_a_published_head_goes_before_the_shipped_one(tmp_path):
    shipped = open_zoo({}).path("head_scene_minilm")
    head = publish(tmp_path / "heads", "scene_minilm", trained(tmp_path / "out", 1.0))
    zoo = open_zoo({}, tmp_path / "heads")
    assert zoo.path("head_scene_minilm") == head.weights != shipped
    assert zoo.digest("head_scene_minilm") == hashlib.sha256(head.weights.read_bytes()).hexdigest() == head.sha256
    assert load_head(zoo.path("head_scene_minilm"))[0]["w"].tolist() == [1.0] * 3


def test_only_the_files_of_the_branch_are_published_and_no_training_state(tmp_path):
    head = publish(tmp_path / "heads", "scene_minilm", trained(tmp_path / "out", 1.0))
    assert {path.name for path in head.folder.iterdir()} == {
        "scene_minilm.safetensors",
        "scene_minilm.md",
        "scene_minilm.scores.json",
    }


def test_a_newer_head_takes_over_and_the_older_one_stays_on_disk(tmp_path):
    heads = tmp_path / "heads"
    first = publish(heads, "b", trained(tmp_path / "one", 1.0, "b"))
    second = publish(heads, "b", trained(tmp_path / "two", 2.0, "b"))
    assert first.folder != second.folder
    assert first.weights.is_file()
    assert trained_heads(heads)["head_b"].digest == second.sha256
    again = publish(heads, "b", trained(tmp_path / "one", 1.0, "b"))
    assert (again.sha256, trained_heads(heads)["head_b"].digest) == (first.sha256, first.sha256)


def test_a_retired_head_makes_room_for_the_shipped_one(tmp_path):
    heads = tmp_path / "heads"
    publish(heads, "scene_minilm", trained(tmp_path / "out", 1.0))
    retire(heads, "scene_minilm")
    assert open_zoo({}, heads).digest("head_scene_minilm") == open_zoo({}).digest("head_scene_minilm")
    with pytest.raises(CerError, match="no head of this branch"):
        retire(heads, "scene_minilm")


@pytest.mark.parametrize("lacking", ["b.safetensors", "b.md", "b.scores.json"])
def test_nothing_is_published_without_weights_card_and_scores(tmp_path, lacking):
    heads = tmp_path / "heads"
    first = publish(heads, "b", trained(tmp_path / "one", 1.0, "b"))
    (trained(tmp_path / "two", 2.0, "b") / lacking).unlink()
    with pytest.raises(CerError, match=f"left no {lacking}"):
        publish(heads, "b", tmp_path / "two")
    assert trained_heads(heads)["head_b"].digest == first.sha256


def test_a_published_file_that_changes_is_refused(tmp_path):
    heads = tmp_path / "heads"
    head = publish(heads, "b", trained(tmp_path / "out", 1.0, "b"))
    head.weights.chmod(0o644)
    head.weights.write_bytes(head.weights.read_bytes()[:-1] + b"!")
    with pytest.raises(CerError, match="wrong SHA-256"):
        open_zoo({}, heads).path("head_b")


def test_a_damaged_record_is_one_line(tmp_path):
    heads = tmp_path / "heads"
    publish(heads, "b", trained(tmp_path / "out", 1.0, "b"))
    (heads / "b" / "current.json").write_text("{")
    with pytest.raises(CerError, match="record of a trained head"):
        read_current(heads, "b")
    with pytest.raises(CerError, match="record of a trained head"):
        open_zoo({}, heads)
