"""The assets `metrics` and `report` of a corpus, their job, and the schedule that keeps them up to date.

Belongs here: what they depend on, how they are partitioned, and what a person sees of them. Does not belong here: any
score (`cer_pipeline.evaluation`) or picture (`cer_pipeline.report`).

They have a partition dimension of their own, corpora, because a score is made of all shards of a corpus at once. Both
leave alone what already answers the tables as they are, so the nightly run costs seconds where nothing has changed; and
they fingerprint their inputs themselves, because Dagster drops edges to more than 100 partitions from its staleness.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from assets.jobs import EVALUATE
from assets.partitions import CORPUS, corpora
from assets.stages import OWNERS, asset_key
from assets.user_errors import user_errors
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation import evaluate as evaluation
from cer_pipeline.evaluation.read import splits, tables_read
from cer_pipeline.stage import StageSpec
from cer_pipeline.tables import METRICS
from resources.settings import Settings

GROUP = "evaluation"
REPORT = "report"
SCHEDULE = "nightly_evaluation"
NIGHTLY = "0 2 * * *"  # 02:00, when nobody waits for the machine
TIMEZONE = "UTC"
ALL_IN = dg.AllPartitionMapping()  # every shard of the corpus; Dagster cannot say "those of this corpus"


def evaluation_assets(specs: Sequence[StageSpec]) -> list[dg.AssetsDefinition]:
    """Both assets over the tables that some stages make."""
    branches = [s.name.partition("/")[2] for s in specs if s.name.startswith("probabilities/")]
    made = {s.name for s in specs}
    reads = [name for name in tables_read(branches) if name in made]
    return [_metrics_asset(reads), _report_asset()]


def _metrics_asset(reads: Sequence[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(METRICS.name),
        deps=[dg.AssetDep(asset_key(name), partition_mapping=ALL_IN) for name in reads],
        partitions_def=corpora,
        group_name=GROUP,
        kinds={"parquet", "numpy"},
        owners=OWNERS,
        code_version=evaluation.CODE_VERSION,
        description="Scores of every branch, the fusion and both mappings of a labelled corpus, with intervals.",
        metadata={
            "dagster/table_name": METRICS.name,
            "one row per": METRICS.row,
            "dagster/column_schema": dg.TableSchema(
                columns=[dg.TableColumn(name=c.name, type=str(c.type), description=c.meaning) for c in METRICS.columns]
            ),
        },
    )
    def compute(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:
        from cer_pipeline.report.score_table import COLUMNS, NOTES, RIGHT, markdown, score_rows

        home, name = settings.get_home(), context.partition_key
        with user_errors():
            found = evaluation.evaluate(home, name)
        shown = evaluation.select_split(found.rows, name)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.footer.data_version),
            metadata={
                "dagster/row_count": found.footer.rows,
                "scores": dg.MetadataValue.md(f"{markdown(COLUMNS, score_rows(shown), RIGHT)}\n\n{NOTES}"),
                "splits": ", ".join(sorted({cell.split for cell in found.rows})),
                "unchanged": found.unchanged,
                "file": dg.MetadataValue.path(str(home.table(METRICS.name, name, evaluation.SHARD))),
                **headline(shown),
            },
        )

    return compute


def headline(cells: Sequence[evaluation.MetricRow]) -> dict[str, Any]:
    """The numbers that the UI draws over time: macro-F1 of the segments, a line a system."""
    wanted = [c for c in cells if c.protocol == "segment" and c.metric == "macro_f1" and c.value is not None]
    return {f"macro-F1 {c.split} {c.system}": round(float(c.value or 0.0), 4) for c in wanted}


def _report_asset() -> dg.AssetsDefinition:
    @dg.asset(
        key=REPORT,
        deps=[asset_key(METRICS.name)],
        partitions_def=corpora,
        group_name=GROUP,
        kinds={"html", "matplotlib"},
        owners=OWNERS,
        description="A page with the scores of a corpus, reliability plots and confusion matrices.",
    )
    def report(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:
        from cer_pipeline.report.evaluation_page import headline as pictures_of
        from cer_pipeline.report.evaluation_page import write_report
        from cer_pipeline.report.score_plots import markdown_picture

        home, name = settings.get_home(), context.partition_key
        with user_errors():
            page = write_report(home, name)
        shown = evaluation.select_split(evaluation.read_metrics(home, name), name)
        pictures = pictures_of(page, sorted({cell.split for cell in shown}))
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(str(page)),
                **{p.stem: dg.MetadataValue.md(markdown_picture(p.stem, p.read_bytes())) for p in pictures},
            }
        )

    return report


def nightly_schedule() -> dg.ScheduleDefinition:
    """Evaluates every labelled corpus at night.

    Stopped until someone turns it on in the UI, like the sensor: a laptop that only looks at a demonstration, and every
    test, must not find the machine at work at 02:00.
    """

    @dg.schedule(
        name=SCHEDULE,
        job_name=EVALUATE,
        cron_schedule=NIGHTLY,
        execution_timezone=TIMEZONE,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Evaluates every corpus that has labels; what has not changed costs seconds.",
    )
    def nightly_evaluation(
        context: dg.ScheduleEvaluationContext, settings: Settings
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        home = settings.get_home()
        ready = [name for name in registry.names(home.root) if _is_ready(settings, name)]
        if not ready:
            yield dg.SkipReason("no registered corpus has labels and predictions")
            return
        known = set(context.instance.get_dynamic_partitions(CORPUS))
        context.instance.add_dynamic_partitions(CORPUS, [name for name in ready if name not in known])
        for name in ready:
            yield dg.RunRequest(run_key=f"{name}:{context.scheduled_execution_time.isoformat()}", partition_key=name)

    return nightly_evaluation


def _is_ready(settings: Settings, name: str) -> bool:
    try:
        splits(settings.get_home(), name)
        evaluation.inputs_digest(settings.get_home(), name)
    except CerError:
        return False
    return True
