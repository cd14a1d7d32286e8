"""The Dagster graph: what it looks like, and what a materialisation records, with real `materialize` calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.checks import LABELS, NO_LEAK
from assets.partitions import CORPUS_SHARD
from assets.sensors import corpus_changes_sensor
from assets.stages import CONSERVED, NO_FAILURES, stage_asset
from cer_pipeline.corpora import registry
from cer_pipeline.definitions import build_definitions
from cer_pipeline.pipeline import in_order, stages
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import Inputs, StageContext, StageSpec
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.tables import Column, TableSpec
from resources.progress import LogProgress
from resources.settings import Settings
from resources.tables import Tables

GROUPS = {"ingest", "perception", "features", "probabilities", "fusion", "predictions"}
KEY = "toy-s000"


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


def test_every_stage_is_an_asset_that_a_person_can_find_their_way_in(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    specs = {tuple(s.name.split("/")): s for s in stages(load_profile())}
    keys = {key for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned and tuple(key.path) in specs}
    assert {tuple(key.path) for key in keys} == set(specs)
    for key in keys:
        node, spec = graph.get(key), specs[tuple(key.path)]
        assert node.group_name == spec.group
        assert node.description
        assert list(node.owners) == ["team:cer"]
        assert node.code_version == spec.code_version
        assert node.kinds >= {"parquet"}
        tables = {tuple(n.split("/")) for n in spec.inputs}
        heads = {("models", m.removeprefix("head_")) for m in (*spec.models, *spec.optional_models) if "head_" in m}
        assert {tuple(parent.path) for parent in node.parent_keys} == tables | heads
        schema = node.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert [c.name for c in schema.columns] == spec.table.stored_schema.names
        assert all(c.description for c in schema.columns), f"{key} has a column without a meaning"
        assert node.partitions_def is not None
        more = {NO_LEAK} if spec.name == LABELS else set()
        assert {check.name for check in node.check_keys} == {CONSERVED, NO_FAILURES} | more
    assert {graph.get(key).group_name for key in keys} == GROUPS


def test_definitions_load_for_dagster(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_a_stage_that_reads_an_unknown_table_or_itself_is_refused() -> None:
    a, b = toy("a", inputs=("b",)), toy("b", inputs=("a",))
    with pytest.raises(ValueError, match="form a cycle"):
        in_order([a, b])
    with pytest.raises(ValueError, match="reads nowhere, which no stage makes"):
        in_order([toy("c", inputs=("nowhere",))])
    with pytest.raises(ValueError, match="two stages make the table a"):
        in_order([toy("a"), toy("a")])


# --- a small graph of two stages ---------------------------------------------------------------------------------


class World:
    """What the toy stages see."""

    videos: dict[str, str]
    broken: set[str]
    forgotten: set[str]


WORLD = World()


def toy_table(name: str) -> TableSpec:
    columns = (
        Column("video_id", pa.string(), "video", nullable=False),
        Column("text", pa.string(), "text"),
        Column("status", pa.string(), "status", nullable=False),
        Column("reason", pa.string(), "reason"),
    )
    return TableSpec(name=name, row="video", unit="video_id", key=("video_id",), columns=columns)


class Upper:
    """Says a video's text in capitals."""

    def __init__(self, context: StageContext) -> None:
        self.context = context

    def __call__(self, units: pa.Table) -> pa.Table:
        rows = []
        for video in units.column("unit").to_pylist():
            if video in WORLD.broken:
                raise RuntimeError("broken")
            self.context.counters["calls/upper"] += 1
            rows.append({"video_id": video, "text": WORLD.videos[video].upper(), "status": "ok", "reason": None})
        return pa.Table.from_pylist(rows, schema=toy_table("x").schema)


def plan_source(inputs: Inputs, profile: Profile) -> pa.Table:
    videos = sorted(WORLD.videos)
    return pa.table({"unit": videos, "video_id": videos, "inputs": [digest(WORLD.videos[v]) for v in videos]})


def plan_derived(inputs: Inputs, profile: Profile) -> pa.Table:
    found = {v: d for v, d in inputs.digests("videos").items() if v not in WORLD.forgotten}
    return pa.table({"unit": list(found), "video_id": list(found), "inputs": list(found.values())})


def toy(name: str, inputs: tuple[str, ...] = ()) -> StageSpec:
    return StageSpec(
        table=toy_table(name),
        description=name,
        group="toy",
        inputs=inputs,
        plan=plan_derived if inputs else plan_source,
        stage=f"{__name__}:Upper",
        code_version="1",
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    WORLD.videos, WORLD.broken, WORLD.forgotten = {"a": "one", "b": "two"}, set(), set()
    with dg.DagsterInstance.ephemeral() as opened:
        opened.add_dynamic_partitions(CORPUS_SHARD, [KEY])
        yield opened


def run(instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch) -> dg.ExecuteInProcessResult:
    monkeypatch.setattr(StageSpec, "load", lambda self: Upper)
    specs = {spec.name: spec for spec in (toy("videos"), toy("shouted", inputs=("videos",)))}
    assets = [stage_asset(spec, lambda _, name: specs[name]) for spec in specs.values()]
    settings = Settings(home=str(home))
    resources = {"settings": settings, "tables": Tables(settings=settings), "progress": LogProgress()}
    return dg.materialize(assets, partition_key=KEY, instance=instance, resources=resources, raise_on_error=False)


def recorded(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node(name)
    return event


def data_version(result: dg.ExecuteInProcessResult, name: str) -> str:
    return (recorded(result, name).tags or {})["dagster/data_version"]


def test_a_materialisation_records_what_a_person_wants_to_see(
    instance: dg.DagsterInstance, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(instance, tmp_home, monkeypatch)
    assert result.success
    metadata = recorded(result, "shouted").metadata
    assert metadata["dagster/row_count"].value == 2
    assert metadata["rows by status"].value == "| status | rows |\n|---|---:|\n| ok | 2 |"
    assert (metadata["units computed"].value, metadata["units cached"].value) == (2, 0)
    assert metadata["counters"].value == {"calls/upper": 2}
    assert str(metadata["plot"].value).startswith("![shouted](data:image/png;base64,iVBOR")
    path = Path(str(metadata["file"].value))
    assert path == tmp_home / "tables/shouted/corpus=toy/shard=s000/data.parquet"
    assert path.is_file()
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations() if e.asset_key.path == ["shouted"]}
    assert checks == {CONSERVED: True, NO_FAILURES: True}
    assert not [e for e in result.all_events if e.event_type_value == "HANDLED_OUTPUT"], "a value was pickled"


def test_an_unchanged_result_has_the_same_data_version_and_computes_nothing(
    instance: dg.DagsterInstance, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = run(instance, tmp_home, monkeypatch), run(instance, tmp_home, monkeypatch)
    assert data_version(first, "shouted") == data_version(second, "shouted")
    assert recorded(second, "shouted").metadata["unchanged"].value is True
    WORLD.videos["a"] = "ONE"  # another content, the same capitals: the wave stops at the first stage
    third = run(instance, tmp_home, monkeypatch)
    assert data_version(third, "videos") == data_version(first, "videos")
    assert recorded(third, "videos").metadata["units computed"].value == 1
    assert recorded(third, "shouted").metadata["unchanged"].value is True
    WORLD.videos["a"] = "another"
    fourth = run(instance, tmp_home, monkeypatch)
    assert data_version(fourth, "shouted") != data_version(first, "shouted")
    assert recorded(fourth, "shouted").metadata["units computed"].value == 1


def test_a_lost_row_blocks_what_comes_after(
    instance: dg.DagsterInstance, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WORLD.forgotten = {"b"}
    result = run(instance, tmp_home, monkeypatch)
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == CONSERVED and not e.passed]
    assert check.asset_key.path == ["shouted"]
    assert check.metadata["lost"].value == [["b", 0]]
    assert not result.success


def test_a_failed_row_warns_and_does_not_block(
    instance: dg.DagsterInstance, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WORLD.broken = {"b"}
    result = run(instance, tmp_home, monkeypatch)
    assert result.success
    warned = [e for e in result.get_asset_check_evaluations() if e.check_name == NO_FAILURES and not e.passed]
    assert {e.asset_key.path[0] for e in warned} == {"videos", "shouted"}
    assert all(e.severity is dg.AssetCheckSeverity.WARN for e in warned)


def test_the_sensor_requests_each_changed_shard_once(instance: dg.DagsterInstance, tmp_home: Path) -> None:
    folder = tmp_home / "clips"
    folder.mkdir()
    (folder / "one.mp4").write_bytes(b"not a video, but a file")
    registry.register(tmp_home, "toy2", folder)
    sensor = corpus_changes_sensor()

    def tick(cursor: str | None) -> dg.SensorResult:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        answer: Any = sensor(context, settings=Settings(home=str(tmp_home)))
        return answer

    first = tick(None)
    assert [r.partition_key for r in first.run_requests or []] == ["toy2-s000"]
    assert [r.partition_keys for r in first.dynamic_partitions_requests or []] == [["toy2-s000"]]
    assert tick(first.cursor).run_requests == []
    (folder / "one.mp4").write_bytes(hashlib.sha256(b"changed").digest())
    registry.register(tmp_home, "toy2", folder)
    again = tick(first.cursor)
    assert [r.partition_key for r in again.run_requests or []] == ["toy2-s000"]
    assert (again.run_requests or [])[0].run_key != (first.run_requests or [])[0].run_key
