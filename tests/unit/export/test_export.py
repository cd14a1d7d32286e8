"""Exported files hold every segment, with or without a value, and every frame by its number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cer_pipeline.compound.clear import Clear
from cer_pipeline.errors import CerError
from cer_pipeline.export import abaw
from cer_pipeline.export import long_form as tables
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.store.home import Home
from tests.helpers.evaluated_home import BRANCHES, NAME, ToyCorpus, measures, write

RULE = Clear(least_expressed=0.6, least_confidence=0.1)


@pytest.fixture(scope="module")
def corpus() -> ToyCorpus:
    made = ToyCorpus(videos=6)
    frame = made.rows["frame_predictions"][-1]
    frame |= dict.fromkeys((*BASIC_COLUMNS, *COMPOUND_COLUMNS)) | {"status": "no_face"}
    return made


@pytest.fixture(scope="module")
def home(corpus: ToyCorpus, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return write(tmp_path_factory.mktemp("home"), corpus)


@pytest.mark.parametrize("to", tables.FORMATS)
def test_every_segment_has_both_mappings_with_its_times(corpus, home, tmp_path, to):
    compound, _ = tables.export(home, NAME, tmp_path / "new", to, RULE)
    frame = pd.read_parquet(compound) if to == "parquet" else pd.read_csv(compound)
    expected = {(r["segment_id"], r["method"]): r for r in corpus.rows["compound"]}
    assert len(frame) == len(expected) == 2 * len(corpus.rows["segments"])
    times = {r["segment_id"]: (r["start_s"], r["end_s"]) for r in corpus.rows["segments"]}
    for row in frame.to_dict("records"):
        own = expected[row["segment_id"], row["method"]]
        np.testing.assert_allclose([row[c] for c in COMPOUND_COLUMNS], [own[c] for c in COMPOUND_COLUMNS])
        assert (row["start_s"], row["end_s"]) == times[row["segment_id"]]
        assert row["status"] == "ok"
        np.testing.assert_allclose([row[c] for c in tables.MEASURES], [own[c] for c in tables.MEASURES])
        clear = own["expressed"] >= RULE.least_expressed and own["confidence"] >= RULE.least_confidence
        top = COMPOUND[int(np.argmax([own[c] for c in COMPOUND_COLUMNS]))]
        assert (row["clear"], row["expression"]) == (clear, top if clear else "no clear expression")
    assert set(frame["clear"].tolist()) == {True, False}


def test_every_system_answers_for_every_segment_if_only_with_a_reason(corpus, home, tmp_path):
    _, basic = tables.export(home, NAME, tmp_path, "parquet", RULE)
    frame = pd.read_parquet(basic)
    assert len(frame) == (len(BRANCHES) + 1) * len(corpus.rows["segments"])
    silent = frame.query("system == 'text_minilm' and status != 'ok'")
    assert len(silent) == sum(r.get("status") == "no_speech" for r in corpus.rows["probabilities/text_minilm"]) > 0
    assert set(silent["reason"]) == {"silence"}
    assert np.isnan(silent[[*BASIC_COLUMNS, *tables.MEASURES]].to_numpy(float)).all()
    for row in frame.query("system != 'fused' and status == 'ok'").to_dict("records"):
        p = np.array([row[c] for c in BASIC_COLUMNS])
        own = measures(p, p)
        assert [row[c] for c in tables.MEASURES[:3]] == pytest.approx([own[c] for c in tables.MEASURES[:3]])
        assert np.isnan(row["agreement"]), "one branch agrees with nobody"
    fused = frame[frame["system"] == "fused"].set_index("segment_id")
    for row in corpus.rows["fused"]:
        np.testing.assert_allclose(
            fused.loc[row["segment_id"], list(BASIC_COLUMNS)].to_numpy(float), [row[c] for c in BASIC_COLUMNS]
        )


def test_a_file_may_be_named_for_the_compounds(home, tmp_path):
    files = tables.export(home, NAME, tmp_path / "mine.csv", "csv", RULE)
    assert [f.name for f in files] == ["mine.csv", "mine_basic.csv"]
    assert all(f.is_file() for f in files)


def test_the_files_of_the_challenges_number_frames_from_one_and_leave_gaps_as_they_are(corpus, home, tmp_path):
    compound, basic = abaw.export(home, NAME, tmp_path)
    assert len(list(compound.glob("*.txt"))) == len(list(basic.glob("*.txt"))) == len(corpus.split)
    last = list(corpus.split)[-1]
    own = [r for r in corpus.rows["frame_predictions"] if r["video_id"] == last]
    lines = (compound / f"{last}.txt").read_text().splitlines()
    assert lines[0].startswith("image_location,Fearfully_Surprised,Happily_Surprised")
    expected = [int(np.argmax([r[c] for c in COMPOUND_COLUMNS])) for r in own[:-1]]
    assert lines[1:] == [
        *(f"{last}/{i + 1:05d}.jpg,{k}" for i, k in enumerate(expected)),
        f"{last}/{len(own):05d}.jpg,-1",
    ]
    plain = (basic / f"{last}.txt").read_text().splitlines()
    assert plain[0] == "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    assert plain[1:] == [*(str(int(np.argmax([r[c] for c in BASIC_COLUMNS]))) for r in own[:-1]), "-1"]


def test_what_cannot_be_exported_says_why(corpus, tmp_path):
    home = write(tmp_path, corpus)
    with pytest.raises(CerError, match="unknown format: xml - choose one of: parquet, csv"):
        tables.export(home, NAME, tmp_path / "out", "xml", RULE)
    with pytest.raises(CerError, match="no such corpus"):
        tables.export(home, "nobody", tmp_path / "out", "csv", RULE)
    Path(tmp_path / "file").write_text("mine")
    with pytest.raises(CerError, match="not a folder"):
        tables.export(home, NAME, tmp_path / "file", "csv", RULE)
    home.table("compound", NAME, "s000").unlink()
    with pytest.raises(CerError, match=r"compound of toy-s000 has not been made - run `cer run toy`"):
        tables.export(home, NAME, tmp_path / "out", "csv", RULE)
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_frames_has_segments_to_export_and_says_so(tmp_path):
    """A caption corpus has no video, so no frame, but predictions of its segments."""
    texts_alone = ToyCorpus(videos=4)
    texts_alone.rows["frame_predictions"] = []
    home = write(tmp_path, texts_alone)
    with pytest.raises(CerError) as error:
        abaw.export(home, NAME, tmp_path / "out")
    assert error.value.line() == "the corpus has no frames: toy - use `cer export toy --to parquet`"
    assert not (tmp_path / "out").exists()
    assert len(pd.read_parquet(tables.export(home, NAME, tmp_path / "out", "parquet", RULE)[0]))


def test_a_segment_without_a_value_is_neither_clear_nor_unclear(tmp_path):
    made = ToyCorpus(videos=4)
    nothing = dict.fromkeys((*COMPOUND_COLUMNS, *tables.MEASURES)) | {
        "status": "not_applicable",
        "reason": "of this kind",
    }
    made.rows["compound"] = [r | nothing if r["method"] == "pfsa" else r for r in made.rows["compound"]]
    path, _ = tables.export(write(tmp_path, made), NAME, tmp_path / "out", "parquet", Clear(0.0, 0.0))
    found = pq.read_table(path).to_pylist()
    pfsa, ppa = ([r for r in found if r["method"] == method] for method in ("pfsa", "ppa"))
    assert {(r["clear"], r["expression"], r["status"]) for r in pfsa} == {(None, None, "not_applicable")}
    assert {r["clear"] for r in ppa} == {True}
    assert {r["expression"] for r in ppa} <= set(COMPOUND)


def test_tables_of_an_earlier_version_are_to_be_made_again(tmp_path):
    home = write(tmp_path, ToyCorpus(videos=4))
    for shard in ("s000", "s001"):
        path = home.table("compound", NAME, shard)
        old = pq.read_table(path)
        pq.write_table(old.drop_columns(["expressed"]), path)
    with pytest.raises(CerError) as error:
        tables.export(home, NAME, tmp_path / "out", "csv", RULE)
    assert error.value.line() == "the tables were made by an earlier version: toy - run `cer run toy`"


def test_ids_as_long_as_a_name_can_be_are_exported(tmp_path):
    made = ToyCorpus(videos=3)
    long = ["L" * 251, "deep/" + "\uac00" * 85, "\uac00" * 84 + "ab~"]  # 251, 255 and 255 bytes in the last part
    names = dict(zip(made.split, long, strict=True))
    made.split = {names[video]: split for video, split in made.split.items()}
    for row in made.rows["frame_predictions"]:
        row["video_id"] = names[row["video_id"]]
    folders = abaw.export(write(tmp_path / "home", made), NAME, tmp_path / "out")
    assert (tmp_path / "out/basic" / f"{'L' * 251}.txt").is_file()
    for folder in folders:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) == len(long), "a file for every video"
        assert all(path.suffix == ".txt" for path in files)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"basic", "compound"}


def test_an_export_of_text_files_is_all_or_nothing(home, tmp_path, monkeypatch):
    real, left = abaw._save, [3]

    def save(path, lines):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        real(path, lines)

    monkeypatch.setattr(abaw, "_save", save)
    with pytest.raises(CerError, match="the disk is full"):
        abaw.export(home, NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()
