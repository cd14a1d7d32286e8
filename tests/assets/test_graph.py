"""The Dagster graph: its assets and metadata, and the records of real materialisations."""

from __future__ import annotations

import ast
import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.checks import NO_FAILURES, ROWS_CONSERVED, table_checks
from assets.keys import asset_key
from assets.metadata import column_lineage
from assets.partitions import CORPUS, CORPUS_SHARD
from assets.sensors import corpus_changes_sensor
from assets.stages import stage_asset
from assets.step_errors import RETRIES
from cer_pipeline.corpora import registry
from cer_pipeline.definitions import build_definitions
from cer_pipeline.errors import CerError
from cer_pipeline.pipeline import in_order, stages
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import Inputs, StageContext, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import Column, TableSpec
from resources.progress import LogProgress
from resources.settings import Settings
from resources.tables import Tables
from tests.helpers.graph_text import FILE, graph_text

GROUPS = {"ingest", "perception", "features", "probabilities", "fusion", "predictions"}
KEY = "toy-s000"
CHECKS = dg.AssetSelection.checks_for_assets(asset_key("shouted"))


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    """The definitions of the embedded profile."""
    return build_definitions(Settings(home=str(tmp_path_factory.mktemp("home"))))


@pytest.fixture(scope="module")
def specs() -> dict[str, StageSpec]:
    return {spec.name: spec for spec in stages(load_profile())}


def test_every_stage_is_an_asset_with_description_owner_kinds_and_columns(
    definitions: dg.Definitions, specs: dict[str, StageSpec]
) -> None:
    graph = definitions.resolve_asset_graph()
    for spec in specs.values():
        node = graph.get(asset_key(spec.name))
        assert node.description == spec.description
        assert list(node.owners) == ["team:cer"]
        assert node.code_version == spec.code_version
        assert node.kinds >= {"parquet"}
        schema = node.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert [c.name for c in schema.columns] == spec.table.stored_schema.names
        assert all(c.description for c in schema.columns), f"{spec.name} has a column without a meaning"
        assert column_lineage(spec, specs).items() <= node.metadata.items()
        columns_read: Any = node.metadata["columns_read"]
        assert [record.data["table"] for record in columns_read.records] == list(spec.reads)
    assert {graph.get(asset_key(name)).group_name for name in specs} == GROUPS


def test_the_graph_is_the_one_of_the_file(definitions: dg.Definitions) -> None:
    """A change that is meant is written by `.venv/bin/python -m tests.helpers.graph_text`."""
    assert graph_text(definitions) == FILE.read_text("utf-8")


def test_every_metadata_key_of_the_graph_is_free_of_spaces(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    keys = {key for asset in graph.get_all_asset_keys() for key in graph.get(asset).metadata}
    assert keys >= {"dagster/table_name", "settings_read", "corpus_formats"}
    assert not [key for key in keys if " " in key]


def test_every_asset_links_to_the_source_of_its_computation(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        value: Any = graph.get(key).metadata["dagster/code_references"]
        (reference,) = value.code_references
        module, _, name = reference.label.partition(":")
        source = Path(reference.file_path)
        assert source.with_suffix("").parts[-module.count(".") - 1 :] == tuple(module.split("."))
        lines = {node.name: node.lineno for node in ast.parse(source.read_text("utf-8")).body
                 if isinstance(node, ast.ClassDef | ast.FunctionDef)}  # fmt: skip
        assert reference.line_number == lines[name], key


def test_every_column_comes_from_columns_that_exist(specs: dict[str, StageSpec]) -> None:
    for spec in specs.values():
        lineage: Any = column_lineage(spec, specs).get("dagster/column_lineage")
        assert (lineage is None) == (spec.name == "videos"), f"{spec.name}: only `videos` is made from files alone"
        for column, sources in (lineage.deps_by_column if lineage else {}).items():
            assert column in spec.table.schema.names
            for source in sources:
                table = "/".join(source.asset_key.path)
                assert table in spec.inputs, f"{spec.name}.{column} comes from {table}, which is no input"
                assert source.column_name in specs[table].table.schema.names, f"{table}.{source.column_name}"


def test_a_key_is_copied_and_a_value_comes_from_all_that_is_read(specs: dict[str, StageSpec]) -> None:
    value: Any = column_lineage(specs["fused"], specs)["dagster/column_lineage"]
    sources = {
        column: {(source.asset_key.to_user_string(), source.column_name) for source in found}
        for column, found in value.deps_by_column.items()
    }
    assert sources["segment_id"] == {("segments", "segment_id")}
    assert ("probabilities/text_minilm", "p_fear") in sources["p_fear"]
    assert {column for _, column in sources["p_fear"]}.isdisjoint({"segment_id", "video_id", "row_key", "content"})
    assert "row_key" not in sources


def test_definitions_load_for_dagster(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)
    assert len(definitions.get_repository_def().get_all_jobs()) >= 3, "validation has resolved the jobs"


def test_the_launchpad_offers_settings_and_no_folder_for_pickled_values(definitions: dg.Definitions) -> None:
    schema: Any = definitions.resolve_job_def("process_shard").run_config_schema.config_type
    resources = schema.fields["resources"].config_type.fields
    fields = {name: getattr(resource.config_type.fields["config"].config_type, "fields", {})
              for name, resource in resources.items()}  # fmt: skip
    assert set(fields["settings"]) == {"profile", "sections", "overrides", "home"}
    assert fields["io_manager"] == {}


def test_a_stage_that_reads_an_unknown_table_or_itself_is_refused() -> None:
    a, b = toy("a", inputs=("b",)), toy("b", inputs=("a",))
    with pytest.raises(ValueError, match="form a cycle"):
        in_order([a, b])
    with pytest.raises(ValueError, match="reads nowhere, which no stage makes"):
        in_order([toy("c", inputs=("nowhere",))])
    with pytest.raises(ValueError, match="two stages make the table a"):
        in_order([toy("a"), toy("a")])


# --- a small graph of two stages ---------------------------------------------------------------------------------


def toy_table(name: str) -> TableSpec:
    columns = (
        Column("video_id", pa.string(), "video", nullable=False),
        Column("text", pa.string(), "text"),
        Column("status", pa.string(), "status", nullable=False),
        Column("reason", pa.string(), "reason"),
    )
    return TableSpec(name=name, row="video", unit="video_id", key=("video_id",), columns=columns)


def toy(name: str, inputs: tuple[str, ...] = (), plan: Any = None) -> StageSpec:
    return StageSpec(
        table=toy_table(name),
        description=name,
        group="toy",
        inputs=inputs,
        plan=plan,
        stage="cer_pipeline.media.stages:Videos",  # for the code reference; the class comes from `ToyGraph.stage`
        code_version="1",
    )


@dataclass
class ToyGraph:
    """The stages `videos` and `shouted` over texts in memory, in a home folder and an instance of their own.

    Args:
        instance: Dagster's.
        home: the home folder.
        texts: video_id -> text.
        broken: videos on which the stage raises.
        forgotten: videos that the plan of `shouted` leaves out.
        errors: raised by the plan of `videos`, one a call.
    """

    instance: dg.DagsterInstance
    home: Path
    texts: dict[str, str] = field(default_factory=lambda: {"a": "one", "b": "two"})
    broken: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    errors: list[Exception] = field(default_factory=list)

    def run(self, selection: dg.AssetSelection | None = None) -> dg.ExecuteInProcessResult:
        specs = {
            "videos": toy("videos", plan=self._plan_videos),
            "shouted": toy("shouted", ("videos",), self._plan_shouted),
        }
        assets = [stage_asset(spec, specs, lambda _, name: specs[name]) for spec in specs.values()]
        settings = Settings(home=str(self.home))
        resources = {"settings": settings, "tables": Tables(settings=settings), "progress": LogProgress()}
        return dg.materialize(
            [*assets, *table_checks(list(specs.values()))],
            selection=selection,
            tags={"dagster/partition": KEY},  # as the UI does; `partition_key` takes no selection of checks alone
            instance=self.instance,
            resources=resources,
            raise_on_error=False,
        )

    def stage(self) -> type:
        """The class of both stages: it writes the text of a video in capitals."""
        graph = self

        class Upper:
            def __init__(self, context: StageContext) -> None:
                self.counters = context.counters

            def __call__(self, units: pa.Table) -> pa.Table:
                videos = units.column("unit").to_pylist()
                if graph.broken & set(videos):
                    raise RuntimeError("broken")
                self.counters["calls/upper"] += len(videos)
                rows = [{"video_id": v, "text": graph.texts[v].upper(), "status": "ok", "reason": None} for v in videos]
                return pa.Table.from_pylist(rows, schema=toy_table("x").schema)

        return Upper

    def _plan_videos(self, inputs: Inputs, profile: Profile) -> pa.Table:
        if self.errors:
            raise self.errors.pop()
        videos = sorted(self.texts)
        return pa.table({"unit": videos, "video_id": videos, "inputs": [digest(self.texts[v]) for v in videos]})

    def _plan_shouted(self, inputs: Inputs, profile: Profile) -> pa.Table:
        known = {v: d for v, d in inputs.digests("videos").items() if v not in self.forgotten}
        return pa.table({"unit": list(known), "video_id": list(known), "inputs": list(known.values())})


@pytest.fixture
def graph(tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyGraph]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CORPUS_SHARD, [KEY])
        made = ToyGraph(instance, tmp_home)
        monkeypatch.setattr(StageSpec, "load", lambda spec: made.stage())
        yield made


def recorded(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node(name)
    return event


def data_version(result: dg.ExecuteInProcessResult, name: str) -> str:
    return (recorded(result, name).tags or {})["dagster/data_version"]


def failures(result: dg.ExecuteInProcessResult) -> list[Any]:
    return [event for event in result.all_events if event.is_step_failure]


def test_a_materialisation_records_rows_units_counters_plot_and_file(graph: ToyGraph) -> None:
    result = graph.run()
    assert result.success
    metadata = recorded(result, "shouted").metadata
    assert not [key for key in metadata if " " in key]
    assert metadata["dagster/row_count"].value == 2
    by_status: Any = metadata["rows_by_status"]
    assert [record.data for record in by_status.records] == [{"status": "ok", "rows": 2}]
    assert [(column.name, column.type) for column in by_status.schema.columns] == [
        ("status", "string"),
        ("rows", "int"),
    ]
    assert (metadata["units_computed"].value, metadata["units_cached"].value) == (2, 0)
    assert metadata["counters"].value == {"calls/upper": 2}
    assert str(metadata["plot"].value).startswith("![shouted](data:image/png;base64,iVBOR")
    path = Path(str(metadata["file"].value))
    assert path == graph.home / "tables/shouted/corpus=toy/shard=s000/data.parquet"
    assert path.is_file()
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations() if e.asset_key.path == ["shouted"]}
    assert checks == {ROWS_CONSERVED: True, NO_FAILURES: True}
    assert not [e for e in result.all_events if e.event_type_value == "HANDLED_OUTPUT"], "a value was pickled"


def test_an_unchanged_result_has_the_same_data_version_and_computes_nothing(graph: ToyGraph) -> None:
    first, second = graph.run(), graph.run()
    assert data_version(first, "shouted") == data_version(second, "shouted")
    assert recorded(second, "shouted").metadata["unchanged"].value is True
    graph.texts["a"] = "ONE"  # another content, the same capitals: what follows stays up to date
    third = graph.run()
    assert data_version(third, "videos") == data_version(first, "videos")
    assert recorded(third, "videos").metadata["units_computed"].value == 1
    assert recorded(third, "shouted").metadata["unchanged"].value is True
    graph.texts["a"] = "another"
    fourth = graph.run()
    assert data_version(fourth, "shouted") != data_version(first, "shouted")
    assert recorded(fourth, "shouted").metadata["units_computed"].value == 1


def test_a_missing_row_fails_the_run_and_is_named(graph: ToyGraph) -> None:
    graph.forgotten = {"b"}
    result = graph.run()
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == ROWS_CONSERVED and not e.passed]
    assert check.asset_key.path == ["shouted"]
    assert (check.metadata["missing"].value, check.metadata["unexpected"].value) == ([["b", 0]], [])
    assert check.description == "rows of shouted: 1 missing, first ('b', 0)"
    assert not result.success


def test_an_unexpected_row_fails_its_check_and_is_named(graph: ToyGraph) -> None:
    graph.run()
    del graph.texts["b"]
    graph.run(dg.AssetSelection.assets("videos"))
    result = graph.run(CHECKS)
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == ROWS_CONSERVED]
    assert (check.passed, check.metadata["unexpected"].value) == (False, [["b", 0]])


def test_a_failed_row_warns_and_does_not_block(graph: ToyGraph) -> None:
    graph.broken = {"b"}
    result = graph.run()
    assert result.success
    warned = [e for e in result.get_asset_check_evaluations() if e.check_name == NO_FAILURES and not e.passed]
    assert {e.asset_key.path[0] for e in warned} == {"videos", "shouted"}
    assert all(e.severity is dg.AssetCheckSeverity.WARN and e.metadata["failed"].value == 1 for e in warned)


def test_checks_run_alone_on_the_stored_table(graph: ToyGraph) -> None:
    graph.run()
    alone = graph.run(CHECKS)
    assert alone.success
    assert {e.check_name: e.passed for e in alone.get_asset_check_evaluations()} == {
        ROWS_CONSERVED: True,
        NO_FAILURES: True,
    }
    assert not alone.get_asset_materialization_events()


def test_a_check_of_a_table_that_is_not_made_says_so_in_one_line(graph: ToyGraph) -> None:
    result = graph.run(CHECKS)
    lines = {event.step_failure_data.user_failure_data.description for event in failures(result)}
    assert "the table shouted of toy-s000 has not been made - run `cer run toy`" in lines
    assert all(line.endswith("has not been made - run `cer run toy`") for line in lines)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.step_errors.WAIT_S", 0.0)


def test_an_input_output_error_that_passes_is_tried_again(graph: ToyGraph, no_wait: None) -> None:
    graph.errors = [OSError(errno.ESTALE, "stale file handle")]
    result = graph.run()
    assert result.success
    assert [e.event_type_value for e in result.all_events].count("STEP_RESTARTED") == 1


def test_an_input_output_error_that_stays_fails_after_the_last_attempt(graph: ToyGraph, no_wait: None) -> None:
    graph.errors = [OSError(errno.EIO, "input/output error") for _ in range(RETRIES + 1)]
    result = graph.run()
    assert not result.success
    assert [e.event_type_value for e in result.all_events].count("STEP_RESTARTED") == RETRIES


@pytest.mark.parametrize("error", [CerError("the disk is full"), OSError(errno.EACCES, "permission denied")])
def test_an_error_that_a_user_must_mend_is_not_tried_again(graph: ToyGraph, error: Exception) -> None:
    graph.errors = [error]
    result = graph.run()
    assert not result.success
    assert "STEP_RESTARTED" not in [e.event_type_value for e in result.all_events]


# --- the sensor --------------------------------------------------------------------------------------------------


@dataclass
class Ticks:
    """The sensor over a home folder; every tick applies its partition requests, as the daemon does."""

    instance: dg.DagsterInstance
    home: Path
    cursor: str | None = None

    def tick(self) -> list[tuple[str | None, str | None]]:
        """The run requests of a tick: (run key, partition)."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        call: Any = corpus_changes_sensor()
        result = call(context, settings=Settings(home=str(self.home)))
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests:
            for key in request.partition_keys:
                if isinstance(request, dg.AddDynamicPartitionsRequest):
                    self.instance.add_dynamic_partitions(request.partitions_def_name, [key])
                else:
                    self.instance.delete_dynamic_partition(request.partitions_def_name, key)
        return [(request.run_key, request.partition_key) for request in result.run_requests]

    def partitions(self, name: str = CORPUS_SHARD) -> set[str]:
        return set(self.instance.get_dynamic_partitions(name))


@pytest.fixture
def ticks(tmp_home: Path) -> Iterator[Ticks]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Ticks(instance, tmp_home)


@pytest.fixture
def clip(tmp_home: Path) -> Path:
    """The file of a corpus, with content that no stage opens here."""
    path = tmp_home / "clips" / "one.mp4"
    path.parent.mkdir()
    path.write_bytes(b"not a video, but a file")
    return path


def test_the_sensor_requests_each_changed_shard_once(ticks: Ticks, clip: Path) -> None:
    registry.register(ticks.home, "toy2", clip.parent)
    ((first, partition),) = ticks.tick()
    assert partition == "toy2-s000"
    assert ticks.partitions() == {"toy2-s000"}
    assert ticks.tick() == []
    clip.write_bytes(hashlib.sha256(b"changed").digest())
    registry.register(ticks.home, "toy2", clip.parent)
    ((again, partition),) = ticks.tick()
    assert partition == "toy2-s000"
    assert again != first


def test_the_sensor_deletes_the_partitions_of_a_corpus_that_is_gone_and_no_others(ticks: Ticks, clip: Path) -> None:
    for name in ("stays", "goes"):
        registry.register(ticks.home, name, clip.parent)
    assert len(ticks.tick()) == 2
    ticks.instance.add_dynamic_partitions(CORPUS_SHARD, ["goes-s007", "Not one of ours"])
    ticks.instance.add_dynamic_partitions(CORPUS, ["stays", "goes"])
    (ticks.home / "corpora" / "goes.json").unlink()
    for _ in range(2):  # the second tick finds nothing to do
        assert ticks.tick() == []
        assert ticks.partitions() == {"stays-s000", "Not one of ours"}
        assert ticks.partitions(CORPUS) == {"stays"}
    registry.register(ticks.home, "goes", clip.parent)
    assert [partition for _, partition in ticks.tick()] == ["goes-s000"]
    assert ticks.partitions() == {"stays-s000", "goes-s000", "Not one of ours"}


def test_the_sensor_deletes_nothing_where_the_folder_of_the_registrations_is_absent(ticks: Ticks, clip: Path) -> None:
    registry.register(ticks.home, "toy2", clip.parent)
    ticks.tick()
    (ticks.home / "corpora").rename(ticks.home / "elsewhere")
    assert ticks.tick() == []
    assert ticks.partitions() == {"toy2-s000"}
