"""The columns that stages declare to read, against those that they read in a run over a real clip."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.lineage.columns import KEYS, column_sources
from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.home import Home
from cer_pipeline.store.materialise import materialise
from cer_pipeline.tables import VIDEOS, TableSpec
from cer_pipeline.zoo import Zoo
from tests.helpers import corpus_files as files

Columns = dict[str, set[str]]
"""Columns by table."""

WHOLE_ROWS = {"speech", "features/audio_uncertainty", "features/audio_bilstm"}
"""Tables whose stages read all columns of a row and use some: `reads` names those that are used."""


@pytest.fixture(scope="module")
def specs() -> dict[str, StageSpec]:
    return {spec.name: spec for spec in stages(load_profile())}


def spec_of(reads: dict[str, Sequence[str]], key: tuple[str, ...], columns: TableSpec = VIDEOS) -> StageSpec:
    table = TableSpec("made", "row", "video_id", key, columns.columns)
    return StageSpec(table, "", "", tuple(reads), lambda *_: pytest.fail("not planned"), "", "1", reads=reads)


def test_a_key_comes_from_the_first_table_in_which_it_is_read(specs: dict[str, StageSpec]) -> None:
    reads = {"segments": ("end_s",), "frames": ("video_id", "jpeg"), "faces": ("video_id",)}
    sources = column_sources(spec_of(reads, ("video_id",)), specs)
    assert sources["video_id"] == [("frames", "video_id")]
    assert sources["sha256"] == [("segments", "end_s"), ("frames", "jpeg")], "a value: all that is read but the keys"


def test_a_stage_that_reads_no_table_has_no_sources(specs: dict[str, StageSpec]) -> None:
    assert column_sources(specs["videos"], specs) == {}


def test_the_columns_that_a_stage_declares_are_those_of_its_inputs(specs: dict[str, StageSpec]) -> None:
    for spec in specs.values():
        assert spec.reads.keys() <= set(spec.inputs), spec.name
        for table, columns in spec.reads.items():
            assert len(set(columns)) == len(columns), f"{spec.name} names a column of {table} twice"
            assert set(columns) <= set(specs[table].table.schema.names), f"{spec.name} reads of {table}"


@pytest.fixture(scope="module")
def observed(
    specs: dict[str, StageSpec], tmp_path_factory: pytest.TempPathFactory, media: Path, weights: Zoo
) -> dict[str, Columns]:
    """The columns that the stages whose models are present read for a clip with a face, speech and an annotation."""
    root = tmp_path_factory.mktemp("read")
    (root / "clips").mkdir()
    shutil.copyfile(media / "obama_speech.mp4", root / "clips" / "clip.mp4")
    spans = files.spans(root / "spans.csv", [["clip", 0, 2, *files.marks("Sadly Angry")]])
    registry.register(root / "home", "clips", root / "clips", options={"labels": str(spans)})
    home, profile = Home(root / "home"), load_profile()
    found: dict[str, Columns] = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for spec in specs.values():
            columns: Columns = defaultdict(set)
            for name in ("table", "batches"):
                monkeypatch.setattr(ShardInputs, name, recording(getattr(ShardInputs, name), columns, specs))
            report = materialise(spec, home, ShardInputs(home, "clips", "s000"), profile, weights, run_chunks, "run")
            monkeypatch.undo()
            assert Status.FAILED not in report.footer.by_status, spec.name
            if Status.MODEL_UNAVAILABLE not in report.footer.by_status:
                found[spec.name] = columns
    return found


def recording(read: Callable[..., Any], columns: Columns, specs: dict[str, StageSpec]) -> Callable[..., Any]:
    def call(inputs: ShardInputs, name: str, *arguments: Any) -> Any:
        listed = next((a for a in arguments if isinstance(a, list | tuple)), specs[name].table.schema.names)
        columns[name] |= set(listed)
        return read(inputs, name, *arguments)

    return call


@pytest.mark.slow
def test_every_stage_reads_the_columns_that_it_declares_and_no_others(
    specs: dict[str, StageSpec], observed: dict[str, Columns]
) -> None:
    assert len(observed) > 20
    for name, columns in observed.items():
        declared = {(table, column) for table, names in specs[name].reads.items() for column in names}
        read = {(table, column) for table, names in columns.items() for column in names}
        if name not in WHOLE_ROWS:
            assert read <= declared, f"{name} reads undeclared columns"
        unread = {(table, column) for table, column in declared - read if column not in KEYS}
        assert not unread, f"{name} declares columns that it does not read"
