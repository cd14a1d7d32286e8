"""Training of the fusion on registered corpora: what it reads, refuses and writes, and inference with its head."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.mhpf import STATIC, load_mhpf
from cer_pipeline.fusion.specs import fusion_stages
from cer_pipeline.fusion.train.data import FusionData, check, read
from cer_pipeline.fusion.train.mhpf import MEAN, PRODUCT, SYSTEMS, train, train_fusion
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.store.materialise import materialise
from cer_pipeline.store.parquet import read_table
from cer_pipeline.tables import LABEL_COLUMNS
from cer_pipeline.trainers import trainer
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.trained import publish
from cer_pipeline.zoo.weights import open_zoo
from tests.helpers.evaluated_home import BRANCHES, NAME, ToyCorpus, write
from tests.helpers.memory_inputs import branch

pytestmark = pytest.mark.slow  # whole graphs or trainings


def request(home, corpora, out, **options) -> Request:
    """What `cer train mhpf` hands over."""
    return Request("mhpf", home, tuple(corpora), open_zoo({}), out, options, lambda _what, _done, _all: None)


def toy(videos=60, splits=False, seed=0) -> ToyCorpus:
    """A labelled corpus; without splits all of it is for training."""
    corpus = ToyCorpus(seed, videos)
    for name in ("frame_labels", "frame_predictions", "compound", "fused"):  # nothing here reads them
        corpus.rows[name] = []
    corpus.split = {v: ("dev" if i % 3 else "train") if splits else "" for i, v in enumerate(corpus.split)}
    for row in corpus.rows["labels"]:
        row["split"] = corpus.split[row["video_id"]] or None
    return corpus


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with a corpus, and a fusion that was trained on it."""
    root = tmp_path_factory.mktemp("home")
    corpus = toy()
    home = write(root / "home", corpus)
    scores = train(request(home, [registry.load(home.root, NAME)], root / "out"))
    return home, corpus, root / "out", scores


def test_the_entry_of_the_registry_is_this_training():
    module, _, name = trainer(load_profile(), "mhpf").function.partition(":")
    assert (module, name) == (train.__module__, train.__name__)


def test_each_system_is_scored_with_its_coverage(world):
    _, corpus, out, scores = world
    found = scores["out_of_fold"]
    assert set(found) == {*BRANCHES, MEAN, PRODUCT, *SYSTEMS}
    served = [r.get("status", "ok") for r in corpus.rows["probabilities/text_minilm"]]
    assert found["text_minilm"]["coverage"] == pytest.approx(served.count("ok") / len(served), abs=1e-4)
    assert all(found[name]["coverage"] == 1.0 for name in (MEAN, PRODUCT, *SYSTEMS))
    best = found["MHPF dynamic"]
    assert "beaten_by" not in best
    low, value = found["text_minilm"]["beaten_by"][1], found["text_minilm"]["beaten_by"][0]
    assert low > 0 < value, "the fusion sees a branch that knows the label, the text branch does not"
    assert json.loads((out / "mhpf.scores.json").read_text()) == scores


def test_the_mean_is_scored_as_a_naive_loop_scores_it(world):
    _, corpus, _, scores = world
    count = np.zeros((8, 8), int)
    tables = [corpus.rows[f"probabilities/{b}"] for b in BRANCHES]
    for i, label in enumerate(corpus.rows["labels"]):
        said = [[t[i][c] for c in BASIC_COLUMNS] for t in tables if t[i].get("status", "ok") == "ok"]
        count[int(np.argmax([label[c] for c in LABEL_COLUMNS])), int(np.mean(said, axis=0).argmax())] += 1
    classes = [c for c in range(8) if count[c].sum()]
    f1 = [2 * count[c, c] / (count[c].sum() + count[:, c].sum()) for c in classes]
    assert scores["out_of_fold"][MEAN]["macro_f1"][0] == pytest.approx(100 * np.mean(f1), abs=0.01)


def test_each_labelled_segment_is_predicted_once_by_a_fusion_trained_without_its_video(world):
    _, corpus, out, _ = world
    table = pq.read_table(out / "mhpf.predictions.parquet")
    assert sorted(table.column("segment_id").to_pylist()) == sorted(r["segment_id"] for r in corpus.rows["labels"])
    folds = {}
    for row in table.to_pylist():
        assert sum(row[c] for c in BASIC_COLUMNS) == pytest.approx(1.0)
        folds.setdefault(row["video_id"], set()).add(row["fold"])
    assert all(len(own) == 1 for own in folds.values())
    assert len(set.union(*folds.values())) == 5


def test_the_card_names_branches_settings_and_scores(world):
    _, _, out, scores = world
    card = (out / "mhpf.md").read_text()
    assert all(name in card for name in (*BRANCHES, *SYSTEMS, scores["digest"], "Other"))
    fusion = load_mhpf(out / "mhpf.safetensors")
    assert fusion.branches == tuple(sorted(BRANCHES))
    assert fusion.known == (True,) * 7 + (False,)


def test_the_same_data_gives_the_same_head_and_a_held_out_split_none_of_it(tmp_path):
    heads = []
    for name, change in (("a", False), ("b", True)):
        corpus = toy(75, splits=True)
        for table in ("labels", *(f"probabilities/{b}" for b in BRANCHES)):
            columns = LABEL_COLUMNS if table == "labels" else BASIC_COLUMNS
            for row in corpus.rows[table]:
                if change and corpus.split[row["video_id"]] != "train" and row.get("status", "ok") == "ok":
                    row.update(dict(zip(columns, [*np.roll([row[c] for c in columns[:7]], 3), 0.0], strict=True)))
        home = write(tmp_path / name, corpus)
        scores = train(request(home, [registry.load(home.root, NAME)], tmp_path / f"{name}_out", folds="2"))
        assert scores["rows"]["train"] == sum(corpus.split[r["video_id"]] == "train" for r in corpus.rows["labels"])
        heads.append((tmp_path / f"{name}_out" / "mhpf.safetensors").read_bytes())
    assert heads[0] == heads[1]


def test_settings_and_branches_are_options(world, tmp_path):
    home, _, _, _ = world
    corpora = [registry.load(home.root, NAME)]
    scores = train(request(home, corpora, tmp_path, method="static", branches="face_static, text_minilm", folds="3"))
    fusion = load_mhpf(tmp_path / "mhpf.safetensors")
    assert (fusion.method, fusion.branches, scores["folds"]) == (STATIC, ("face_static", "text_minilm"), 3)
    assert "as set" in scores["head"] or scores["head"] == "MHPF static, likelihood"
    for options, message in (
        ({"speed": "9"}, "no such option"),
        ({"branches": "voice"}, "no corpus has values of a branch|no probability tables"),
        ({"branches": "face_static"}, "one branch alone"),
        ({"folds": "1"}, "at least 2 folds"),
        ({"method": "magic"}, "unknown fusion method"),
    ):
        with pytest.raises(CerError, match=message):
            train(request(home, corpora, tmp_path / "none", **options))
    assert not (tmp_path / "none").exists()


def spoiled(kind: str) -> ToyCorpus:
    """A corpus that cannot be trained on."""
    if kind == "no labels":
        return ToyCorpus(0, 6, labelled=False)
    if kind == "one video":
        return toy(1)
    if kind == "one class":
        corpus = toy(6)
        for row in corpus.rows["labels"]:
            row.update(dict.fromkeys(LABEL_COLUMNS, 0.0) | {LABEL_COLUMNS[2]: 1.0})
        return corpus
    corpus = toy(60, splits=True)
    for row in corpus.rows["labels"]:
        if kind == "no training split":
            row["split"] = "dev"
        elif row["split"] == "train" and max(LABEL_COLUMNS, key=lambda c: row[c]) == "y_fear":
            row.update(dict.fromkeys(LABEL_COLUMNS, 0.0) | {"y_anger": 1.0})
    return corpus


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no labels", "no labels of basic emotions: toy"),
        ("one video", "one source video to train on: toy"),
        ("one class", "all segments are of the class Disgust: toy"),
        ("no training split", "no labelled segment in its training split: toy"),
        ("missing class", "lacks a class that the corpus has: Fear in toy"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line_and_nothing_is_written(tmp_path, kind, message):
    home = write(tmp_path / "home", spoiled(kind))
    with pytest.raises(CerError, match=message) as told:
        train(request(home, [registry.load(home.root, NAME)], tmp_path / "out"))
    assert "\n" not in told.value.line()
    assert not (tmp_path / "out").exists()


def test_a_class_in_one_video_only_is_refused(world):
    home, _, _, _ = world
    data = read(home, [registry.load(home.root, NAME)])
    lone = data.classes == 3
    some = replace(data, groups=np.where(lone, "toy/one", data.groups))
    with pytest.raises(CerError, match="class Fear occurs in 1 source videos"):
        check(some)


def test_a_corpus_without_tables_is_refused(tmp_path):
    home = write(tmp_path / "home", toy(6))
    for name in BRANCHES:
        for path in home.table_folder(f"probabilities/{name}").rglob("*.parquet"):
            path.unlink()
    with pytest.raises(CerError, match="no probability tables: toy"):
        read(home, [registry.load(home.root, NAME)])


def test_out_of_fold_values_of_a_head_replace_those_of_its_table(tmp_path):
    corpus = toy(8)
    home = write(tmp_path / "home", corpus)
    segments = [r["segment_id"] for r in corpus.rows["labels"]]
    made = tmp_path / "made"
    made.mkdir()
    (made / "face_static.safetensors").write_bytes(b"weights")
    (made / "face_static.md").write_text("card")
    (made / "face_static.scores.json").write_text("{}")
    rows = [
        {"corpus": c, "segment_id": s} | dict(zip(BASIC_COLUMNS, np.eye(8)[k].tolist(), strict=True))
        for c, s, k in (
            (NAME, segments[0], 1),
            (NAME, segments[0], 2),
            (NAME, segments[3], 5),
            ("other", segments[4], 6),
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows), made / "face_static.predictions.parquet")
    publish(home.heads, "face_static", made)
    data = read(home, [registry.load(home.root, NAME)])
    face = data.probabilities[:, data.branches.index("face_static")]
    place = {s: i for i, s in enumerate(data.segments)}
    np.testing.assert_allclose(face[place[segments[0]]], (np.eye(8)[1] + np.eye(8)[2]) / 2)
    np.testing.assert_allclose(face[place[segments[3]]], np.eye(8)[5])
    for row in corpus.rows["probabilities/face_static"]:
        if row["segment_id"] not in (segments[0], segments[3]):
            np.testing.assert_allclose(face[place[row["segment_id"]]], [row[c] for c in BASIC_COLUMNS])
    assert f"2 of {len(segments)} segments out of fold" in data.sources["face_static"]


def test_segments_without_any_branch_are_counted_and_not_trained_on(world, tmp_path):
    home, _, _, scores = world
    data = read(home, [registry.load(home.root, NAME)])
    values = data.probabilities.copy()
    values[:3] = np.nan
    found = train_fusion(replace(data, probabilities=values), tmp_path, folds=2)
    assert found["rows"] == {"train": scores["rows"]["train"] - 3, "no branch": 3, "held": 0}


def write_votes(path, actors=30, clips=12, seed=0):
    """Votes where the face separates anger and happiness, and the voice separates sadness and fear."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["fileName", "modality", "A", "D", "F", "H", "N", "S"])
        for actor in range(1001, 1001 + actors):
            for k in range(clips):
                true = int(rng.integers(0, 6))
                for modality, knows in (("face", (0, 3)), ("voice", (2, 5)), ("both", range(6))):
                    share = np.full(6, 0.04) + 0.76 * np.eye(6)[true] if true in knows else np.full(6, 1 / 6)
                    out.writerow([f"{actor}_{k}", modality, *rng.multinomial(30, share / share.sum())])
    return path


def test_a_fusion_of_votes_is_applied_to_a_corpus_of_the_same_branches_by_name(world, tmp_path):
    home, corpus, _, _ = world
    registry.register(home.root, "votes", write_votes(tmp_path / "votes.csv"), "votes")
    votes = [registry.load(home.root, "votes")]
    names = {"voice": "text_minilm", "face": "face_static"}
    scores = train(request(home, votes, tmp_path, **names, last_actor="1025", folds="2"))
    assert scores["rows"] == {"train": 300, "no branch": 0, "held": 60}
    assert scores["held"]["MHPF dynamic"]["macro_f1"][0] > scores["held"]["face_static"]["macro_f1"][0]
    publish(home.heads, "mhpf", tmp_path)
    zoo, profile = open_zoo({}, home.heads), load_profile(overrides=["fusion.method=dynamic"])
    enabled = ("face_static", "scene_minilm", "text_minilm")  # another order, and one that votes know nothing of
    (spec,) = fusion_stages([branch(b) for b in enabled], "dynamic")
    said = {b: {r["segment_id"]: r for r in corpus.rows[f"probabilities/{b}"]} for b in enabled}
    fusion, seen = load_mhpf(tmp_path / "mhpf.safetensors"), 0
    assert fusion.branches == ("face_static", "text_minilm")
    for shard in registry.load(home.root, NAME).shard_labels():
        report = materialise(spec, home, ShardInputs(home, NAME, shard), profile, zoo, run_chunks, "run")
        assert report.footer.by_status == {"ok": report.footer.rows}
        for row in read_table(home.table("fused", NAME, shard)).to_pylist():
            own = [said[b][row["segment_id"]] for b in enabled]
            p = np.array(
                [[r[c] if r.get("status", "ok") == "ok" else np.nan for c in BASIC_COLUMNS] for r in own], float
            )
            known = p[[0, 2]]
            present = np.isfinite(known[:, 0])
            fused, weights = fusion.fuse(known[None], present[None])
            np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], fused[0], atol=1e-12)
            np.testing.assert_allclose(row["w_face_static"], weights[0, 0], atol=1e-12)
            np.testing.assert_allclose(row["w_text_minilm"], weights[0, 1], atol=1e-12)
            assert row["w_scene_minilm"] == [0.0] * 8
            assert row["model"] == "head_mhpf: dynamic; not trained with scene_minilm"
            parts = np.array([row[f"w_{b}"] for b in enabled]) * np.nan_to_num(p)
            np.testing.assert_allclose(parts.sum(axis=0), [row[c] for c in BASIC_COLUMNS], atol=1e-9)
            seen += 1
    assert seen == len(corpus.rows["segments"])


def test_corpora_with_different_branches_are_joined_with_missing_values_masked(world, tmp_path):
    home, corpus, _, _ = world
    registry.register(home.root, "more", write_votes(tmp_path / "more.csv", actors=4), "votes")
    corpora = [registry.load(home.root, n) for n in (NAME, "more")]
    data = read(home, corpora, renamed={"voice": "audio", "face": "face_static"})
    assert data.branches == ("audio", "face_static", "scene_minilm", "text_minilm")
    votes = np.array([c == "more" for c in data.corpora])
    assert votes.sum() == 48
    assert (data.present[votes] == [True, True, False, False]).all()
    assert not data.present[~votes, 0].any()
    assert len(set(data.groups)) == 4 + len(corpus.split)
    assert isinstance(data, FusionData)
    assert [BASIC[c] for c in sorted(set(data.classes[votes]))] == [
        "Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness"
    ]  # fmt: skip
