"""Every cell of the tables of the paper is measured or names what it needs; footnotes name its contradictions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cer_pipeline.cli.reproduce import record
from cer_pipeline.corpora.formats.caption_files import read_split
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.evaluate import evaluate
from cer_pipeline.evaluation.protocols import MetricRow
from cer_pipeline.labels import BASIC
from cer_pipeline.profiles import load_profile
from cer_pipeline.reproduce import caption_benchmark as measuring
from cer_pipeline.reproduce.caption_benchmark import measure
from cer_pipeline.reproduce.paper_tables import (
    AFEW,
    AFFWILD2,
    CEXPR,
    CORPORA,
    METRICS,
    Measured,
    cells,
    data_folder,
    paper,
    registered,
)
from cer_pipeline.store.home import Home
from tests.helpers.evaluated_home import BRANCHES, ToyCorpus, write

SCENE = {"macro_f1": 41.5, "uar": 42.5, "average": 42.0}


def scores(system: str, values: dict[str, float], protocol: str = "segment", union: float = 0.0) -> list[MetricRow]:
    rows = [MetricRow("dev", protocol, system, m, v, v - 5, v + 5, 411, 1.0) for m, v in values.items()]
    return rows + [
        MetricRow("dev", f"{protocol}_union", system, m, v - union, 0, 99, 411, 1.0) for m, v in values.items()
    ]


def captions_only() -> dict[str, list[Measured]]:
    own = (
        scores("scene_minilm", SCENE)
        + scores("scene_minilm vlm_prompt1", SCENE)
        + scores("scene_label", SCENE, union=3)
    )
    return {AFEW: [Measured(tuple(own), "captions: cer reproduce", whole=False)]}


def test_without_data_every_cell_names_what_it_needs_and_a_command() -> None:
    found = cells({})
    first = [c for c in found if c.table == "1"]
    assert len(first) == 17 * (3 + 3 + 2)
    assert {c.corpus for c in first} == {AFFWILD2, AFEW, CEXPR}
    assert all(c.value is None for c in found)
    assert all(c.system for c in first)
    assert all(c.source.startswith(("needs ", "needs labels of")) and c.corpus in c.source for c in first)
    assert all("cer corpus add" in c.source and "cer evaluate" in c.source for c in first)
    assert all(f"cer run {CORPORA[c.corpus]} --profile paper" in c.source for c in first)
    second = [c for c in found if c.table == "2"]
    assert [c.paper for c in second] == [22.81, 25.91, 32.43, 60.63, 34.86]
    assert all("as published" in c.source for c in second[:-1])
    assert second[-1].source.startswith("needs labels of C-EXPR-DB")


def test_the_commands_of_a_row_train_its_heads_on_both_corpora_before_the_run_that_fills_it() -> None:
    found = {(c.id, c.corpus, c.metric): c.source for c in cells({})}
    single = found["5", AFFWILD2, "uar"].partition("; for ")[0]
    train = "cer train face_clip_mamba --profile paper --corpora afew,affwild2"
    features, trained, run = (
        single.index("--select '+key:\"features/face_clip_mamba\"'"),
        single.index(train),
        single.index("cer run affwild2 --profile paper &&"),
    )
    assert features < trained < run < single.index("cer evaluate affwild2 --split dev")
    assert "cer train" not in found["14", AFEW, "uar"].partition("; for ")[0]
    fused = found["17", AFEW, "uar"].partition("; for ")[0]
    heads = ["face_clip_mamba", "scene_jina", "audio_wavlm_bilstm", "text_clip", "mhpf"]
    assert [fused.index(f"cer train {head} ") for head in heads] == sorted(
        fused.index(f"cer train {h} ") for h in heads
    )


def test_a_branch_of_the_paper_fills_its_row_before_the_one_that_stands_for_it() -> None:
    both = scores("scene_jina", {"macro_f1": 31.0}) + scores("scene_minilm", {"macro_f1": 40.0}) + scores("id16", SCENE)
    found = {(c.id, c.metric): c for c in cells({AFEW: [Measured(tuple(both), "corpus afew", whole=True)]})}
    assert (found["6", "macro_f1"].system, found["6", "macro_f1"].value) == ("scene_jina", 31.0)
    assert (found["7", "macro_f1"].system, found["7", "macro_f1"].value) == ("scene_minilm", 40.0)
    assert found["16", "macro_f1"].system == "id16"


def test_scores_of_captions_fill_the_rows_that_they_stand_for_and_no_other() -> None:
    found = cells(captions_only())
    filled = {(c.id, c.corpus, c.metric): c for c in found if c.value is not None and c.id != "-"}
    assert set(filled) == {(i, AFEW, m) for i in ("6", "7", "8", "14") for m in METRICS}
    cell = filled["7", AFEW, "macro_f1"]
    assert (cell.value, cell.low, cell.high, cell.paper, cell.system) == (41.5, 36.5, 46.5, 32.30, "scene_minilm")
    assert cell.union is None, "both rules give the same"
    assert filled["14", AFEW, "macro_f1"].union == pytest.approx(38.5)
    views = [c for c in found if c.id == "-"]
    assert {(c.system, c.paper) for c in views} == {("scene_minilm vlm_prompt1", None)}


def test_a_fusion_fills_a_row_only_with_the_branches_of_that_row() -> None:
    (row,) = [r for r in paper()["table1"] if r["id"] == "16"]
    own = [c for b in row["branches"] for c in scores(b, SCENE)] + scores("fused", SCENE)
    exact = cells({AFEW: [Measured(tuple(own), "corpus afew", whole=True)]})
    assert {c.id for c in exact if c.system == "fused" and c.value is not None} == {"16", "-"}
    more = cells({AFEW: [Measured(tuple(own + scores("audio_uncertainty", SCENE)), "corpus afew", whole=True)]})
    assert {c.id for c in more if c.system == "fused" and c.value is not None} == {"-"}


def test_compounds_of_a_labelled_corpus_fill_the_last_columns_by_frames_first() -> None:
    own = scores("scene_minilm/ppa", SCENE) + scores("scene_minilm/ppa", {"macro_f1": 33.0}, "frame")
    own += scores("pfsa", {"macro_f1": 35.0}, "frame")
    found = {(c.table, c.id, c.metric): c for c in cells({CEXPR: [Measured(tuple(own), "corpus cexpr", whole=True)]})}
    assert found["1", "7", "macro_f1_ppa"].value == 33.0
    assert found["1", "7", "macro_f1_pfsa"].value == 35.0
    assert found["1", "6", "macro_f1_pfsa"].value is None
    assert found["2", "Ours", "macro_f1"].value == 35.0
    assert found["1", "17", "macro_f1_ppa"].value is None
    assert "frames" in found["1", "7", "macro_f1_ppa"].source


def test_the_footnotes_are_the_contradictions_that_the_printed_numbers_hold() -> None:
    numbers = paper()
    odd = set()
    for row in numbers["table1"]:
        for layout in ("affwild2", "afew"):
            f1, uar, average = row[layout]
            if abs((f1 + uar) / 2 - average) > 0.0051:
                odd.add((row["id"], layout))
    assert odd == {("13", "afew"), ("14", "afew")}
    rows = {row["id"]: row for row in numbers["table1"]}
    assert rows["7"]["pfsa"] != next(r for r in numbers["table2"] if r["method"] == "Ours")["macro_f1"]
    noted = {i: row.get("notes", []) for i, row in rows.items()}
    assert (noted["13"], noted["14"], noted["7"], noted["17"]) == (["id13"], ["id14"], ["pfsa"], ["abstract"])
    assert set(numbers["footnotes"]) == {n for r in numbers["table1"] for n in r.get("notes", [])}
    for number in ("46.95", "49.02", "46.50", "47.14", "34.85", "34.86", "21.10", "24.10", "17.25"):
        assert any(number in text for text in numbers["footnotes"].values())


def test_a_registered_corpus_counts_by_its_format_and_once_it_is_evaluated(tmp_path: Path) -> None:
    home = write(tmp_path, ToyCorpus(videos=6), "mine", layout="afew")
    write(tmp_path, ToyCorpus(videos=3), "other")
    assert registered(home) == {}
    evaluate(home, "mine", 20)
    evaluate(home, "other", 20)
    (one,) = registered(home)[AFEW]
    assert one.branches == set(BRANCHES)
    assert {c.split for c in one.cells} == {"dev"}
    assert "cer evaluate mine --split dev" in one.source
    found = cells(registered(home))
    assert {c.id for c in found if c.value is not None and c.corpus == AFEW} == {
        "1",
        "6",
        "7",
        "8",
        "11",
        "12",
        "13",
        "-",
    }


def test_a_record_names_the_eight_fields_first() -> None:
    rows = [record(cell) for cell in cells(captions_only())]
    first = ["system", "corpus", "metric", "value", "low", "high", "paper", "source"]
    assert all(list(row)[:8] == first for row in rows)


def test_a_missing_data_folder_is_named_with_its_origin(tmp_path: Path) -> None:
    assert data_folder(None, "") is None
    assert data_folder(tmp_path, "/nowhere") == tmp_path
    with pytest.raises(CerError, match=r"does not exist: .*nowhere \(from CER_DATA\)"):
        data_folder(None, str(tmp_path / "nowhere"))


# --- measuring ---


class FakeWeights:
    """Digests of weights that are not loaded."""

    def path(self, model: str) -> Path:
        raise AssertionError(f"{model} is loaded")

    def digest(self, model: str) -> str | None:
        return model


def write_captions(folder: Path, count: int = 14) -> Path:
    folder.mkdir(parents=True)
    for prompt in ("prompt1", "prompt2"):
        with (folder / f"vlm_{prompt}_dev.csv").open("w", newline="", encoding="utf-8") as handle:
            rows = csv.writer(handle)
            rows.writerow(["video_name", "text", *BASIC])
            for i in range(count):
                label = [int(c == i % 7) for c in range(8)]
                rows.writerow([f"{i:04d}___0000.avi", f"A person number {i} smiles, says {prompt}.", *label])
    return folder


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces both branches by predictions that are right for every other segment, and records each call."""
    calls: list[str] = []

    def right(split: Any) -> np.ndarray:
        p = np.full((len(split), 8), 0.02)
        p[np.arange(len(split)), np.where(np.arange(len(split)) % 2, split.targets, 0)] = 0.86
        return p

    def scene(_kept: Any, split: Any, *_: Any) -> dict[str, np.ndarray]:
        calls.append("scene")
        return {"scene_minilm": right(split)}

    def label(_kept: Any, split: Any, *_: Any) -> np.ndarray:
        calls.append("label")
        return right(split)

    monkeypatch.setattr(measuring, "_scene", scene)
    monkeypatch.setattr(measuring, "_label", label)
    return calls


def test_scores_are_cached_until_a_caption_file_or_a_weight_changes(tmp_path: Path, pretend: list[str]) -> None:
    home, folder, profile = Home(tmp_path / "home"), write_captions(tmp_path / AFEW), load_profile()

    def once(weights: Any = None) -> list[MetricRow]:
        return measure(home, folder, "dev", weights or FakeWeights(), profile, lambda *_: None)

    first = once()
    assert pretend == ["scene", "label"]
    assert once() == first
    assert pretend == ["scene", "label"], "measured again without a change"
    values = {(c.system, c.metric): c.value for c in first if c.protocol == "segment"}
    split = read_split(folder, "dev", labelled=True)
    guess = np.where(np.arange(14) % 2, split.targets, 0)
    expected = np.mean([np.mean(guess[split.targets == c] == c) for c in range(7)])
    assert values["scene_minilm", "uar"] == pytest.approx(100 * expected)
    path = folder / "vlm_prompt1_dev.csv"
    path.write_text(path.read_text("utf-8").replace("smiles", "frowns"), "utf-8")
    once()
    assert len(pretend) == 4
    other = FakeWeights()
    other.digest = lambda model: f"another {model}"  # type: ignore[method-assign]
    once(other)
    assert len(pretend) == 6


@pytest.mark.slow
def test_real_captions_are_measured_with_the_heads_of_the_zoo_and_encoded_once(
    weights: Any, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / AFEW
    folder.mkdir()
    for path in sorted((shared_data / "captions" / AFEW).glob("*32b*_dev.csv")):
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.reader(handle))
        with (folder / path.name).open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([rows[0], *rows[1::60]])
    messages: list[str] = []
    home = Home(tmp_path / "home")
    found = measure(home, folder, "dev", weights, load_profile(), lambda what, *_: messages.append(what))
    systems = {c.system for c in found}
    assert systems == {"scene_minilm", "scene_label"} | {f"scene_minilm qwen2.5-vl-32b_prompt{i}" for i in (1, 2)}
    assert all(0 <= c.value <= 100 for c in found if c.metric == "macro_f1" and c.value is not None)
    assert any("encoding" in text for text in messages)
    for kept in (home.root / "reproduce").glob("*.json"):
        kept.unlink()
    messages.clear()
    again = measure(home, folder, "dev", weights, load_profile(), lambda what, *_: messages.append(what))
    assert again == found
    assert not any("encoding" in text for text in messages), "a text was encoded twice"
