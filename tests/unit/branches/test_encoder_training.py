"""Linear heads on frozen features: what they learn, what chooses their penalty, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cer_pipeline import tables
from cer_pipeline.branches.encoders.heads import LinearHead
from cer_pipeline.branches.encoders.specs import RECIPES
from cer_pipeline.branches.encoders.train import PENALTIES, ProbeSettings, choose_penalty, fit, predict, train
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus, File
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.store.home import Home
from cer_pipeline.trainers import trainer
from cer_pipeline.training import labelled as windows
from cer_pipeline.training.progress import quiet
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import load_head, save_head

BRANCH = "text_clip"
SIZE = RECIPES[BRANCH].size
CLASSES = ("Anger", "Happiness", "Sadness")
SHIFT = np.random.default_rng(9).normal(size=(len(CLASSES), SIZE))


class Heads:
    """`stage.Weights` of at most one head."""

    def __init__(self, head: Path | None = None) -> None:
        self.head = head

    def path(self, model: str) -> Path:
        assert self.head is not None
        return self.head

    def digest(self, model: str) -> str | None:
        return None if self.head is None else "digest"


def corpus(home: Home, videos: int = 9, each: int = 4, strength: float = 0.3, seed: int = 0) -> Corpus:
    """Videos whose windows are of one class each; the features of a class have one direction."""
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for v in range(videos):
        for i in range(each):
            c = v % len(CLASSES)
            key = {"segment_id": f"v{v}/{i:04d}", "video_id": f"v{v}", "segment": i, "status": "ok", "reason": None}
            values = 3 + 2 * (rng.normal(size=SIZE) + strength * SHIFT[c])
            features.append(key | {"features": values.tolist()})
            label = {"split": None, "annotated": 1.0}
            label |= dict.fromkeys((*tables.LABEL_COLUMNS, *tables.COMPOUND_LABEL_COLUMNS))
            truth = zip(tables.LABEL_COLUMNS, BASIC, strict=True)
            labels.append(key | label | {column: float(name == CLASSES[c]) for column, name in truth})
    made = ((f"features/{BRANCH}", features, tables.features(BRANCH, SIZE)), ("labels", labels, tables.LABELS))
    for name, values, spec in made:
        path = home.table(name, "c", "s000")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(values, schema=spec.schema), path)
    files = tuple(File(f"v{v}.mp4", f"v{v}", 1, 1, 1, "0" * 64, "s000", None) for v in range(videos))
    registered = Corpus("c", "folder", home.root, 1, files)
    registry._save(home.root, registered)
    return registered


def request(tmp_path: Path, weights: Heads | None = None, **options: str) -> Request:
    home, out = Home(tmp_path), tmp_path / "out"
    out.mkdir(exist_ok=True)
    return Request(BRANCH, home, (corpus(home),), weights or Heads(), out, {"folds": "3", **options}, quiet)


def test_every_branch_over_texts_can_be_trained() -> None:
    for name in RECIPES:
        declared = trainer(load_profile(), name)
        assert declared.reads == ("labels", f"features/{name}") and declared.formats == ()


def test_a_layer_predicts_the_classes_that_it_was_fitted_on() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3):
        classes = np.repeat(np.arange(1, 1 + count), 30)
        x = rng.normal(size=(len(classes), 12)) * 5 + 7
        x[np.arange(len(classes)), classes] += 40
        x[:, -1] = 4  # a constant feature
        vocabulary = list(range(1, 1 + count))
        p = predict(fit(x, classes, 1.0, vocabulary), x, vocabulary)
        assert (p.argmax(1) == classes).all()
        np.testing.assert_allclose(p.sum(1), 1)
        assert (np.delete(p, vocabulary, axis=1) == 0).all()


def test_a_layer_equals_logistic_regression_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    for count in (2, 4):
        classes = rng.integers(0, count, 60)
        x = rng.normal(size=(60, 5)) * [1, 10, 0.1, 3, 2] + classes[:, None]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
        expected = model.fit(x, classes).predict_proba(x)
        vocabulary = list(range(count))
        np.testing.assert_allclose(
            predict(fit(x, classes, 0.1, vocabulary), x, vocabulary)[:, :count], expected, atol=1e-6
        )


@pytest.mark.slow
def test_training_writes_a_head_with_its_card_scores_and_out_of_fold_predictions(tmp_path: Path) -> None:
    asked = request(tmp_path)
    scores = train(asked)
    assert scores["macro_f1"][0] > 80 and scores["penalty"] in PENALTIES
    assert json.loads((asked.out / f"{BRANCH}.scores.json").read_text()) == scores
    head = LinearHead.load(RECIPES[BRANCH], asked.out / f"{BRANCH}.safetensors")
    data = windows.read(asked.home, asked.corpora, BRANCH)
    p = head.probabilities(data.features)
    assert (p.argmax(1) == data.classes).mean() > 0.9
    assert (p[:, BASIC.index("Other")] == 0).all()
    table = pq.read_table(asked.out / f"{BRANCH}.predictions.parquet").to_pylist()
    assert [row["segment_id"] for row in table] == data.segments
    assert all(sum(row[c] for c in BASIC_COLUMNS) == pytest.approx(1) for row in table)
    folds = {row["video_id"]: set() for row in table}
    for row in table:
        folds[row["video_id"]].add(row["fold"])
    assert all(len(of_video) == 1 for of_video in folds.values())
    card = (asked.out / f"{BRANCH}.md").read_text()
    assert f"# {BRANCH}" in card and data.digest() in card and "Out of fold" in card


def test_held_out_videos_choose_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    data = windows.read(home, [corpus(home)], BRANCH)
    rows = np.flatnonzero([v not in ("v0", "v1", "v2") for v in data.videos])
    noise = data.features.copy()
    noise[[i for i in range(len(data)) if i not in set(rows.tolist())]] = 1e3
    settings = ProbeSettings(inner=2)
    assert choose_penalty(data, rows, settings) == choose_penalty(replace(data, features=noise), rows, settings)


def test_noise_gets_a_stronger_penalty_than_a_clear_difference(tmp_path: Path) -> None:
    chosen = []
    for strength in (0.02, 1.0):
        home = Home(tmp_path / str(strength))
        data = windows.read(home, [corpus(home, strength=strength)], BRANCH)
        chosen.append(choose_penalty(data, np.arange(len(data)), ProbeSettings()))
    assert chosen[0] == min(PENALTIES) and chosen[0] < chosen[1]


@pytest.mark.slow
def test_a_new_head_keeps_the_changes_of_the_encoder_that_made_its_features(tmp_path: Path) -> None:
    recipe = RECIPES[BRANCH]
    old = {
        "linear.weight": np.zeros((8, SIZE)),
        "linear.bias": np.zeros(8),
        "encoder.text_projection.weight": np.eye(4),
    }
    meta = {"encoder": recipe.encoder, "features": recipe.features, "classes": list(BASIC)}
    save_head(tmp_path / "old.safetensors", old, meta)
    asked = request(tmp_path, Heads(tmp_path / "old.safetensors"))
    assert train(asked)["fine_tuned"]
    tensors, _ = load_head(asked.out / f"{BRANCH}.safetensors")
    assert np.array_equal(tensors["encoder.text_projection.weight"], np.eye(4))
    assert "fine-tuned" in (asked.out / f"{BRANCH}.md").read_text()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"folds": "1"}, "folds must be at least 2: 1"),
        ({"rate": "1"}, "no such option"),
        ({"folds": "99"}, "for 99 folds"),
    ],
)
def test_a_mistake_ends_in_a_line_and_nothing_is_written(tmp_path: Path, options: dict[str, str], line: str) -> None:
    asked = replace(request(tmp_path), options=options)
    with pytest.raises(CerError, match=line) as caught:
        train(asked)
    assert "\n" not in caught.value.line()
    assert not list(asked.out.iterdir())
