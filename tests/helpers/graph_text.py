"""The Dagster graph as text; `.venv/bin/python -m tests.helpers.graph_text` rewrites tests/assets/graph.txt."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from cer_pipeline.definitions import build_definitions
from resources.settings import Settings

FILE = Path(__file__).resolve().parents[1] / "assets" / "graph.txt"


def graph_text(definitions: dg.Definitions) -> str:
    """Return all assets with group, partitions, dependencies and checks, all jobs, schedules and sensors, sorted."""
    return "\n".join([*_assets(definitions), *_jobs(definitions), *_automation(definitions)]) + "\n"


def _assets(definitions: dg.Definitions) -> Iterator[str]:
    graph = definitions.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys(), key=dg.AssetKey.to_user_string):
        node = graph.get(key)
        yield f"asset {key.to_user_string()}"
        yield f"  group: {node.group_name}"
        yield f"  partitions: {getattr(node.partitions_def, 'name', None) or 'none'}"
        yield from (f"  reads: {name}" for name in sorted(parent.to_user_string() for parent in node.parent_keys))
        for check in sorted(node.check_keys, key=lambda check: check.name):
            yield f"  check: {check.name}{' (blocking)' if graph.get(check).blocking else ''}"


def _jobs(definitions: dg.Definitions) -> Iterator[str]:
    repository = definitions.get_repository_def()
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        if job.name.startswith("__"):  # of Dagster: all assets
            continue
        yield f"job {job.name}"
        keys = job.asset_layer.executable_asset_keys
        yield from (f"  makes: {name}" for name in sorted(key.to_user_string() for key in keys))


def _automation(definitions: dg.Definitions) -> Iterator[str]:
    repository = definitions.get_repository_def()
    for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name):
        yield f"schedule {schedule.name}"
        yield f"  starts: {schedule.job_name} at {schedule.cron_schedule} {schedule.execution_timezone}"
        yield f"  by default: {schedule.default_status.value.lower()}"
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        yield f"sensor {sensor.name}"
        yield f"  starts: {sensor.job_name} every {sensor.minimum_interval_seconds} s at the most"
        yield f"  by default: {sensor.default_status.value.lower()}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:  # one without settings of its own
        FILE.write_text(graph_text(build_definitions(Settings(home=home))), "utf-8")
