"""Corpora in the graph, with real materialisations: from a registration to captions, labels and the blocking check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.checks import NO_LEAK, ROWS_CONSERVED, no_leak, table_checks
from assets.keys import asset_key
from assets.partitions import CORPUS_SHARD
from assets.stages import stage_asset
from cer_pipeline.corpora import registry
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageSpec
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS
from resources.progress import LogProgress
from resources.settings import Settings
from resources.tables import Tables
from tests.helpers import corpus_files as files
from tests.helpers.clips import make_clip

pytestmark = pytest.mark.slow  # whole graphs or trainings

TABLES = ("videos", "segments", "frames", "labels", "frame_labels")
SPECS = {spec.name: spec for spec in stages(load_profile())}


@dg.asset(deps=[asset_key("labels")])
def learned() -> None:
    """Stands for whatever learns from labels."""


class Graph:
    """A home with corpora, and the ingest part of the graph over it."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance

    def add(self, name: str, root: Path, layout: str, **options: object) -> registry.Changes:
        changes = registry.register(self.home, name, root, layout, {k: str(v) for k, v in options.items()})
        self.instance.add_dynamic_partitions(CORPUS_SHARD, [f"{name}-s000"])
        return changes

    def run(self, name: str, tables: tuple[str, ...] = TABLES) -> dg.ExecuteInProcessResult:
        settings = Settings(home=str(self.home))
        resources = {"settings": settings, "tables": Tables(settings=settings), "progress": LogProgress()}
        specs = [SPECS[table] for table in tables]
        assets = [stage_asset(spec, SPECS, lambda _, name: SPECS[name]) for spec in specs]
        return dg.materialize(
            [*assets, *table_checks(specs), *([no_leak()] if "labels" in tables else []), learned],
            partition_key=f"{name}-s000",
            instance=self.instance,
            resources=resources,
            raise_on_error=False,
        )

    def rows(self, name: str, table: str) -> list[dict[str, Any]]:
        path = self.home / "tables" / table / f"corpus={name}" / "shard=s000" / "data.parquet"
        found: pa.Table = pq.ParquetFile(path).read()
        return found.to_pylist()

    def edit(self, name: str, video: str, **changes: object) -> None:
        """Change what a registration says of a video, as nobody should."""
        path = self.home / "corpora" / f"{name}.json"
        data = json.loads(path.read_text())
        (file,) = [f for f in data["files"] if f["video_id"] == video]
        file.update(changes)
        path.write_text(json.dumps(data))


@pytest.fixture
def graph(tmp_home: Path) -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(tmp_home, instance)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A graph for corpora that tests only look at."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(tmp_path_factory.mktemp("settled") / "home", instance)


Made = tuple[Graph, dg.ExecuteInProcessResult]


def computed(result: dg.ExecuteInProcessResult, table: str) -> int:
    (event,) = result.asset_materializations_for_node(table)
    return int(str(event.metadata["units_computed"].value))


def ran(result: dg.ExecuteInProcessResult, asset: str) -> bool:
    return bool(result.asset_materializations_for_node(asset))


def leaks(result: dg.ExecuteInProcessResult) -> list[str]:
    """What the check says; it fails if and only if it says something."""
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == NO_LEAK]
    lines: Any = check.metadata["leaks"].value
    assert check.passed is (not lines)
    assert check.severity is dg.AssetCheckSeverity.ERROR
    return lines


def label(row: dict[str, Any]) -> dict[str, float]:
    names = zip((*BASIC, *COMPOUND), (*LABEL_COLUMNS, *COMPOUND_LABEL_COLUMNS), strict=True)
    return {name: row[column] for name, column in names if row[column]}


# --- captions ----------------------------------------------------------------------------------------------------

MADE_OF_TEXT = ("videos", "segments", "frames", "faces", "audio", "speech", "captions", "labels", "frame_labels")


def quiet(monkeypatch: pytest.MonkeyPatch, *tables: str) -> None:
    """Stages that need weights, done without: there is no picture and no sound that they could look at."""
    real = StageSpec.load

    def load(spec: StageSpec) -> Any:
        if spec.name not in tables:
            return real(spec)

        class Blank:
            def __init__(self, context: Any) -> None: ...

            def __call__(self, units: pa.Table) -> pa.Table:
                raise RuntimeError("not looked at")

        return Blank

    monkeypatch.setattr(StageSpec, "load", load)


@pytest.fixture(scope="module")
def texts(settled: Graph, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """AFEW's captions; the second view lacks the last dev clip."""
    root = files.afew_captions(tmp_path_factory.mktemp("texts"))
    path = root / "m_prompt2_dev.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n", "utf-8")
    settled.add("texts", root, "captions")
    with pytest.MonkeyPatch.context() as monkeypatch:
        quiet(monkeypatch, "faces", "speech")
        return settled, settled.run("texts", MADE_OF_TEXT)


def test_a_caption_corpus_becomes_videos_and_windows(texts: Made) -> None:
    graph, result = texts
    assert ran(result, "learned")
    assert leaks(result) == []
    assert {r["status"] for r in graph.rows("texts", "videos")} == {"no_video"}
    windows = [(r["segment_id"], r["start_s"], r["end_s"], r["is_tail"]) for r in graph.rows("texts", "segments")]
    assert windows[:2] == [("000000000/0000", 0.0, 4.0, False), ("000000000/0001", 2.0, 6.0, True)]
    assert len(windows) == 15


def test_every_window_has_a_text_of_every_view_or_a_row_that_says_there_is_none(texts: Made) -> None:
    rows = texts[0].rows("texts", "captions")
    assert len(rows) == 2 * 15
    views = {("m_prompt1", "prompt1", "m"), ("m_prompt2", "prompt2", "m")}
    assert {(r["view"], r["prompt"], r["model"]) for r in rows} == views
    absent = [(r["view"], r["status"], r["text"]) for r in rows if r["status"] != "ok"]
    assert absent == [("m_prompt2", "no_caption", None)]


def test_captions_carry_labels_and_splits(texts: Made) -> None:
    rows = {r["segment_id"]: r for r in texts[0].rows("texts", "labels")}
    assert label(rows["000000000/0001"]) == {"Anger": 1.0}
    assert (rows["000003777/0000"]["split"], label(rows["000003777/0000"])) == ("dev", {"Happiness": 1.0})
    assert {r["status"] for r in texts[0].rows("texts", "frame_labels")} == {"no_label"}


def test_no_text_that_reaches_a_model_spells_the_label_of_its_name(texts: Made) -> None:
    rows = texts[0].rows("texts", "captions")
    read = [{k: v for k, v in r.items() if k not in ("row_key", "content")} for r in rows]
    assert not [word for word in files.AFEW_CLASSES if word.lower() in repr(read).lower()]


def test_one_changed_row_computes_one_video(graph: Graph, tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts")
    graph.add("texts", root, "captions")
    graph.run("texts", ("videos", "segments", "labels", "frames"))
    path = root / "m_prompt1_train.csv"
    path.write_text(path.read_text().replace("number 3 of", "number three of"), "utf-8")
    graph.add("texts", root, "captions")
    again = graph.run("texts", ("videos", "segments", "labels", "frames"))
    assert computed(again, "videos") == 1
    assert computed(again, "labels") == 0, "a text is no label"


def test_a_clip_in_two_splits_is_out_of_training_and_the_check_is_content(graph: Graph, tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts", dev={"000002000___Fear_0000.avi": "Fear"})
    graph.add("texts", root, "captions")
    result = graph.run("texts")
    rows = {r["video_id"]: r for r in graph.rows("texts", "labels")}
    out = rows["000002000@train"]
    assert (out["split"], out["status"], label(out)) == (None, "no_label", {})
    assert out["reason"] == "left out of train: the source clip also stands in dev"
    assert rows["000002000@dev"]["status"] == "ok"
    assert leaks(result) == []
    assert ran(result, "learned")


# --- leaks -------------------------------------------------------------------------------------------------------


def test_a_shared_source_clip_that_is_kept_blocks_what_would_learn_from_it(graph: Graph, tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts", dev={"000002000___Fear_0000.avi": "Fear"})
    graph.add("texts", root, "captions", leaks="keep")
    result = graph.run("texts")
    assert leaks(result) == ["000002000@train (train): the source clip also stands in dev (000002000@dev)"]
    assert not ran(result, "learned")
    assert not result.success


def test_a_copied_test_row_in_training_blocks(graph: Graph, tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts")
    path = root / "m_prompt1_train.csv"
    copied = (root / "m_prompt1_dev.csv").read_text().splitlines()[4].replace("000003777___", "000033333___", 1)
    path.write_text(path.read_text() + copied + "\n", "utf-8")
    graph.add("texts", root, "captions", leaks="keep")
    result = graph.run("texts")
    assert leaks(result) == ["000033333 (train): an exact copy of it stands in dev (000003777)"]
    assert not ran(result, "learned")
    graph.add("texts", root, "captions", leaks="exclude")
    assert ran(graph.run("texts"), "learned"), "left out of training, it blocks nothing"


def test_a_held_out_video_that_a_table_gives_to_training_blocks(graph: Graph, tmp_path: Path) -> None:
    graph.add("texts", files.afew_captions(tmp_path / "texts"), "captions")
    graph.edit("texts", "000003777", split="train")
    graph.run("texts")
    graph.edit("texts", "000003777", split="dev")
    from cer_pipeline.corpora.leak_check import leaks_of
    from cer_pipeline.corpora.shards import ShardInputs
    from cer_pipeline.store.home import Home

    lines = leaks_of(ShardInputs(Home(graph.home), "texts", "s000"))
    assert lines == ["000003777 (train): a row of the split dev is in training"]


def test_a_label_in_a_video_id_blocks(graph: Graph, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    make_clip(files.put(folder / "Angry" / "1.mkv"), [0.0, 0.2, 0.4])
    graph.add("clips", folder, "folder", split="train")
    make_clip(files.put(folder / "plain" / "2.mkv"), [0.0, 0.2, 0.4])
    spans = files.spans(tmp_path / "s.csv", [["plain/2", 0, 0.5, *files.marks("Sadly Angry")]])
    graph.add("clips", folder, "folder", split="train", labels=spans)
    assert leaks(graph.run("clips")) == [], "without a label there is nothing to leak"
    # Registering refuses a labelled video of that name; here the registration is changed behind its back.
    data = json.loads((graph.home / "corpora/clips.json").read_text())
    notes = graph.home / "corpora" / data["annotations"]
    table = pq.ParquetFile(notes).read()
    renamed = table.set_column(1, table.schema.field("video_id"), pa.array(["Angry/1"]))
    pq.write_table(renamed, notes)
    graph.edit("clips", "Angry/1", labels="planted")
    result = graph.run("clips")
    assert leaks(result) == ["Angry/1: its id contains 'Angry'"]
    assert not ran(result, "learned")


def test_a_file_that_another_corpus_holds_out_blocks(graph: Graph, tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts")
    graph.add("texts", root, "captions")
    assert ran(graph.run("texts"), "learned")
    copied = tmp_path / "held"
    copied.mkdir()
    lines = (root / "m_prompt1_train.csv").read_text().splitlines()
    (copied / "m_prompt1_test.csv").write_text(
        "\n".join([lines[0], lines[3].replace("000002000___", "88___", 1)]), "utf-8"
    )
    graph.add("held", copied, "captions")
    result = graph.run("texts")
    assert leaks(result) == ["000002000 (train): an exact copy of it stands in test of held (88)"]
    assert not ran(result, "learned")
    assert leaks(graph.run("held")) == [], "what is held out may stay where it is"


# --- videos with annotations -------------------------------------------------------------------------------------


def affwild2(root: Path) -> Path:
    """Two videos of 10 frames a second, the second with uneven steps; 6 s are two windows."""
    even = [i / 10 for i in range(60)]
    uneven = [i / 20 for i in range(40)] + [2 + i / 5 for i in range(20)]
    for name, times in (("1-30-1280x720", even), ("video2", uneven)):
        make_clip(files.put(root / "videos" / f"{name}.mkv"), times)
    first = [0] * 20 + [3] * 10 + [-1] * 30
    files.annotation(root / "Train_Set/1-30-1280x720.txt", first)
    files.annotation(root / "Validation_Set/video2.txt", [4] * 40 + [5] * 20)
    files.annotation(root / "Validation_Set/video2_left.txt", [-1] * 60)
    return root


@pytest.fixture(scope="module")
def aff(settled: Graph, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The videos of `affwild2`, made."""
    settled.add("aff", affwild2(tmp_path_factory.mktemp("affwild2")), "affwild2")
    return settled, settled.run("aff")


def test_affwild2_labels_are_means_over_the_valid_frames_by_their_own_times(aff: Made) -> None:
    graph, result = aff
    assert ran(result, "learned")
    rows = {r["segment_id"]: r for r in graph.rows("aff", "labels")}
    first = rows["1-30-1280x720/0000"]
    assert label(first) == {"Neutral": pytest.approx(2 / 3), "Fear": pytest.approx(1 / 3)}
    assert (first["annotated"], first["split"]) == (pytest.approx(30 / 40), "train")
    second = rows["1-30-1280x720/0001"]
    assert (label(second), second["annotated"]) == ({"Fear": 1.0}, pytest.approx(10 / 40))
    assert label(rows["video2/0000"]) == {"Happiness": pytest.approx(0.8), "Sadness": pytest.approx(0.2)}
    assert label(rows["video2/0001"]) == {"Sadness": 1.0}
    nobody = rows["video2_left/0001"]
    assert (nobody["status"], nobody["annotated"], label(nobody)) == ("no_label", 0.0, {})
    assert nobody["reason"] == "nothing in this window is annotated"


def test_affwild2_frames_keep_their_classes_and_the_sentinel_has_none(aff: Made) -> None:
    graph, result = aff
    assert all(e.passed for e in result.get_asset_check_evaluations() if e.check_name == ROWS_CONSERVED)
    rows = [r for r in graph.rows("aff", "frame_labels") if r["video_id"] == "1-30-1280x720"]
    assert [r["frame"] for r in rows] == list(range(60))
    assert [r["basic"] for r in rows] == ["Neutral"] * 20 + ["Fear"] * 10 + [None] * 30
    assert [r["status"] for r in rows] == ["ok"] * 30 + ["no_label"] * 30
    (nobody,) = [r for r in graph.rows("aff", "frame_labels") if r["video_id"] == "video2_left"]
    assert (nobody["frame"], nobody["status"]) == (-1, "no_label")


@pytest.mark.slow
def test_a_changed_annotation_computes_the_labels_of_one_video_and_decodes_nothing(
    graph: Graph, tmp_path: Path
) -> None:
    root = affwild2(tmp_path / "affwild2")
    graph.add("aff", root, "affwild2")
    graph.run("aff")
    files.annotation(root / "Train_Set/1-30-1280x720.txt", [1] * 60)
    graph.add("aff", root, "affwild2")
    again = graph.run("aff")
    assert (computed(again, "labels"), computed(again, "frame_labels"), computed(again, "frames")) == (1, 1, 0)
    assert label(graph.rows("aff", "labels")[0]) == {"Anger": 1.0}


def test_stretches_of_compounds_become_labels_of_windows_and_frames(graph: Graph, tmp_path: Path) -> None:
    root = tmp_path / "cexpr"
    make_clip(files.put(root / "01.mkv"), [i / 10 for i in range(60)])
    rows = [["01", 0, 3, *files.marks("Sadly Angry")], ["01", 3, 4.5, *files.marks("Sadly Fearful", "Sadly Angry")]]
    graph.add("cexpr", root, "cexpr", labels=files.spans(tmp_path / "labels.csv", rows))
    graph.run("cexpr")
    first, second = graph.rows("cexpr", "labels")
    assert label(first) == {"Sadly Angry": pytest.approx(3.5 / 4), "Sadly Fearful": pytest.approx(0.5 / 4)}
    assert label(second) == {"Sadly Angry": pytest.approx(1.75 / 2.5), "Sadly Fearful": pytest.approx(0.75 / 2.5)}
    assert (first["split"], first["annotated"], second["annotated"]) == ("test", 1.0, pytest.approx(25 / 40))
    assert first["y_neutral"] is None
    frames = graph.rows("cexpr", "frame_labels")
    named = ["Sadly Angry"] * 30 + ["Sadly Fearful"] * 15 + [None] * 15
    assert [r["compound"] for r in frames] == named, "of equal shares the first"


def test_a_folder_with_imported_texts_has_them_beside_the_describers(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet(monkeypatch, "faces", "speech")
    root = tmp_path / "clips"
    make_clip(files.put(root / "000149120.mkv"), [i / 10 for i in range(60)])
    make_clip(files.put(root / "other.mkv"), [0.0, 0.5, 1.0])
    clips = {"000149120___Angry_0000.avi": "Anger", "000149120___Angry_0002.avi": "Anger"}
    graph.add("clips", root, "folder", captions=files.captions(tmp_path / "texts", "dev", clips))
    result = graph.run("clips", MADE_OF_TEXT)
    found = {(r["segment_id"], r["view"]): r for r in graph.rows("clips", "captions")}
    assert sorted(found) == [
        ("000149120/0000", "describer"),
        ("000149120/0000", "m_prompt1"),
        ("000149120/0001", "describer"),
        ("000149120/0001", "m_prompt1"),
        ("other/0000", "describer"),
    ]
    assert found["000149120/0000", "m_prompt1"]["text"].startswith("m_prompt1 sees a person")
    assert found["000149120/0001", "m_prompt1"]["status"] == "no_caption"
    (event,) = result.asset_materializations_for_node("captions")
    counters: Any = event.metadata["counters"].value
    assert counters["captions/without_window"] == 1, "a text beyond the video's end is counted"
    labels = {r["segment_id"]: r for r in graph.rows("clips", "labels")}
    assert label(labels["000149120/0000"]) == {"Anger": 1.0}
    assert [labels[s]["status"] for s in ("000149120/0001", "other/0000")] == ["no_label", "no_label"]
    assert labels["other/0000"]["reason"] == "the video has no annotation"


def test_sound_without_pictures_has_the_label_that_its_name_tells(graph: Graph, tmp_path: Path) -> None:
    from cer_pipeline.sound_file import write_sound_file
    from tests.helpers.clips import tone

    root = tmp_path / "ravdess"
    for emotion in ("02", "05"):
        path = root / "Actor_01" / f"03-01-{emotion}-01-02-01-01.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_sound_file(tone(4.5 if emotion == "05" else 3.5), 16000, "wav"))
    graph.add("rav", root, "ravdess")
    result = graph.run("rav")
    assert leaks(result) == []
    assert {r["status"] for r in graph.rows("rav", "videos")} == {"no_video"}
    found = sorted((next(iter(label(r))), r["segment"], r["split"]) for r in graph.rows("rav", "labels"))
    assert found == [("Anger", 0, "train"), ("Anger", 1, "train"), ("Neutral", 0, "train")]


def test_nothing_that_a_model_reads_depends_on_labels() -> None:
    for spec in SPECS.values():
        assert not {"labels", "frame_labels"} & set(spec.inputs), spec.name
    assert {name for name, spec in SPECS.items() if spec.group == "ingest"} >= {"labels", "frame_labels"}


# --- annotations that do not fit ---------------------------------------------------------------------------------


def test_annotations_of_other_frames_label_nothing_and_a_surplus_has_no_rows(graph: Graph, tmp_path: Path) -> None:
    root = tmp_path / "affwild2"
    for name in ("long", "near", "even"):
        make_clip(files.put(root / "videos" / f"{name}.mkv"), [i / 10 for i in range(60)])
    for name, count in (("long", 60), ("near", 62), ("even", 60)):
        files.annotation(root / "Train_Set" / f"{name}.txt", [4] * count)
    assert [
        line for line in graph.add("w", root, "affwild2").messages if line.startswith("near: 62 annotated frames, 60")
    ]
    # An older version compared nothing when a corpus was registered: its notes are of other frames still.
    data = json.loads((graph.home / "corpora/w.json").read_text())
    notes = graph.home / "corpora" / data["annotations"]
    table = pq.ParquetFile(notes).read()
    rows = table.to_pylist()
    (long,) = [row for row in rows if row["video_id"] == "long"]
    long["labels"] = json.dumps(json.loads(long["labels"]) | {"frames": [4] * 120})
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), notes)
    graph.run("w")
    by_video: dict[str, set[tuple[str, str | None]]] = {}
    for row in graph.rows("w", "labels"):
        by_video.setdefault(row["video_id"], set()).add((row["status"], row["reason"]))
    why = "the annotation does not fit the video: 120 annotated frames, 60 frames in the file"
    assert by_video == {"long": {("no_label", why)}, "near": {("ok", None)}, "even": {("ok", None)}}
    counts: dict[str, int] = {}
    for row in graph.rows("w", "frame_labels"):
        counts[row["video_id"]] = counts.get(row["video_id"], 0) + 1
    assert counts == {"long": 1, "near": 60, "even": 60}, "one row says it for all of `long`"
