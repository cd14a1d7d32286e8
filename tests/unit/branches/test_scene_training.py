"""Training on a caption folder: what is written, that it repeats, and that leaks and gaps are caught."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cer_pipeline.branches.scene import train as scene
from cer_pipeline.branches.scene.caption_head import SceneHead
from cer_pipeline.branches.scene.caption_scores import FUSED, predict, score
from cer_pipeline.branches.scene.train import SceneSettings, train_scene_minilm
from cer_pipeline.compound.pfsa import pfsa
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.formats.caption_files import read_split
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, TRAINED_CLASSES
from cer_pipeline.store.home import Home
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import load_head, save_head

WORDS = ["calm", "shout", "grimace", "tremble", "smile", "weep", "gasp"]
FOLDER = ["Neutral", "Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise"]
QUICK = SceneSettings(least=2, folds=3, seeds=(0, 1))


def embed(texts):
    return np.array([[math.sin(sum(map(ord, t)) * (k + 1) / 7) for k in range(6)] for t in texts], np.float32)


@pytest.fixture(autouse=True, scope="module")
def stand_in() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scene, "encoder", lambda *_: embed)
        yield


def write(folder: Path, split: str, clips: range, classes=range(7)) -> None:
    folder.mkdir(exist_ok=True)
    for view in (1, 2):
        with (folder / f"vlm_prompt{view}_{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video_name", "text", *BASIC])
            for clip in clips:
                for c in classes:
                    label = ["1.0" if k == c else "0.0" for k in range(8)]
                    text = f"Prompt {view}: in shot {clip} of {split} a {WORDS[c]} is seen, light {clip % 3}."
                    name = f"{10_000 + clip * 10 + c}___{FOLDER[c]}_0000.avi"
                    writer.writerow(
                        [name, f"{text} Number {'x' * (clip % 5)}{chr(97 + clip % 26)}{chr(97 + c)}.", *label]
                    )


def train(folders: tuple[Path, Path, Path], out: Path) -> dict[str, Any]:
    captions, minilm, adapter = folders
    return train_scene_minilm(captions, minilm, adapter, out, QUICK)


@pytest.fixture
def folders(tmp_path):
    return inputs_of_training(tmp_path)


def inputs_of_training(root: Path) -> tuple[Path, Path, Path]:
    """Captions, the folder of MiniLM, changes to it."""
    write(root / "captions", "train", range(12))
    write(root / "captions", "dev", range(20, 26))
    adapter = root / "adapter.safetensors"
    save_head(adapter, {"linear.weight": np.ones((7, 6))}, {"rank": 1, "alpha": 1.0, "layers": 1, "temperature": 1.0})
    return root / "captions", root / "minilm", adapter


@pytest.fixture(scope="module")
def trained(tmp_path_factory, stand_in) -> tuple[Path, dict[str, Any]]:
    """The folder and the scores of a training; tests only read them."""
    root = tmp_path_factory.mktemp("trained")
    return root / "out", train(inputs_of_training(root), root / "out")


def test_training_writes_head_card_scores_and_out_of_fold_values(trained):
    out, scores = trained
    assert {p.name for p in out.iterdir()} == {
        "scene_minilm.safetensors", "scene_minilm.md", "scene_minilm.scores.json", "scene_minilm.states.safetensors",
        "scene_minilm.out_of_fold.parquet", "scene_minilm.dev.parquet",
    }  # fmt: skip
    assert scores["dev"][FUSED]["macro_f1"][0] > 90
    assert json.loads((out / "scene_minilm.scores.json").read_text("utf-8")) == scores
    table = pq.read_table(out / "scene_minilm.out_of_fold.parquet")
    assert table.num_rows == 2 * 3 * 84  # seeds x (views and fused) x segments
    p = np.stack([table[name].to_numpy() for name in BASIC_COLUMNS], 1)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    card = (out / "scene_minilm.md").read_text("utf-8")
    assert f"{scores['dev'][FUSED]['macro_f1'][0]:.2f} [" in card
    assert scores["head_sha256"] in card


def test_training_again_gives_the_same_bytes_from_any_head_with_the_same_changes(folders, tmp_path, trained):
    captions, minilm, _ = folders
    train_scene_minilm(captions, minilm, trained[0] / "scene_minilm.safetensors", tmp_path / "two", QUICK)
    for name in ("safetensors", "md", "scores.json", "out_of_fold.parquet", "dev.parquet"):
        one, two = (folder / f"scene_minilm.{name}" for folder in (trained[0], tmp_path / "two"))
        assert one.read_bytes() == two.read_bytes(), name


def test_a_repeated_run_encodes_nothing(folders, tmp_path, monkeypatch, trained):
    shutil.copytree(trained[0], tmp_path / "out")

    def refuse(*_):
        raise AssertionError("the encoder was made again")

    monkeypatch.setattr(scene, "encoder", refuse)
    assert train(folders, tmp_path / "out") == trained[1]


def test_clips_shared_with_dev_leave_training_and_are_named(folders, tmp_path):
    captions, minilm, adapter = folders
    write(captions, "dev", range(11, 15))
    scores = train_scene_minilm(captions, minilm, adapter, tmp_path / "out", QUICK)
    assert scores["rows"]["train"] == 77
    assert scores["shared_source_clips"] == [f"{10_110 + c}" for c in range(7)]
    used = pq.read_table(tmp_path / "out" / "scene_minilm.out_of_fold.parquet")["video_id"].to_pylist()
    assert not set(used) & set(scores["shared_source_clips"])
    assert "10110" in (tmp_path / "out" / "scene_minilm.md").read_text("utf-8")


def test_a_missing_class_one_video_and_a_wrong_adapter_write_no_head(folders, tmp_path):
    captions, minilm, adapter = folders
    write(captions, "train", range(12), range(6))
    with pytest.raises(CerError, match="0 rows of the class Surprise"):
        train_scene_minilm(captions, minilm, adapter, tmp_path / "out", QUICK)
    write(captions, "train", range(1))
    with pytest.raises(CerError, match="from one source video"):
        train_scene_minilm(captions, minilm, adapter, tmp_path / "out", QUICK)
    save_head(tmp_path / "other", {"w": np.ones(1)}, {})
    write(captions, "train", range(12))
    with pytest.raises(CerError, match="no low-rank changes"):
        train_scene_minilm(captions, minilm, tmp_path / "other", tmp_path / "out", QUICK)
    assert not (tmp_path / "out" / "scene_minilm.safetensors").exists()


def test_predictions_are_nan_only_where_a_view_lacks_the_segment(folders, trained):
    captions = folders[0]
    path = captions / "vlm_prompt2_dev.csv"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]), "utf-8")
    dev = read_split(captions, "dev", labelled=True)
    head = SceneHead.load(trained[0] / "scene_minilm.safetensors")
    found = predict(head, dev, embed)
    assert list(found) == ["vlm_prompt1", "vlm_prompt2", FUSED]
    assert np.isnan(found["vlm_prompt2"]).any(1).tolist() == [True] + [False] * 41
    np.testing.assert_array_equal(found[FUSED][0], found["vlm_prompt1"][0])
    assert score(found["vlm_prompt2"], dev.targets, dev.videos)["n"] == 41
    assert score(found["vlm_prompt2"], dev.targets, dev.videos)["coverage"] == pytest.approx(41 / 42)


def test_compounds_are_the_sums_of_pairs_and_the_similarities_to_prototypes(folders, trained):
    dev = read_split(folders[0], "dev", labelled=True)
    head = SceneHead.load(trained[0] / "scene_minilm.safetensors")
    assert head.prototypes is not None
    views = list(dev.texts.values())
    p = predict(head, dev, embed)[FUSED]
    pairs = [(3, 6), (4, 6), (5, 6), (2, 6), (1, 6), (5, 3), (5, 1)]
    raw = np.stack([p[:, i] + p[:, j] for i, j in pairs], 1)
    np.testing.assert_allclose(ppa(head.fused(views, embed)), raw / raw.sum(1, keepdims=True), atol=1e-9)
    states = (np.stack([embed(t) for t in views]) - head.mean) / head.spread
    feature = (states / np.linalg.norm(states, axis=-1, keepdims=True)).mean(0)
    cosine = feature @ head.prototypes.T / np.linalg.norm(feature, axis=1, keepdims=True)
    z = np.exp(cosine / head.meta["pfsa_temperature"])
    similarity = pfsa(head.features(views, embed), head.prototypes, head.meta["pfsa_temperature"])
    np.testing.assert_allclose(similarity, z / z.sum(1, keepdims=True), atol=1e-6)


def test_scores_are_those_of_counting():
    rng = np.random.default_rng(0)
    truth = rng.choice(TRAINED_CLASSES, 80)
    p = rng.dirichlet(np.ones(8), 80)
    found = score(p, truth, [f"v{i // 2}" for i in range(80)])
    guess = p.argmax(1)
    recalls = [float((guess[truth == c] == c).mean()) if (truth == c).any() else 0.0 for c in TRAINED_CLASSES]
    assert found["uar"][0] == pytest.approx(100 * np.mean(recalls), abs=0.005)
    assert found["union"]["uar"] == pytest.approx(100 * sum(recalls) / 8, abs=0.005)  # Other is predicted somewhere
    assert found["accuracy"] == pytest.approx(100 * (guess == truth).mean(), abs=0.005)
    assert found["videos"] == 40
    assert np.sum(found["confusion"]) == 80


class Given:
    """Weights of a machine with MiniLM and a scene head."""

    def __init__(self, minilm: Path, head: Path) -> None:
        self.files = {"minilm": minilm, "head_scene_minilm": head}

    def path(self, model: str) -> Path:
        return self.files[model]

    def digest(self, model: str) -> str | None:
        return model


def request(folders: tuple[Path, Path, Path], out: Path, *corpora: tuple[str, Path], **options: str) -> Request:
    made = tuple(Corpus(path.name, kind, path, 1, ()) for kind, path in corpora)
    weights, home = Given(folders[1], folders[2]), Home(out)
    return Request("scene_minilm", home, made, weights, out, options, lambda *_: None)


OPTIONS = {"least": "2", "folds": "3", "seeds": "0,1"}


def test_the_command_trains_as_the_function_does_and_takes_the_encoder_of_the_head_in_use(folders, tmp_path, trained):
    (tmp_path / "out").mkdir()
    scores = scene.train(request(folders, tmp_path / "out", ("captions", folders[0]), **OPTIONS))
    assert scores == trained[1]


def test_a_corpus_of_sentences_adapts_the_encoder_anew_and_once(folders, tmp_path, monkeypatch):
    asked = []

    def adapt(goemotions: Path, minilm: Path, out: Path, progress: object) -> Path:
        asked.append((goemotions, minilm))
        save_head(out, {"linear.weight": np.ones((7, 6))}, {"rank": 2, "alpha": 1.0, "layers": 1})
        return out

    monkeypatch.setattr(scene, "train_adapter", adapt)
    (tmp_path / "out").mkdir()
    both = (("captions", folders[0]), ("utterances", tmp_path / "goemotions"))
    for _ in range(2):
        scene.train(request(folders, tmp_path / "out", *both, **OPTIONS))
    assert asked == [(tmp_path / "goemotions", folders[1])]
    _, meta = load_head(tmp_path / "out" / "scene_minilm.safetensors")
    assert meta["adapter"]["rank"] == 2


@pytest.mark.parametrize(
    ("kinds", "options", "says"),
    [
        (["utterances"], {}, "trained on one corpus of captions"),
        (["captions", "captions"], {}, "trained on one corpus of captions"),
        (["captions", "utterances", "utterances"], {}, "at most one corpus of sentences"),
        (["captions"], {"seeds": "one"}, "seeds are whole numbers"),
        (["captions"], {"rigde": "4"}, "no such option"),
        (["captions"], {"ridge": "much"}, "ridge is a number"),
    ],
)
def test_wrong_corpora_and_options_are_refused(folders, tmp_path, kinds, options, says):
    corpora = [(kind, folders[0]) for kind in kinds]
    with pytest.raises(CerError, match=says):
        scene.train(request(folders, tmp_path / "out", *corpora, **options))
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_too_large_leaves_no_file_of_its_name(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(scene, "MAX_BYTES", 1000)
    with pytest.raises(CerError, match="at most 1000 may be shipped"):
        train(folders, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scene_minilm.states.safetensors"}
