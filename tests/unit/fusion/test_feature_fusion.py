"""Feature-level fusion: subsets of branches, missing values, interactions of features, and training."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cer_pipeline import tables
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.feature_level import FeatureFusion, FeatureHead, Shape, load, save
from cer_pipeline.fusion.train.feature_level import FeatureData, FeatureSettings, fit, predict, train, train_features
from cer_pipeline.fusion.train.fit import Settings, train_mhpf
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.weights import open_zoo
from tests.helpers.evaluated_home import NAME, ToyCorpus, write, write_rows
from tests.helpers.memory_inputs import segment

pytestmark = pytest.mark.slow  # whole graphs or trainings

NAMES, SIZES = ("face", "scene", "voice"), (5, 3, 4)
SMALL = Shape(width=16, layers=2, heads=4, inner=32)


@pytest.fixture(scope="module")
def head() -> FeatureHead:
    torch.manual_seed(0)
    return FeatureHead(FeatureFusion(SIZES, SMALL).eval(), NAMES, SIZES, (True,) * 7 + (False,))


def units(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return {b: rng.normal(size=(n, size)).astype(np.float32) for b, size in zip(NAMES, SIZES, strict=True)}


def test_each_subset_of_branches_gives_a_distribution(head):
    found = []
    for subset in itertools.product([False, True], repeat=3):
        p = head.probabilities(units(), {b: np.full(6, here) for b, here in zip(NAMES, subset, strict=True)})
        if any(subset):
            assert (p >= 0).all()
            np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-6)
            assert (p[:, 7] == 0).all(), "a class without a training segment"
            found.append(p)
        else:
            assert np.isnan(p).all()
    assert len(found) == 7
    assert all(np.abs(a - b).max() > 1e-4 for a, b in itertools.combinations(found, 2)), "each branch counts"


def test_values_of_absent_branches_change_nothing(head):
    present = {"face": np.ones(6, bool), "scene": np.zeros(6, bool), "voice": np.array([True, False] * 3)}
    plain = head.probabilities(units(), present)
    other = units()
    other["scene"][:] = 1e6
    other["voice"][1::2] = np.nan
    assert (head.probabilities(other, present) == plain).all()
    assert (head.probabilities({b: v for b, v in other.items() if b != "scene"}, present) == plain).all()


def test_features_that_are_all_zero_are_not_missing(head):
    zero = units() | {"scene": np.zeros((6, 3), np.float32)}
    everyone = {b: np.ones(6, bool) for b in NAMES}
    without = head.probabilities(zero, everyone | {"scene": np.zeros(6, bool)})
    assert np.abs(head.probabilities(zero, everyone) - without).max() > 1e-4


def test_a_segment_does_not_depend_on_its_batch_and_branches_come_by_name(head):
    values, everyone = units(), {b: np.ones(6, bool) for b in NAMES}
    together = head.probabilities(values, everyone)
    for i in range(6):
        one = {b: v[i : i + 1] for b, v in reversed(values.items())} | {"unknown": np.zeros((1, 9), np.float32)}
        assert (head.probabilities(one, {b: np.ones(1, bool) for b in one})[0] == together[i]).all()


def test_a_network_equals_the_naive_formula_of_one_layer():
    torch.manual_seed(1)
    network = FeatureFusion((4,), Shape(width=4, layers=1, heads=1, inner=3)).eval()
    x = torch.randn(1, 4)
    got = network([x], torch.ones((1, 1), dtype=torch.bool)).detach().numpy()[0]
    w = {k: v.detach().numpy().astype(float) for k, v in network.state_dict().items()}

    def norm(v, name):
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(v, name):
        return w[f"{name}.weight"] @ v + w[f"{name}.bias"]

    token = norm(linear(x.numpy()[0], "project.0"), "norms.0")
    layer = "encoder.layers.0"
    q, k, v = np.split(w[f"{layer}.self_attn.in_proj_weight"], 3)
    bq, bk, bv = np.split(w[f"{layer}.self_attn.in_proj_bias"], 3)
    tokens = [w["query"], token]
    scores = np.array([(q @ tokens[0] + bq) @ (k @ t + bk) / np.sqrt(4) for t in tokens])
    shares = np.exp(scores) / np.exp(scores).sum()
    mixed = sum(s * (v @ t + bv) for s, t in zip(shares, tokens, strict=True))
    state = norm(tokens[0] + linear(mixed, f"{layer}.self_attn.out_proj"), f"{layer}.norm1")
    inner = linear(np.maximum(linear(state, f"{layer}.linear1"), 0), f"{layer}.linear2")
    state = norm(state + inner, f"{layer}.norm2")
    np.testing.assert_allclose(got, linear(norm(state, "norm"), "last"), atol=1e-5)


def test_a_head_is_read_back_with_the_same_bits(head, tmp_path):
    save(tmp_path / "f.safetensors", head, {"data": "made up"})
    again = load(tmp_path / "f.safetensors")
    everyone = {b: np.ones(6, bool) for b in NAMES}
    assert (again.probabilities(units(), everyone) == head.probabilities(units(), everyone)).all()
    with pytest.raises(CerError, match="6 features, the fusion was trained with 5"):
        again.probabilities({"face": np.zeros((1, 6), np.float32)}, {"face": np.ones(1, bool)})
    with pytest.raises(CerError, match="has none of the branches"):
        again.probabilities({"text": np.zeros((1, 6), np.float32)}, {"text": np.ones(1, bool)})


def planted(n=480, seed=0) -> FeatureData:
    """Anger where two branches have the same sign, Fear otherwise: neither branch alone predicts the class."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (n, 2))
    features = tuple((signs[:, [i]] + 0.2 * rng.normal(size=(n, 3))).astype(np.float32) for i in range(2))
    targets = np.eye(8, dtype=np.float32)[np.where(signs[:, 0] == signs[:, 1], 1, 3)]
    names = tuple(f"v{i // 4}/{i % 4:04d}" for i in range(n))
    videos = tuple(name[:-5] for name in names)
    return FeatureData(
        ("face", "voice"), features, np.ones((n, 2), bool), targets, names, videos, np.array(videos), ("toy",) * n
    )


def test_training_learns_an_interaction_that_probability_fusion_cannot():
    data = planted()
    half = np.arange(240)
    rest = half + 240
    head = fit(data, half, FeatureSettings(epochs=40, leave_out=0.1), SMALL)
    assert (predict(head, data, rest).argmax(axis=1) == data.classes[rest]).mean() > 0.95
    # The best prediction of each branch alone: both classes are equally probable.
    p = np.zeros((480, 2, 8))
    p[:, :, [1, 3]] = 0.5
    seen = np.ones((240, 2), bool)
    args = data.targets[half].astype(float), data.groups[half], data.branches, BASIC, Settings()
    fused = train_mhpf(p[half], seen, *args).fuse(p[rest], seen)[0]
    assert (fused.argmax(axis=1) == data.classes[rest]).mean() < 0.65


def test_training_is_deterministic_and_does_not_change_the_global_random_state():
    data, rows = planted(96), np.arange(96)
    settings = FeatureSettings(epochs=3)
    torch.manual_seed(5)
    first = fit(data, rows, settings, SMALL)
    drawn = torch.rand(1)
    second = fit(data, rows, settings, SMALL)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    assert (predict(first, data, rows) == predict(second, data, rows)).all()


def test_data_that_cannot_be_trained_on_is_refused_and_nothing_is_written(tmp_path):
    data = planted(48)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"groups": np.array(["one"] * 48)}, "one source video"),
        ({"targets": np.eye(8, dtype=np.float32)[np.full(48, 2)]}, "all segments are of the class Disgust"),
        ({"present": np.zeros((48, 2), bool)}, "no labelled segment has features"),
    )
    for change, message in cases:
        with pytest.raises(CerError, match=message):
            train_features(replace(data, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_entry_reads_tables_and_writes_head_card_scores_and_out_of_fold_values(tmp_path):
    corpus, rng = ToyCorpus(0, 24), np.random.default_rng(0)
    for name in ("frame_labels", "frame_predictions", "compound", "fused"):
        corpus.rows[name] = []
    for row in corpus.rows["labels"]:
        row["split"] = None
    home = write(tmp_path / "home", corpus, shards=1)
    for name, size in (("face_static", 4), ("text_minilm", 6)):
        rows = []
        for label in corpus.rows["labels"]:
            there = name == "face_static" or rng.random() < 0.5
            own = {"features": rng.normal(size=size).tolist()} if there else {"status": "no_speech", "features": None}
            rows.append(segment(label["video_id"], label["segment"]) | own)
        write_rows(home, tables.features(name, size), rows, NAME, "s000")
    asked = Request(
        "feature_fusion",
        home,
        (registry.load(home.root, NAME),),
        open_zoo({}),
        tmp_path / "out",
        {"epochs": "2", "folds": "3"},
        lambda _what, _done, _all: None,
    )
    scores = train(asked)
    assert scores["branches"] == {"face_static": 4, "text_minilm": 6}
    assert scores["coverage"]["face_static"] == 1.0 > scores["coverage"]["text_minilm"] > 0
    assert json.loads((tmp_path / "out" / "feature_fusion.scores.json").read_text()) == scores
    assert "text_minilm: 6 features" in (tmp_path / "out" / "feature_fusion.md").read_text()
    table = pq.read_table(tmp_path / "out" / "feature_fusion.predictions.parquet")
    assert sorted(table.column("segment_id").to_pylist()) == sorted(r["segment_id"] for r in corpus.rows["labels"])
    p = np.column_stack([table.column(c).to_numpy() for c in BASIC_COLUMNS])
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-6)
    assert load(tmp_path / "out" / "feature_fusion.safetensors").branches == ("face_static", "text_minilm")
    with pytest.raises(CerError, match="no feature table: audio in toy"):
        train(
            Request(asked.branch, home, asked.corpora, asked.weights, asked.out, {"branches": "audio"}, asked.progress)
        )
