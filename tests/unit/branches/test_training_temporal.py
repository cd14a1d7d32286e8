"""Training of the temporal heads, on made-up windows whose class lies in the course of time and not in the mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cer_pipeline import tables
from cer_pipeline.branches.face import temporal_head as heads
from cer_pipeline.branches.face import train as training
from cer_pipeline.branches.face.specs import MAMBA, STEP_FEATURES, STEPS_PER_WINDOW, TRANSFORMER
from cer_pipeline.branches.face.train import TemporalSettings
from cer_pipeline.corpora.corpus import Corpus, File
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.store.home import Home
from cer_pipeline.training import labelled as windows
from cer_pipeline.training.labelled import Windows
from cer_pipeline.training.search import Choice, Span
from cer_pipeline.training.trainer import Request

pytestmark = pytest.mark.slow  # whole graphs or trainings

INPUTS = 3
T = 8
FAST = TemporalSettings(
    hidden=16, middle=8, layers=1, heads=2, states=4, kernel=3, dropout=0.0, rate=0.02, batch=16,
    epochs=12, patience=12, folds=3, schedule="constant",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def steps_of(course: str, rng: np.random.Generator) -> np.ndarray:
    """[T, INPUTS + 1]: values whose mean is 0 in every class; the last steps may be unseen, and hold nonsense."""
    seen = int(rng.integers(5, T + 1))
    ramp = np.linspace(-1, 1, seen)
    values = {"rising": ramp, "falling": -ramp, "shaking": np.resize([1.0, -1.0], seen), "still": np.zeros(seen)}[
        course
    ]
    out = np.full((T, INPUTS + 1), 50.0)
    out[:, -1] = 0
    out[:seen, -1] = 1
    out[:seen, 0] = values - values.mean() + rng.normal(0, 0.05, seen)
    out[:seen, 1:-1] = rng.normal(0, 0.3, (seen, INPUTS - 1))
    return out


def made(courses: dict[str, str], videos: int = 9, each: int = 4, seed: int = 0) -> Windows:
    """Windows of some videos, each with all classes: class -> course."""
    rng = np.random.default_rng(seed)
    rows, targets, segments, owners = [], [], [], []
    for v in range(videos):
        for i in range(each):
            name = list(courses)[i % len(courses)]
            rows.append(steps_of(courses[name], rng).ravel())
            targets.append(np.eye(len(BASIC))[BASIC.index(name)])
            segments.append(f"v{v}/{i:04d}")
            owners.append(f"v{v}")
    x, y = np.array(rows, np.float32), np.array(targets, np.float32)
    return Windows(x, y, segments, owners, [f"c/{v}" for v in owners], ["c"] * len(rows), {"c": len(rows)})


ORDER = {"Anger": "rising", "Happiness": "falling"}
SPREAD = {"Anger": "shaking", "Happiness": "still"}


def train(data: Windows, branch: str, out: Path, settings: TemporalSettings = FAST, trials: int = 0) -> dict:
    return training.train_temporal(data, branch, out, settings, trials, inputs=INPUTS)


def mean_model_accuracy(data: Windows) -> float:
    """What a logistic regression on the mean over the seen steps reaches on the windows that it was fitted to."""
    from sklearn.linear_model import LogisticRegression

    x, mask = training.sequences(data.features, INPUTS)
    mean = heads.masked_mean(x, mask).numpy()
    return float(LogisticRegression().fit(mean, data.classes).score(mean, data.classes))


@pytest.mark.slow
@pytest.mark.parametrize(("branch", "courses"), [(MAMBA, ORDER), (TRANSFORMER, SPREAD)])
def test_a_head_learns_out_of_fold_what_no_mean_can_tell(branch: str, courses: dict[str, str], tmp_path: Path) -> None:
    data = made(courses, each=8)
    assert mean_model_accuracy(data) < 0.75
    scores = train(data, branch, tmp_path)
    assert scores["uar"][0] > 90
    assert set(scores["f1"]) == set(courses)
    table = pq.read_table(tmp_path / f"{branch}.predictions.parquet")
    assert table.column("segment_id").to_pylist() == data.segments
    p = np.stack([table.column(name).to_numpy() for name in BASIC_COLUMNS], 1)
    assert p.sum(1) == pytest.approx(1, abs=1e-9)
    assert np.mean(p.argmax(1) == data.classes) > 0.9
    fold = table.column("fold").to_pylist()
    by_video = {video: {f for f, v in zip(fold, data.videos, strict=True) if v == video} for video in data.videos}
    assert all(len(found) == 1 for found in by_video.values())


def test_training_writes_a_head_that_predicts_with_its_card_curves_and_picture(tmp_path: Path) -> None:
    data = made(ORDER)
    scores = train(data, MAMBA, tmp_path)
    head = heads.load(tmp_path / f"{MAMBA}.safetensors")
    p = head.probabilities(data.features[0].reshape(T, -1))
    assert p.sum() == pytest.approx(1)
    assert json.loads((tmp_path / f"{MAMBA}.scores.json").read_text()) == scores
    card = (tmp_path / f"{MAMBA}.md").read_text()
    assert scores["digest"] in card
    assert "c (36 windows)" in card
    assert (tmp_path / f"{MAMBA}.png").read_bytes().startswith(b"\x89PNG")
    curves = json.loads((tmp_path / f"{MAMBA}.curves.json").read_text())
    assert list(curves) == ["fold_0", "fold_1", "fold_2", "all"]
    assert all(record.keys() == {"epoch", "loss", "score", "rate"} for fit in curves.values() for record in fit)


@pytest.mark.parametrize("branch", [MAMBA, TRANSFORMER])
def test_steps_that_do_not_count_change_nothing(branch: str, tmp_path: Path) -> None:
    data = made(ORDER, videos=6)
    network = training.fit(data, np.arange(len(data)), branch, replace(FAST, epochs=2), tmp_path / "s", inputs=INPUTS)
    x, mask = training.sequences(data.features, INPUTS)
    seen = int(mask[0].sum())
    alone = training.logits_of(network.network, x[:1, :seen], mask[:1, :seen])
    padded = training.logits_of(network.network, x, mask)[:1]
    assert alone == pytest.approx(padded, abs=1e-5)
    assert torch.isfinite(network.network.mean).all()
    assert network.network.mean.abs().max() < 2  # the nonsense of unseen steps is 50


def test_a_stopped_training_goes_on_to_the_same_head(tmp_path: Path) -> None:
    data, settings = made(ORDER), replace(FAST, dropout=0.2, epochs=5, schedule="plateau", folds=2)
    train(data, MAMBA, tmp_path / "a", settings)

    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if "fold_1" in what and 2 * done > total:
            raise Stop

    with pytest.raises(Stop):
        training.train_temporal(data, MAMBA, tmp_path / "b", settings, 0, stop, INPUTS)
    assert not list((tmp_path / "b").glob(f"{MAMBA}.*"))  # nothing half-trained lies where heads are taken from
    told: list[str] = []
    training.train_temporal(data, MAMBA, tmp_path / "b", settings, 0, lambda what, *_: told.append(what), INPUTS)
    assert not any("fold_0" in what for what in told)
    for ending in ("safetensors", "predictions.parquet", "scores.json"):
        name = f"{MAMBA}.{ending}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "soft_focal", "optimiser": "adamw", "schedule": "cosine"},
        {"loss": "cross_entropy", "optimiser": "adam", "schedule": "warmup"},
    ],
)
def test_every_loss_and_schedule_learns(change: dict, tmp_path: Path) -> None:
    data = made(ORDER, each=6)
    fitted = training.fit(data, np.arange(len(data)), MAMBA, replace(FAST, **change), tmp_path / "s", inputs=INPUTS)
    assert fitted.best > 80
    rates = [record["rate"] for record in fitted.epochs]
    assert rates[-1] < 0.2 * max(rates)
    assert (rates[0] < rates[1]) == (change["schedule"] == "warmup")


def test_a_plateau_lowers_the_rate_and_then_stops_early(tmp_path: Path) -> None:
    data = replace(made(ORDER), features=np.ones_like(made(ORDER).features))  # nothing can be learned
    settings = replace(FAST, schedule="plateau", patience=6, epochs=50)
    fitted = training.fit(data, np.arange(len(data)), MAMBA, settings, tmp_path / "s", inputs=INPUTS)
    assert len(fitted.epochs) < 50
    assert fitted.epochs[-1]["rate"] == settings.rate / 4
    best = max(record["score"] for record in fitted.epochs)
    assert all(record["score"] <= best for record in fitted.epochs[-settings.patience :])


def test_held_out_videos_choose_nothing(tmp_path: Path) -> None:
    data = made(ORDER)
    first = train(data, MAMBA, tmp_path / "a", replace(FAST, epochs=3))
    folds = pq.read_table(tmp_path / "a" / f"{MAMBA}.predictions.parquet").column("fold").to_numpy()
    held = folds == 0
    features = data.features.copy()
    features[held] = np.random.default_rng(9).normal(size=features[held].shape)
    features[held, INPUTS :: INPUTS + 1] = 1
    train(replace(data, features=features), MAMBA, tmp_path / "b", replace(FAST, epochs=3))
    first_state, second_state = (heads_file(tmp_path / name / "fits" / "fold_0.state") for name in "ab")
    assert any(name.startswith("best/") for name in first_state)
    assert all(np.array_equal(value, second_state[name]) for name, value in first_state.items())
    assert first["videos"] == 9


def heads_file(path: Path) -> dict[str, np.ndarray]:
    from cer_pipeline.zoo.head_file import load_head

    return load_head(path)[0]


def take(data: Windows, keep: np.ndarray) -> Windows:
    at = np.flatnonzero(keep)
    lists = {name: [getattr(data, name)[i] for i in at] for name in ("segments", "videos", "groups", "corpora")}
    return Windows(data.features[at], data.targets[at], **lists, counts={"c": len(at)})


def test_what_cannot_be_learned_from_is_told_in_a_line_and_nothing_is_written(tmp_path: Path) -> None:
    data = made(ORDER)
    one_video = take(data, np.array([v == "v0" for v in data.videos]))
    one_class = take(data, data.classes == BASIC.index("Anger"))
    rare = take(data, np.array([c == BASIC.index("Anger") or v in ("v0", "v1")
                                for c, v in zip(data.classes, data.videos, strict=True)]))  # fmt: skip
    few = take(data, np.array([v in ("v0", "v1", "v2") for v in data.videos]))
    for broken, what in (
        (one_video, "1 source video to train on: c"),
        (one_class, "all windows are of the class Anger: c"),
        (rare, "the class Happiness occurs in 2 source videos, at least 3 are needed: c"),
    ):
        with pytest.raises(CerError, match=what):
            train(broken, MAMBA, tmp_path)
    with pytest.raises(CerError, match="3 source videos for 5 folds"):
        train(few, MAMBA, tmp_path, replace(FAST, folds=5))
    assert not list(tmp_path.iterdir())


# From the tables of a registered corpus.


def label_row(segment_id: str, basic: str | None, split: str | None) -> dict:
    video, number = segment_id.rsplit("/", 1)
    row: dict = {"segment_id": segment_id, "video_id": video, "segment": int(number), "split": split, "annotated": 1.0}
    row |= dict.fromkeys((*tables.LABEL_COLUMNS, *tables.COMPOUND_LABEL_COLUMNS))
    if basic:
        row |= {c: float(label == basic) for c, label in zip(tables.LABEL_COLUMNS, BASIC, strict=True)}
    return row | {"status": "ok" if basic else "no_label", "reason": None if basic else "nobody annotated it"}


def feature_row(segment_id: str, values: np.ndarray | None) -> dict:
    video, number = segment_id.rsplit("/", 1)
    status, reason = ("ok", None) if values is not None else ("no_face", "none seen")
    row = {"segment_id": segment_id, "video_id": video, "segment": int(number), "status": status, "reason": reason}
    return row | {"features": None if values is None else values.ravel().tolist()}


FEATURES = tables.features(MAMBA, STEPS_PER_WINDOW * len(STEP_FEATURES)).schema
LABELS = tables.LABELS.schema


def write(home: Home, features: list[dict], labels: list[dict], corpus: str = "c") -> Corpus:
    for name, rows, schema in ((f"features/{MAMBA}", features, FEATURES), ("labels", labels, LABELS)):
        path = home.table(name, corpus, "s000")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return Corpus(corpus, "folder", home.root, 1, ())


def window(rng: np.random.Generator, rising: bool) -> np.ndarray:
    """A whole window whose first feature rises or falls."""
    out = rng.normal(0, 0.1, (STEPS_PER_WINDOW, len(STEP_FEATURES)))
    out[:, 0] += np.linspace(-1, 1, STEPS_PER_WINDOW) * (1 if rising else -1)
    out[:, -1] = 1
    return out


def corpus_rows(splits: dict[str, str | None]) -> tuple[list[dict], list[dict]]:
    rng = np.random.default_rng(0)
    features, labels = [], []
    for video, split in splits.items():
        for i in range(4):
            segment = f"{video}/{i:04d}"
            features.append(feature_row(segment, window(rng, bool(i % 2))))
            labels.append(label_row(segment, ("Sadness", "Fear")[i % 2], split))
    return features, labels


def test_only_labelled_windows_of_the_training_split_with_features_are_read(tmp_path: Path) -> None:
    features, labels = corpus_rows({"a": "train", "b": "train", "c": "dev"})
    features[1] = feature_row("a/0001", None)
    labels[2] = label_row("a/0002", None, "train")
    home = Home(tmp_path)
    data = windows.read(home, [write(home, features, labels)], MAMBA)
    assert data.segments == ["a/0000", "a/0003", "b/0000", "b/0001", "b/0002", "b/0003"]
    assert [BASIC[c] for c in data.classes] == ["Sadness", "Fear", "Sadness", "Fear", "Sadness", "Fear"]
    assert data.features.shape == (6, STEPS_PER_WINDOW * len(STEP_FEATURES))


def test_two_corpora_are_read_one_after_another_and_their_videos_kept_apart(tmp_path: Path) -> None:
    home = Home(tmp_path)
    both = [write(home, *corpus_rows({"a": None}), corpus=name) for name in ("x", "y")]
    data = windows.read(home, both, MAMBA)
    assert data.counts == {"x": 4, "y": 4}
    assert sorted(set(data.groups)) == ["x/a", "y/a"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f, labels: (f, []), "the corpus is empty: c"),
        (
            lambda f, labels: (f, [label_row(r["segment_id"], None, None) for r in labels]),
            "no labels of basic emotions",
        ),
        (
            lambda f, labels: (f, [r | {"split": "test"} for r in labels]),
            "no labelled segment in its training split: c",
        ),
        (
            lambda f, labels: (f, [r | {"split": "train" if int(r["segment"]) % 2 else "dev"} for r in labels]),
            "the training split lacks a class that the corpus has: Sadness in c",
        ),
        (lambda f, labels: ([feature_row(r["segment_id"], None) for r in f], labels), "has features: c"),
    ],
)
def test_a_corpus_that_holds_nothing_to_learn_from_is_told(change, what: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    corpus = write(home, *change(*corpus_rows({"a": None, "b": None})))
    with pytest.raises(CerError, match=what):
        windows.read(home, [corpus], MAMBA)


def test_videos_of_one_source_clip_are_one_group(tmp_path: Path) -> None:
    home = Home(tmp_path)
    corpus = write(home, *corpus_rows({"a": None, "b": None, "c": None}), corpus="x")
    sources = {"a": "film", "b": "film", "c": ""}
    files = tuple(File(f"{v}.mp4", v, 1, 0, 0, sha256="", shard="s000", source=s) for v, s in sources.items())
    data = windows.read(home, [replace(corpus, files=files)], MAMBA)
    assert sorted(set(zip(data.videos, data.groups, strict=True))) == [("a", "x/film"), ("b", "x/film"), ("c", "x/c")]


def test_tables_that_were_not_made_are_named(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="the table labels of c-s000 has not been made - run `cer run c`"):
        windows.read(Home(tmp_path), [Corpus("c", "folder", tmp_path, 1, ())], MAMBA)


@pytest.mark.slow
def test_a_branch_over_published_features_is_trained_from_its_table(tmp_path: Path) -> None:
    branch, size, home, rng = "face_clip_mamba", 513, Home(tmp_path / "home"), np.random.default_rng(0)
    _, labels = corpus_rows({f"v{i}": None for i in range(6)})
    corpus = write(home, [], labels)
    features = []
    for label in labels:
        values = rng.normal(0, 0.1, (STEPS_PER_WINDOW, size))
        values += 0.2 if label["y_fear"] else -0.2
        values[:, -1] = 1
        features.append(feature_row(label["segment_id"], values))
    path = home.table(f"features/{branch}", "c", "s000")
    path.parent.mkdir(parents=True)
    schema = tables.features(branch, STEPS_PER_WINDOW * size).schema
    pq.write_table(pa.Table.from_pylist(features, schema=schema), path)
    options = {"hidden": "16", "middle": "8", "layers": "1", "epochs": "8", "batch": "8", "rate": "0.02", "folds": "2"}
    none: Any = None  # this training loads no weights
    request = Request(branch, home, (corpus,), none, tmp_path / "out", options, lambda *_: None)
    scores = training.train(request)
    assert scores["uar"][0] > 90
    head = heads.load(tmp_path / "out" / f"{branch}.safetensors", branch, size - 1)
    assert head.shape.inputs == size - 1


def test_the_entry_trains_from_tables_with_options(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    corpus = write(home, *corpus_rows({f"v{i}": None for i in range(6)}))
    options = {"hidden": "16", "middle": "8", "layers": "1", "heads": "2", "epochs": "6", "rate": "0.02", "folds": "2"}

    class NoWeights:
        def path(self, model: str) -> Path:
            raise AssertionError

        def digest(self, model: str) -> str | None:
            return None

    def request(more: dict[str, str]) -> Request:
        given = {"branch": MAMBA, "home": home, "corpora": (corpus,), "weights": NoWeights(), "out": tmp_path / "out"}
        return Request(**given, options=options | more, progress=lambda *_: None)

    scores = training.train(request({}))
    assert scores["corpora"] == {"c": 24}
    assert scores["settings"]["hidden"] == 16
    assert heads.load(tmp_path / "out" / f"{MAMBA}.safetensors").shape.inputs == len(STEP_FEATURES) - 1
    for more, what in (
        ({"colour": "red"}, "no such option of this training: colour"),
        ({"epochs": "many"}, "epochs is a whole number: many"),
        ({"loss": "hinge"}, "loss cannot be this: hinge - choose one of: cross_entropy, soft_focal"),
        ({"heads": "3"}, "hidden must be a multiple of heads: 16 and 3"),
    ):
        with pytest.raises(CerError, match=what):
            training.train(request(more))


SMALL_SPACE = {"hidden": Choice((4, 16)), "kernel": Span(1, 3)}


def test_a_search_sees_inner_folds_only_and_serves_the_outer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SEARCH_SPACES", {MAMBA: SMALL_SPACE})
    data, settings = made(ORDER), replace(FAST, epochs=2)
    seen: dict[str, set[int]] = {}
    fit = training.fit

    def watching(data: Windows, rows: np.ndarray, branch: str, own, state: Path, *args, **kwargs):
        if state.parent.parent.name == "search":  # search/fold_0/trial_0_0.state
            seen.setdefault(state.parent.name, set()).update(rows.tolist())
        return fit(data, rows, branch, own, state, *args, **kwargs)

    monkeypatch.setattr(training, "fit", watching)
    scores = train(data, MAMBA, tmp_path, settings, trials=2)
    fold = pq.read_table(tmp_path / f"{MAMBA}.predictions.parquet").column("fold").to_numpy()
    for k in range(settings.folds):
        assert seen[f"fold_{k}"] == set(np.flatnonzero(fold != k).tolist())
    assert set(scores["chosen"]) == {"fold_0", "fold_1", "fold_2", "all"}
    assert all(own["hidden"] in (4, 16) for own in scores["chosen"].values())
    assert not list((tmp_path / "search").glob("*/*"))  # the fits of a finished trial are gone
    assert "2 trials within each fold" in (tmp_path / f"{MAMBA}.md").read_text()


def test_what_a_search_chooses_does_not_depend_on_the_outer_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SEARCH_SPACES", {MAMBA: SMALL_SPACE})
    data, settings = made(ORDER), replace(FAST, epochs=2)
    rows = np.arange(24)
    noise = data.features.copy()
    noise[24:] = np.random.default_rng(1).normal(size=noise[24:].shape)
    found = [
        training.searched(d, rows, MAMBA, settings, 3, tmp_path / f"{i}.log", inputs=INPUTS)
        for i, d in enumerate((data, replace(data, features=noise)))
    ]
    assert found[0].settings == found[1].settings
    assert found[0].trials == found[1].trials


@pytest.mark.parametrize(
    ("branch", "hidden", "layers"),
    [(MAMBA, 128, 2), ("face_clip_mamba", 512, 4), ("face_emoaffectnet_transformer", 512, 1)],
)
def test_a_head_over_the_published_features_is_trained_as_published(branch: str, hidden: int, layers: int) -> None:
    settings = training.published_settings(branch)
    assert (settings.hidden, settings.layers) == (hidden, layers)
    assert (settings.middle, settings.states, settings.kernel, settings.heads) == (128, 4, 6, 4)
    assert branch in training.SEARCH_SPACES
