"""Settings that are typed in the launchpad: they reach every asset, enter the keys, and cannot make another graph."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.jobs import PROCESS_SHARD
from assets.partitions import CORPUS_SHARD
from cer_pipeline.cli.launch import JobResult
from cer_pipeline.corpora import registry
from cer_pipeline.definitions import build_definitions
from cer_pipeline.errors import CerError
from cer_pipeline.pipeline import changed_tables, stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.store.parquet import write_table
from resources.settings import Settings

KEY = "clips-s000"
SECONDS = 7
UPSTREAM = ["videos", "segments"]


@pytest.fixture
def home(tmp_home: Path) -> Path:
    """A home with a corpus of one silent video of 7 s."""
    folder = tmp_home / "clips"
    folder.mkdir()
    with av.open(str(folder / "grey.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 32, 32, "yuv420p", Fraction(1, 5)
        for _ in range(5 * SECONDS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8))))
        container.mux(stream.encode())
    registry.register(tmp_home, "clips", folder)
    return tmp_home


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    """The graph of the embedded profile; every launch names its home."""
    return build_definitions()


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as opened:
        opened.add_dynamic_partitions(CORPUS_SHARD, [KEY])
        yield opened


def launch(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    tables: list[str],
    home: Path,
    *overrides: str,
    sections: dict[str, dict[str, Any]] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run some assets as the UI's launchpad does: with the settings of the run in the run config."""
    settings: dict[str, Any] = {"home": str(home)} | ({"overrides": list(overrides)} if overrides else {})
    settings |= {"sections": sections} if sections else {}
    return definitions.resolve_job_def(PROCESS_SHARD).execute_in_process(
        instance=instance,
        partition_key=KEY,
        asset_selection=[dg.AssetKey(name.split("/")) for name in tables],
        run_config={"resources": {"settings": {"config": settings}}},
        raise_on_error=False,
    )


def reason_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    return {failure.step: failure.reason for failure in JobResult.of(result).failures}[step]


def rows(home: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(home / "tables" / table / "corpus=clips" / "shard=s000" / "data.parquet").to_pylist()


def test_a_setting_of_the_launchpad_reaches_every_asset_of_the_run(
    definitions: dg.Definitions, home: Path, instance: dg.DagsterInstance
) -> None:
    assert launch(definitions, instance, UPSTREAM, home).success
    first = rows(home, "videos")[0]["row_key"]
    assert [row["start_s"] for row in rows(home, "segments")] == [0.0, 2.0, 4.0]
    assert launch(definitions, instance, UPSTREAM, home, "windows.hop_s=1.0").success
    assert [row["start_s"] for row in rows(home, "segments")] == [0.0, 1.0, 2.0, 3.0]
    assert rows(home, "videos")[0]["segments"] == 4
    assert rows(home, "videos")[0]["row_key"] != first, "a setting enters the keys, so that no stale row is served"
    assert launch(definitions, instance, UPSTREAM, home, sections={"windows": {"hop_s": 1}}).success
    assert len(rows(home, "segments")) == 4, "settings by section say the same as text"
    assert launch(definitions, instance, UPSTREAM, home).success, "the settings of one run must not stay for the next"
    assert len(rows(home, "segments")) == 3
    assert rows(home, "videos")[0]["row_key"] == first


def test_the_settings_that_definitions_were_built_with_hold_where_the_run_names_none(
    home: Path, instance: dg.DagsterInstance
) -> None:
    definitions = build_definitions(Settings(home=str(home), overrides=["windows.hop_s=1.0"]))
    assert launch(definitions, instance, UPSTREAM, home).success
    assert len(rows(home, "segments")) == 4


@pytest.mark.parametrize("where", ["launchpad", "settings.toml"])
def test_a_run_whose_settings_make_another_graph_is_refused_in_one_line(
    definitions: dg.Definitions, home: Path, instance: dg.DagsterInstance, where: str
) -> None:
    overrides = ['branches.enabled=["face_static"]'] if where == "launchpad" else []
    if where == "settings.toml":
        (home / "settings.toml").write_text('[branches]\nenabled = ["face_static"]\n')
    result = launch(definitions, instance, UPSTREAM, home, *overrides)
    assert not result.success
    assert not (home / "tables" / "videos").exists()
    line = reason_of(result, "videos")
    assert "the settings of this run make another graph than the one that is loaded" in line
    assert "reload the code location" in line
    (event,) = [e for e in result.all_events if e.is_step_failure and e.step_key == "videos"]
    failure = getattr(event.event_specific_data, "user_failure_data", None)
    assert failure is not None, "the UI shows the line, not a traceback"
    assert failure.description in line


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"windows": {"hops": 1.0}}, "unknown setting windows.hops: windows.hops=1.0 - did you mean windows.hop_s?"),
        ({"window": {"hop_s": 1.0}}, "unknown section [window]: window.hop_s=1.0 - did you mean windows?"),
    ],
)
def test_a_mistake_in_a_section_is_refused_with_the_nearest_right_name(
    definitions: dg.Definitions, home: Path, instance: dg.DagsterInstance, sections: dict[str, Any], line: str
) -> None:
    result = launch(definitions, instance, ["videos"], home, sections=sections)
    assert not result.success
    assert reason_of(result, "videos").endswith(line)


def test_a_setting_without_a_value_is_refused_in_one_line(tmp_home: Path) -> None:
    with pytest.raises(CerError, match=r"^a setting needs a value: windows.hop_s - give one or remove the line$"):
        Settings(home=str(tmp_home), sections={"windows": {"hop_s": [None]}}).get_profile()


@pytest.mark.parametrize(
    "values",
    [
        {"windows": {"hop_s": 0.5}, "branches": {"enabled": ["face_static"]}},
        {"fusion": {"method": "dynamic"}, "describer": {"brows_raised": [0.25, 0.5]}},
    ],
)
def test_sections_hold_in_the_profile_and_overrides_go_over_them(tmp_home: Path, values: dict[str, Any]) -> None:
    profile = Settings(home=str(tmp_home), sections=values, overrides=["grid.rate_hz=4"]).get_profile()
    assert {name: {key: profile[name][key] for key in section} for name, section in values.items()} == values
    assert profile["grid"]["rate_hz"] == 4
    both = Settings(home=str(tmp_home), sections={"grid": {"rate_hz": 2}}, overrides=["grid.rate_hz=4"])
    assert both.get_profile()["grid"]["rate_hz"] == 4


@pytest.mark.parametrize("override", ["windows.no_such=1", "windows.hop_s=often", "nonsense"])
def test_a_mistyped_setting_is_refused_in_one_line(
    definitions: dg.Definitions, home: Path, instance: dg.DagsterInstance, override: str
) -> None:
    result = launch(definitions, instance, ["videos"], home, override)
    assert not result.success
    assert "\n" not in reason_of(result, "videos")
    assert not (home / "tables" / "videos").exists()


def test_the_method_of_the_fusion_changes_what_its_stage_needs_and_not_the_graph() -> None:
    equal, dynamic = stages(load_profile()), stages(load_profile(overrides=["fusion.method=dynamic"]))
    assert changed_tables(equal, dynamic) == []
    needed = [next(spec.models for spec in specs if spec.name == "fused") for specs in (equal, dynamic)]
    assert needed == [(), ("head_mhpf",)]


def test_a_fusion_that_is_not_trained_gives_no_stale_values(
    definitions: dg.Definitions, home: Path, instance: dg.DagsterInstance
) -> None:
    """The stage under the run's settings counts, not the one that was made when the definitions were loaded."""
    upstream = [spec.name for spec in stages(load_profile()) if spec.name.startswith("probabilities/")]
    assert launch(definitions, instance, UPSTREAM, home).success
    for name in upstream:
        _blank_table(home, name)
    assert launch(definitions, instance, ["fused"], home).success
    before = {row["status"] for row in rows(home, "fused")}
    assert launch(definitions, instance, ["fused"], home, "fusion.method=dynamic").success
    assert {row["status"] for row in rows(home, "fused")} == {"model_unavailable"} != before


def _blank_table(home: Path, name: str) -> None:
    """A probability table in which no segment has a value."""
    spec = next(spec for spec in stages(load_profile()) if spec.name == name)
    units = [row | {"unit": row["segment_id"]} for row in rows(home, "segments")]
    made = [
        row | {"row_key": "key", "content": row["segment_id"]}
        for unit in units
        for row in placeholder_rows(spec, unit, Status.NO_FACE, "no face")
    ]
    path = home / "tables" / name / "corpus=clips" / "shard=s000" / "data.parquet"
    write_table(path, spec.table, iter([pa.Table.from_pylist(made, schema=spec.table.stored_schema)]), "plan", 3)
