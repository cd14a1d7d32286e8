"""Exported files hold every segment, with or without a value, and every frame by its number."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from cer_pipeline.cli.app import app
from cer_pipeline.compound.clear import Clear
from cer_pipeline.errors import CerError
from cer_pipeline.export import abaw
from cer_pipeline.export.long_form import MEASURES
from cer_pipeline.export.registry import FORMATS, GROUP, Request, format_of
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.store.home import Home
from tests.helpers.evaluated_home import BRANCHES, NAME, ToyCorpus, measures, write

RULE = Clear(least_expressed=0.6, least_confidence=0.1)
REPOSITORY = Path(__file__).resolve().parents[3]


def export(home: Home, out: Path, to: str = "parquet", corpus: str = NAME, rule: Clear = RULE) -> list[Path]:
    return format_of(to).load()(Request(home, corpus, to, out, rule))


@pytest.fixture(scope="module")
def corpus() -> ToyCorpus:
    made = ToyCorpus(videos=6)
    frame = made.rows["frame_predictions"][-1]
    frame |= dict.fromkeys((*BASIC_COLUMNS, *COMPOUND_COLUMNS)) | {"status": "no_face"}
    return made


@pytest.fixture(scope="module")
def home(corpus: ToyCorpus, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return write(tmp_path_factory.mktemp("home"), corpus)


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_every_segment_has_both_mappings_with_its_times(corpus, home, tmp_path, to):
    compound, _ = export(home, tmp_path / "new", to)
    frame = pd.read_parquet(compound) if to == "parquet" else pd.read_csv(compound)
    expected = {(r["segment_id"], r["method"]): r for r in corpus.rows["compound"]}
    assert len(frame) == len(expected) == 2 * len(corpus.rows["segments"])
    times = {r["segment_id"]: (r["start_s"], r["end_s"]) for r in corpus.rows["segments"]}
    for row in frame.to_dict("records"):
        expected_row = expected[row["segment_id"], row["method"]]
        np.testing.assert_allclose([row[c] for c in COMPOUND_COLUMNS], [expected_row[c] for c in COMPOUND_COLUMNS])
        assert (row["start_s"], row["end_s"]) == times[row["segment_id"]]
        assert row["status"] == "ok"
        np.testing.assert_allclose([row[c] for c in MEASURES], [expected_row[c] for c in MEASURES])
        clear = (
            expected_row["expressed"] >= RULE.least_expressed and expected_row["confidence"] >= RULE.least_confidence
        )
        top = COMPOUND[int(np.argmax([expected_row[c] for c in COMPOUND_COLUMNS]))]
        assert (row["clear"], row["expression"]) == (clear, top if clear else "no clear expression")
    assert set(frame["clear"].tolist()) == {True, False}


def test_every_system_has_a_row_for_every_segment_with_a_value_or_a_reason(corpus, home, tmp_path):
    _, basic = export(home, tmp_path)
    frame = pd.read_parquet(basic)
    assert len(frame) == (len(BRANCHES) + 1) * len(corpus.rows["segments"])
    without_speech = frame.query("system == 'text_minilm' and status != 'ok'")
    assert (
        len(without_speech) == sum(r.get("status") == "no_speech" for r in corpus.rows["probabilities/text_minilm"]) > 0
    )
    assert set(without_speech["reason"]) == {"silence"}
    assert np.isnan(without_speech[[*BASIC_COLUMNS, *MEASURES]].to_numpy(float)).all()
    for row in frame.query("system != 'fused' and status == 'ok'").to_dict("records"):
        p = np.array([row[c] for c in BASIC_COLUMNS])
        expected_row = measures(p, p)
        assert [row[c] for c in MEASURES[:3]] == pytest.approx([expected_row[c] for c in MEASURES[:3]])
        assert np.isnan(row["agreement"]), "the agreement of a single branch is not defined"
    fused = frame[frame["system"] == "fused"].set_index("segment_id")
    for row in corpus.rows["fused"]:
        np.testing.assert_allclose(
            fused.loc[row["segment_id"], list(BASIC_COLUMNS)].to_numpy(float), [row[c] for c in BASIC_COLUMNS]
        )


def test_out_may_name_the_file_of_the_compounds(home, tmp_path):
    files = export(home, tmp_path / "toy.csv", "csv")
    assert [f.name for f in files] == ["toy.csv", "toy_basic.csv"]
    assert all(f.is_file() for f in files)


def test_abaw_files_count_frames_from_one_and_mark_frames_without_a_value(corpus, home, tmp_path):
    compound, basic = export(home, tmp_path, "abaw")
    assert len(list(compound.glob("*.txt"))) == len(list(basic.glob("*.txt"))) == len(corpus.split)
    last = list(corpus.split)[-1]
    frames = [r for r in corpus.rows["frame_predictions"] if r["video_id"] == last]
    lines = (compound / f"{last}.txt").read_text().splitlines()
    assert lines[0].startswith("image_location,Fearfully_Surprised,Happily_Surprised")
    expected = [int(np.argmax([r[c] for c in COMPOUND_COLUMNS])) for r in frames[:-1]]
    assert lines[1:] == [
        *(f"{last}/{i + 1:05d}.jpg,{k}" for i, k in enumerate(expected)),
        f"{last}/{len(frames):05d}.jpg,-1",
    ]
    plain = (basic / f"{last}.txt").read_text().splitlines()
    assert plain[0] == "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    assert plain[1:] == [*(str(int(np.argmax([r[c] for c in BASIC_COLUMNS]))) for r in frames[:-1]), "-1"]


def test_an_export_that_is_not_possible_names_the_reason_and_the_next_step(corpus, tmp_path):
    home = write(tmp_path, corpus)
    with pytest.raises(CerError, match="unknown export format: xml - choose one of: parquet, csv, abaw"):
        export(home, tmp_path / "out", "xml")
    with pytest.raises(CerError, match="no such corpus"):
        export(home, tmp_path / "out", "csv", corpus="unknown")
    Path(tmp_path / "file").write_text("a file")
    with pytest.raises(CerError, match="not a folder"):
        export(home, tmp_path / "file", "csv")
    home.table("compound", NAME, "s000").unlink()
    with pytest.raises(CerError, match=r"compound of toy-s000 has not been made - run `cer run toy`"):
        export(home, tmp_path / "out", "csv")
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_frames_is_refused_for_abaw_and_exported_as_segments(tmp_path):
    """A caption corpus has no video, so no frame, but predictions of its segments."""
    texts_alone = ToyCorpus(videos=4)
    texts_alone.rows["frame_predictions"] = []
    home = write(tmp_path, texts_alone)
    with pytest.raises(CerError) as error:
        export(home, tmp_path / "out", "abaw")
    assert error.value.line() == "the corpus has no frames: toy - use `cer export toy --to parquet`"
    assert not (tmp_path / "out").exists()
    assert len(pd.read_parquet(export(home, tmp_path / "out")[0]))


def test_a_segment_without_a_value_has_null_for_clear_and_expression(tmp_path):
    made = ToyCorpus(videos=4)
    nothing = dict.fromkeys((*COMPOUND_COLUMNS, *MEASURES)) | {
        "status": "not_applicable",
        "reason": "of this kind",
    }
    made.rows["compound"] = [r | nothing if r["method"] == "pfsa" else r for r in made.rows["compound"]]
    path, _ = export(write(tmp_path, made), tmp_path / "out", rule=Clear(0.0, 0.0))
    found = pq.read_table(path).to_pylist()
    pfsa, ppa = ([r for r in found if r["method"] == method] for method in ("pfsa", "ppa"))
    assert {(r["clear"], r["expression"], r["status"]) for r in pfsa} == {(None, None, "not_applicable")}
    assert {r["clear"] for r in ppa} == {True}
    assert {r["expression"] for r in ppa} <= set(COMPOUND)


def test_tables_of_an_earlier_version_are_refused_with_the_command_that_makes_them(tmp_path):
    home = write(tmp_path, ToyCorpus(videos=4))
    for shard in ("s000", "s001"):
        path = home.table("compound", NAME, shard)
        old = pq.read_table(path)
        pq.write_table(old.drop_columns(["expressed"]), path)
    with pytest.raises(CerError) as error:
        export(home, tmp_path / "out", "csv")
    assert error.value.line() == "the tables were made by an earlier version: toy - run `cer run toy`"


def test_video_ids_of_the_longest_length_of_a_file_name_are_exported(tmp_path):
    made = ToyCorpus(videos=3)
    long = ["L" * 251, "deep/" + "\uac00" * 85, "\uac00" * 84 + "ab~"]  # 251, 255 and 255 bytes in the last part
    names = dict(zip(made.split, long, strict=True))
    made.split = {names[video]: split for video, split in made.split.items()}
    for row in made.rows["frame_predictions"]:
        row["video_id"] = names[row["video_id"]]
    folders = export(write(tmp_path / "home", made), tmp_path / "out", "abaw")
    assert (tmp_path / "out/basic" / f"{'L' * 251}.txt").is_file()
    for folder in folders:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) == len(long), "a file for every video"
        assert all(path.suffix == ".txt" for path in files)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"basic", "compound"}


def test_an_export_that_fails_leaves_no_file(home, tmp_path, monkeypatch):
    real, left = abaw._save, [3]

    def save(path, lines):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        real(path, lines)

    monkeypatch.setattr(abaw, "_save", save)
    with pytest.raises(CerError, match="the disk is full"):
        export(home, tmp_path / "out", "abaw")
    assert not (tmp_path / "out").exists()


def cer(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, as pip leaves it, that registers docs/examples/export.py as the format jsonl."""
    site = tmp_path / "site"
    (site / "its_package-1.dist-info").mkdir(parents=True)
    (site / "its_package-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: its-package\nVersion: 1\n")
    points = f"[{GROUP}]\njsonl = its_jsonl:export\nbroken = no_such_module:export\ncsv = its_jsonl:export\n"
    (site / "its_package-1.dist-info" / "entry_points.txt").write_text(points)
    shutil.copyfile(REPOSITORY / "docs" / "examples" / "export.py", site / "its_jsonl.py")
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("its_jsonl", None)


def test_a_format_of_another_package_is_written_by_the_command(corpus, home, plugin, monkeypatch):
    monkeypatch.setenv("CER_HOME", str(home.root))
    done = cer("export", NAME, "--to", "jsonl")
    path = home.root / "exports" / NAME / "jsonl" / f"{NAME}.jsonl"
    assert (done.exit_code, done.stdout) == (0, f"{path}\n")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    expected = {r["segment_id"]: r for r in corpus.rows["compound"] if r["method"] == "ppa"}
    assert len(records) == len(expected)
    for record, (_, row) in zip(records, sorted(expected.items()), strict=True):
        assert record["video_id"] == row["video_id"]
        assert list(record["probabilities"].values()) == pytest.approx([row[c] for c in COMPOUND_COLUMNS])
    assert len((plugin / "its_jsonl.py").read_text().splitlines()) < 60


def test_an_unknown_format_lists_the_formats_of_all_packages(home, plugin, monkeypatch):
    monkeypatch.setenv("CER_HOME", str(home.root))
    refused = cer("export", NAME, "--to", "xml").exception
    assert isinstance(refused, CerError)
    assert refused.line() == "unknown export format: xml - choose one of: parquet, csv, abaw, broken, jsonl"
    broken = cer("export", NAME, "--to", "broken").exception
    assert isinstance(broken, CerError)
    assert broken.line().startswith("the export cannot be loaded (No module named 'no_such_module')")
    assert format_of("csv") == FORMATS["csv"], "a format of this package is not replaced"
