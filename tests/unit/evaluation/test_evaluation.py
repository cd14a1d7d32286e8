"""Every protocol equals scikit-learn over its units and classes, and a corpus is scored as loops over its rows."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cer_pipeline import metrics, tables
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.evaluate import Evaluation, evaluate, read_metrics, record, select_split
from cer_pipeline.evaluation.protocols import NONE, MetricRow, System, Task, annotated_classes, compare, score, top
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.report.score_table import score_rows, without_score
from cer_pipeline.store.home import Home
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS
from tests.helpers.evaluated_home import BRANCHES, NAME, PAIRS, ToyCorpus, write, write_rows

FEW = 40  # resamples: values do not depend on it
AFEW_CLASSES = tuple(range(7))
SK: Any = sklearn_metrics  # its annotations refuse what it takes


def task(truth, videos=None, classes=AFEW_CLASSES, level="segment", names=BASIC) -> Task:
    videos = [f"v{i}" for i in range(len(truth))] if videos is None else videos
    return Task("dev", level, names, classes, np.asarray(truth), np.array(videos, object))


def value(cells, protocol, metric, system="a") -> Any:
    (cell,) = [c for c in cells if (c.protocol, c.metric, c.system) == (protocol, metric, system)]
    return cell


def sklearn_scores(truth, guess, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f1 = SK.f1_score(truth, guess, average="macro", labels=labels, zero_division=0)
        uar = SK.recall_score(truth, guess, average="macro", labels=labels, zero_division=0)
    return {"macro_f1": 100 * f1, "uar": 100 * uar, "average": 50 * (f1 + uar)}


ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 7)), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_each_protocol_equals_scikit_learn_over_its_own_units_and_classes(rows):
    truth, guess = (np.array(column) for column in zip(*rows, strict=True))
    cells = score(task(truth), System("a", guess), FEW)
    served = guess != NONE
    if served.any():
        fixed = sklearn_scores(truth[served], guess[served], list(AFEW_CLASSES))
        union = sklearn_scores(truth[served], guess[served], None)
        for name in ("macro_f1", "uar", "average"):
            assert value(cells, "segment", name).value == pytest.approx(fixed[name])
            assert value(cells, "segment_union", name).value == pytest.approx(union[name])
        right = 100 * SK.accuracy_score(truth[served], guess[served])
        assert value(cells, "segment", "accuracy").value == pytest.approx(right)
    wrong = sklearn_scores(truth, np.where(served, guess, 99), list(AFEW_CLASSES))
    for name in ("macro_f1", "uar", "average"):
        assert value(cells, "segment_all", name).value == pytest.approx(wrong[name])
    for cell in cells:
        assert cell.coverage == pytest.approx(served.mean())
        assert cell.n == (len(rows) if cell.protocol == "segment_all" else served.sum())
        if cell.low is not None and cell.high is not None:
            assert cell.low <= cell.high


def test_scores_by_class_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 7, 80), rng.integers(0, 8, 80)
    cells = score(task(truth), System("a", guess))
    f1 = SK.f1_score(truth, guess, average=None, labels=list(AFEW_CLASSES), zero_division=0)
    recall = SK.recall_score(truth, guess, average=None, labels=list(AFEW_CLASSES), zero_division=0)
    for c in AFEW_CLASSES:
        assert value(cells, "segment", f"f1/{BASIC[c]}").value == pytest.approx(100 * f1[c])
        assert value(cells, "segment", f"recall/{BASIC[c]}").value == pytest.approx(100 * recall[c])
    assert not [c for c in cells if c.metric == "f1/Other"]


def test_a_system_that_predicts_other_on_a_corpus_without_it_loses_an_eighth_by_the_union_rule_only():
    truth = np.repeat(np.arange(7), 4)
    guess = truth.copy()
    guess[0] = BASIC.index("Other")
    cells = score(task(truth), System("a", guess))
    fixed, union = (value(cells, p, "macro_f1").value for p in ("segment", "segment_union"))
    assert union == pytest.approx(fixed * 7 / 8)


def test_a_system_without_predictions_has_no_score_but_a_status_and_scores_0_over_all_units():
    cells = score(task([0, 1, 2]), System("a", np.full(3, NONE), None, "model_unavailable", "not trained"))
    cell = value(cells, "segment", "macro_f1")
    assert (cell.value, cell.low, cell.n, cell.coverage, cell.status) == (None, None, 0, 0.0, "model_unavailable")
    assert cell.reason == "not trained"
    assert value(cells, "segment_all", "macro_f1").value == 0
    assert compare(task([0, 1, 2]), System("a", np.full(3, NONE)), System("b", np.zeros(3, int))) == []


def test_a_comparison_counts_only_what_both_serve():
    truth = np.array([0, 1, 2, 3] * 10)
    first, second = truth.copy(), (truth + 1) % 4
    first[:10], second[30:] = NONE, NONE
    cells = compare(task(truth, classes=(0, 1, 2, 3)), System("a", first), System("b", second))
    cell = value(cells, "segment_paired", "macro_f1", "a - b")
    assert (cell.value, cell.n, cell.coverage) == (100, 20, 0.5)
    assert cell.low is not None
    assert cell.low > 0


def test_intervals_resample_videos_not_segments():
    rng = np.random.default_rng(1)
    truth = np.repeat(rng.integers(0, 7, 12), 20)
    guess = np.where(np.repeat(rng.random(12) < 0.5, 20), truth, (truth + 1) % 7)
    alone = value(score(task(truth), System("a", guess)), "segment", "uar")
    clips = value(score(task(truth, np.repeat(np.arange(12), 20)), System("a", guess)), "segment", "uar")
    assert clips.high - clips.low > 2 * (alone.high - alone.low)


def test_the_top_class_is_the_first_of_a_tie_and_none_without_a_value():
    p = np.array([[0.5, 0.5, 0], [0.2, 0.4, 0.4], [np.nan, np.nan, np.nan]])
    assert top(p).tolist() == [0, 1, NONE]


def test_a_class_with_a_share_of_any_label_is_annotated():
    shares = np.array([[0.6, 0.4, 0, 0], [1, 0, 0, 0]])
    assert annotated_classes(shares) == (0, 1)


def test_a_task_without_units_is_refused():
    with pytest.raises(ValueError, match="without units"):
        score(task([]), System("a", np.empty(0, int)))


# --- a corpus on disk ---


@pytest.fixture(scope="module")
def corpus() -> ToyCorpus:
    return ToyCorpus()


@pytest.fixture(scope="module")
def home(corpus: ToyCorpus, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return write(tmp_path_factory.mktemp("home"), corpus)


@pytest.fixture(scope="module")
def evaluation(home: Home) -> Evaluation:
    return evaluate(home, NAME, FEW)


def copied(home: Home, folder: Path) -> Home:
    """A home with the same corpus and tables, not evaluated: writing the tables anew takes most of a test's time."""
    shutil.copytree(home.root, folder, ignore=shutil.ignore_patterns("metrics"))
    return Home(folder)


def found(evaluation: Evaluation, split, protocol, system, metric) -> MetricRow:
    key = (split, protocol, system, metric)
    (cell,) = [c for c in evaluation.rows if (c.split, c.protocol, c.system, c.metric) == key]
    return cell


def of_first_shard(corpus: ToyCorpus, table: str) -> list[dict]:
    """The rows of a table in the first of the two shards of `home`."""
    return [r for r in corpus.rows[table] if registry.shard_of(r["video_id"], 2) == "s000"]


def naive_segments(corpus: ToyCorpus, split: str, table: str, method=None):
    """(truth, guess) of every segment of a split that has a value, by plain loops over dicts."""
    compound = method is not None
    columns, y = (COMPOUND_COLUMNS, COMPOUND_LABEL_COLUMNS) if compound else (BASIC_COLUMNS, LABEL_COLUMNS)
    rows = {r["segment_id"]: r for r in corpus.rows[table] if r.get("method") == method}
    pairs = []
    for label in corpus.rows["labels"]:
        row = rows[label["segment_id"]]
        if label["split"] == split and row[columns[0]] is not None:
            pairs.append((max(y, key=lambda c: label[c]), max(columns, key=lambda c: row[c])))
    return [y.index(t) for t, _ in pairs], [columns.index(p) for _, p in pairs]


@pytest.mark.parametrize("system", [*BRANCHES, "fused"])
def test_the_segment_scores_of_a_corpus_equal_loops_over_its_rows(corpus, evaluation, system):
    table = "fused" if system == "fused" else f"probabilities/{system}"
    for split in ("dev", "train"):
        truth, guess = naive_segments(corpus, split, table)
        naive = sklearn_scores(truth, guess, list(range(7)))
        labelled = [r for r in corpus.rows["labels"] if r["split"] == split]
        for metric, expected in naive.items():
            cell = found(evaluation, split, "segment", system, metric)
            assert cell.value == pytest.approx(expected)
            assert (cell.n, cell.coverage) == (len(truth), pytest.approx(len(truth) / len(labelled)))


@pytest.mark.parametrize("method", ["ppa", "pfsa"])
def test_both_mappings_are_scored_over_the_compounds_that_are_annotated(corpus, evaluation, method):
    naive = sklearn_scores(*naive_segments(corpus, "dev", "compound", method), [0, 1, 2])
    for metric, expected in naive.items():
        assert found(evaluation, "dev", "segment", method, metric).value == pytest.approx(expected)


def test_a_branch_alone_is_mapped_by_its_pairs(corpus, evaluation):
    rows = {r["segment_id"]: r for r in corpus.rows["probabilities/scene_minilm"]}
    truth, guess = [], []
    for label in corpus.rows["labels"]:
        if label["split"] == "dev":
            p = [rows[label["segment_id"]][c] for c in BASIC_COLUMNS]
            truth.append(int(np.argmax([label[c] for c in COMPOUND_LABEL_COLUMNS])))
            guess.append(int(np.argmax([p[a] + p[b] for a, b in PAIRS])))
    expected = sklearn_scores(truth, guess, [0, 1, 2])["macro_f1"]
    assert found(evaluation, "dev", "segment", "scene_minilm/ppa", "macro_f1").value == pytest.approx(expected)


def naive_frames(corpus: ToyCorpus, kind: str, system: str):
    """(truth, guess) of every annotated frame of dev by number; None where the system has no value."""
    names, columns = (BASIC, BASIC_COLUMNS) if kind == "basic" else (COMPOUND, COMPOUND_COLUMNS)
    frames = {(r["video_id"], r["frame"]): r for r in corpus.rows["frame_predictions"]}
    pairs = []
    for label in corpus.rows["frame_labels"]:
        if label.get("status", "ok") != "ok" or not label.get(kind) or corpus.split[label["video_id"]] != "dev":
            continue
        frame = frames.get((label["video_id"], label["frame"]))
        guess = None
        if frame is not None and system in ("fused", "ppa"):
            guess = int(np.argmax([frame[c] for c in columns]))
        elif frame is not None:
            mine = [r for r in corpus.rows[f"probabilities/{system}"] if r["video_id"] == label["video_id"]]
            mine = [r for r in mine if r["segment"] in frame["segments"] and r[columns[0]] is not None]
            held = [[r[c] for c in columns] for r in mine]
            guess = int(np.argmax(np.mean(held, axis=0))) if held else None
        pairs.append((names.index(label[kind]), guess))
    return pairs


@pytest.mark.parametrize(
    ("kind", "system", "classes"),
    [("basic", "fused", 7), ("compound", "ppa", 3), ("basic", "text_minilm", 7), ("basic", "face_static", 7)],
)
def test_the_frame_scores_of_a_corpus_compare_frames_by_number(corpus, evaluation, kind, system, classes):
    pairs = naive_frames(corpus, kind, system)
    served = [(t, p) for t, p in pairs if p is not None]
    truth, guess = zip(*served, strict=True)
    expected = sklearn_scores(truth, guess, list(range(classes)))["macro_f1"]
    cell = found(evaluation, "dev", "frame", system, "macro_f1")
    assert cell.value == pytest.approx(expected)
    assert (cell.n, cell.coverage) == (len(served), pytest.approx(len(served) / len(pairs)))
    wrong = sklearn_scores([t for t, _ in pairs], [99 if p is None else p for _, p in pairs], list(range(classes)))
    assert found(evaluation, "dev", "frame_all", system, "macro_f1").value == pytest.approx(wrong["macro_f1"])


def test_the_fusion_is_compared_with_every_branch_and_pfsa_with_ppa(evaluation):
    pairs = {c.system for c in evaluation.rows if c.protocol == "segment_paired"}
    assert pairs >= {f"fused - {b}" for b in BRANCHES} | {"pfsa - ppa"}
    cell = found(evaluation, "dev", "segment_paired", "fused - face_static", "macro_f1")
    ours, theirs = (found(evaluation, "dev", "segment", s, "macro_f1").value for s in ("fused", "face_static"))
    assert ours is not None
    assert theirs is not None
    assert cell.value == pytest.approx(ours - theirs)


def test_the_table_is_read_with_one_glob_and_no_code_of_ours(home, evaluation):
    pattern = home.root / "tables/metrics/*/*/data.parquet"
    query = f"select corpus, shard, count(*) from read_parquet('{pattern}', hive_partitioning = true) group by all"
    found: Any = duckdb.sql(query)
    assert found.fetchall() == [(NAME, "all", len(evaluation.rows))]
    frame = pd.read_parquet(home.root / "tables/metrics")
    assert set(frame["corpus"]) == {NAME}
    assert list(frame.columns[:9]) == [
        "split", "protocol", "system", "metric", "value", "low", "high", "n", "coverage"
    ]  # fmt: skip


def test_evaluated_again_nothing_is_computed_until_a_table_changes(corpus, home, tmp_path, monkeypatch):
    home = copied(home, tmp_path / "home")
    first = evaluate(home, NAME, FEW)
    path = home.table("metrics", NAME, "all")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "_resampled", lambda *_: pytest.fail("computed again"))
        again = evaluate(home, NAME, FEW)
    assert (first.unchanged, again.unchanged, path.read_bytes()) == (False, True, before)
    assert again.rows == first.rows == tuple(read_metrics(home, NAME))
    rows = [r | {"reason": "changed"} for r in of_first_shard(corpus, "fused")]
    write_rows(home, tables.fused(BRANCHES), rows, NAME, "s000")
    third = evaluate(home, NAME, FEW)
    assert not third.unchanged
    assert [c.value for c in third.rows] == [c.value for c in first.rows]


def test_train_is_shown_only_when_it_is_asked_for(evaluation):
    assert {c.split for c in select_split(evaluation.rows, NAME)} == {"dev"}
    assert {c.split for c in select_split(evaluation.rows, NAME, "train")} == {"train"}
    with pytest.raises(CerError, match=r"split 'test': toy - it has: dev, train"):
        select_split(evaluation.rows, NAME, "test")


def test_a_record_has_ten_fields(evaluation):
    keys = ["system", "corpus", "split", "protocol", "metric", "value", "low", "high", "n", "coverage"]
    assert all(list(record(cell, NAME)) == keys for cell in evaluation.rows)


def test_a_corpus_that_cannot_be_evaluated_says_why_in_one_line(home, tmp_path):
    with pytest.raises(CerError, match="no such corpus"):
        evaluate(Home(tmp_path), "nobody", FEW)
    bare = write(tmp_path / "bare", ToyCorpus(videos=2, labelled=False), shards=1)
    with pytest.raises(CerError, match="the corpus has no labels: toy"):
        evaluate(bare, NAME, FEW)
    half = copied(home, tmp_path / "half")
    half.table("fused", NAME, "s001").unlink()
    with pytest.raises(CerError, match=r"fused of toy-s001 has not been made - run `cer run toy`"):
        evaluate(half, NAME, FEW)


def test_labels_of_a_segment_that_was_never_predicted_are_refused(corpus, home, tmp_path):
    home = copied(home, tmp_path / "home")
    lacking, *rows = of_first_shard(corpus, "fused")
    write_rows(home, tables.fused(BRANCHES), rows, NAME, "s000")
    with pytest.raises(CerError, match=f"a segment that fused does not have: {lacking['segment_id']}"):
        evaluate(home, NAME, FEW)


def test_a_shard_without_videos_changes_nothing(corpus, evaluation, tmp_path):
    many = evaluate(write(tmp_path, corpus, shards=7), NAME, FEW)
    assert [(c.system, c.value, c.low) for c in many.rows] == [(c.system, c.value, c.low) for c in evaluation.rows]


def test_only_labels_are_needed_for_the_path_of_a_corpus_without_frame_labels(tmp_path):
    made = ToyCorpus(videos=4)
    made.rows["frame_labels"] = []
    cells = evaluate(write(tmp_path, made), NAME, FEW).rows
    assert {c.protocol.partition("_")[0] for c in cells} == {"segment"}
    assert not Path(tmp_path / "reports").exists()


def test_a_format_that_annotates_eight_classes_is_averaged_over_eight(corpus, home, tmp_path):
    home = copied(home, tmp_path / "home")
    registry._save(home.root, replace(registry.load(home.root, NAME), format="affwild2"))
    made = evaluate(home, NAME, FEW)
    truth, guess = naive_segments(corpus, "dev", "fused")
    expected = sklearn_scores(truth, guess, list(range(8)))["macro_f1"]
    assert found(made, "dev", "segment", "fused", "macro_f1").value == pytest.approx(expected)


def silent(branch: str) -> ToyCorpus:
    """A corpus in which one branch serves nothing."""
    made = ToyCorpus(videos=6)
    for row in made.rows[f"probabilities/{branch}"]:
        row.update({**dict.fromkeys(BASIC_COLUMNS), "status": "no_speech", "reason": "silence"})
    return made


def test_a_branch_without_any_unit_says_why_there_is_no_score_for_segments_and_for_frames(tmp_path):
    home = write(tmp_path, silent("text_minilm"))
    cells = evaluate(home, NAME, FEW).rows
    for protocol, system in (
        ("segment", "text_minilm"),
        ("frame", "text_minilm"),
        ("segment", "text_minilm/ppa"),
        ("frame", "text_minilm/ppa"),
    ):
        cell = next(
            c for c in cells if (c.split, c.protocol, c.system, c.metric) == ("dev", protocol, system, "macro_f1")
        )
        assert (cell.value, cell.n, cell.status, cell.reason) == (None, 0, "no_speech", "silence")
    assert not [c for c in cells if c.value is None and c.status == "ok"]
    (line,) = without_score(c for c in cells if c.split == "dev")
    assert line.startswith("no score: text_minilm (dev frame), text_minilm (dev segment), text_minilm/ppa (dev frame)")
    assert line.endswith(": no_speech, silence")
    printed = {row[1]: row[4] for row in score_rows(cells) if row[0] == "dev frame"}
    assert printed["text_minilm"] == "no_speech"


def test_labelled_units_outside_of_all_windows_are_no_label():
    cell = value(score(task([0, 1, 2], level="frame"), System("a", np.full(3, NONE))), "frame", "macro_f1")
    assert (cell.status, cell.reason) == ("no_label", "no labelled frame is one that was analysed")
