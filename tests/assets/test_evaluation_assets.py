"""The assets of an evaluation: what they record, what the schedule asks for, and that nothing else reads labels."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.evaluation import GROUP
from assets.jobs import EVALUATE, PROCESS_SHARD
from assets.partitions import CORPUS
from assets.schedules import NIGHTLY, SCHEDULE, TIMEZONE, nightly_schedule
from cer_pipeline.definitions import build_definitions
from resources.settings import Settings
from tests.helpers.evaluated_home import NAME, ToyCorpus, write  # pyright: ignore[reportMissingImports]

pytestmark = pytest.mark.slow  # whole graphs or trainings

AT = datetime(2026, 1, 5, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    write(root, ToyCorpus(videos=6))
    write(root, ToyCorpus(videos=2, labelled=False), "unlabelled")
    return root


def apart(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a context of its own.

    A run and a tick enter their instance a second time, after which Dagster 1.13 forgets to put back what it set for
    the loading of definitions, and the next test that loads some would find a closed instance.
    """
    return contextvars.copy_context().run(call, *arguments)


def evaluate(home: Path, name: str, times: int) -> list[dg.ExecuteInProcessResult]:
    """Runs of the job, one after the other."""
    return apart(_evaluate, home, name, times)


def _evaluate(home: Path, name: str, times: int) -> list[dg.ExecuteInProcessResult]:
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(CORPUS, [name])
        job = build_definitions(Settings(home=str(home))).resolve_job_def(EVALUATE)
        return [
            job.execute_in_process(instance=instance, partition_key=name, raise_on_error=False) for _ in range(times)
        ]


def recorded(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node(name)
    return event


def test_a_run_records_the_table_of_scores_and_the_pictures(home: Path) -> None:
    first, second = evaluate(home, NAME, times=2)
    assert first.success
    metrics, report = recorded(first, "metrics"), recorded(first, "report")
    scores: Any = metrics.metadata["scores"]
    shown = {(record.data["units"], record.data["system"]) for record in scores.records}
    assert shown >= {("dev segment", system) for system in ("face_static", "fused", "ppa", "pfsa")}
    assert ("train segment", "fused") not in shown, "the split that heads were trained on is not shown unless asked for"
    assert metrics.metadata["unchanged"].value is False
    assert 0 <= float(str(metrics.metadata["macro_f1/dev/fused"].value)) <= 100
    pictures = {name: str(value.value) for name, value in report.metadata.items() if name.startswith("dev_segment")}
    assert {name.removeprefix("dev_segment_") for name in pictures} == {
        "basic_reliability", "compound_reliability", "basic_confusion_fused", "compound_confusion_ppa"
    }  # fmt: skip
    assert all(text.startswith(f"![{name}](data:image/png;base64,iVBOR") for name, text in pictures.items())
    assert max(map(len, pictures.values())) < 100_000, "the event log keeps every picture"
    page = Path(str(report.metadata["page"].value))
    text = page.read_text("utf-8")
    assert "http" not in text, "the page needs nothing from outside"
    assert text.count("data:image/png;base64,") == len(list(page.parent.glob("*.png")))

    again = recorded(second, "metrics")
    assert again.metadata["unchanged"].value is True
    version = "dagster/data_version"
    assert (again.tags or {})[version] == (metrics.tags or {})[version]


def test_a_corpus_without_labels_fails_its_run_and_says_so(home: Path) -> None:
    (result,) = evaluate(home, "unlabelled", times=1)
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "the corpus has no labels: unlabelled" in str(failure.event_specific_data)


def ticks(home: Path, times: int) -> tuple[list[list[Any]], list[str]]:
    """What the schedule yields, tick by tick, and the corpora that Dagster knows afterwards."""
    return apart(_ticks, home, times)


def _ticks(home: Path, times: int) -> tuple[list[list[Any]], list[str]]:
    schedule: Any = nightly_schedule()
    with dg.instance_for_test() as instance:
        found = []
        for _ in range(times):
            context = dg.build_schedule_context(instance=instance, scheduled_execution_time=AT)
            found.append(list(schedule(context, settings=Settings(home=str(home)))))
        return found, list(instance.get_dynamic_partitions(CORPUS))


def test_the_schedule_asks_for_every_labelled_corpus_and_for_no_other(home: Path) -> None:
    (requests, again), known = ticks(home, times=2)
    assert known == [NAME]
    assert [r.partition_key for r in requests] == [NAME]
    assert [r.run_key for r in again] == [r.run_key for r in requests], "a tick asks once"


def test_the_schedule_says_why_it_asks_for_nothing(tmp_path: Path) -> None:
    ((skip,),), known = ticks(tmp_path, times=1)
    assert "no registered corpus has labels" in skip.skip_message
    assert not known


def test_the_schedule_is_nightly_and_waits_to_be_turned_on() -> None:
    with dg.instance_for_test():
        schedule: Any = build_definitions().resolve_schedule_def(SCHEDULE)
    assert (schedule.cron_schedule, schedule.execution_timezone, schedule.job_name) == (NIGHTLY, TIMEZONE, EVALUATE)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def test_only_the_evaluation_reads_labels_beside_training() -> None:
    """Labels are read where scores are made and heads are trained, and by no asset that predicts."""
    with dg.instance_for_test():
        definitions = build_definitions()
        graph = definitions.resolve_asset_graph()
        process = definitions.resolve_job_def(PROCESS_SHARD)
    labels = {dg.AssetKey("labels"), dg.AssetKey("frame_labels")}
    readers = {key for key in graph.get_all_asset_keys() if graph.get(key).parent_keys & labels}
    assert dg.AssetKey("metrics") in readers
    assert {graph.get(key).group_name for key in readers} <= {GROUP, "models"}
    predicting = set(process.asset_layer.executable_asset_keys)
    assert not predicting & {dg.AssetKey("metrics"), dg.AssetKey("report")}
