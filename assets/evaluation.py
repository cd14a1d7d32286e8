"""The assets `metrics` and `report` of a corpus, their job, and the schedule that keeps them up to date.

Belongs here: what they depend on, how they are partitioned, and what a person sees of them. Does not belong here: any
score (`cer_pipeline.evaluation`) or picture (`cer_pipeline.report`).

They have a partition dimension of their own, corpora, because a score is made of all shards of a corpus at once. Both
leave alone what already answers the tables as they are, so the nightly run costs seconds where nothing has changed; and
they fingerprint their inputs themselves, because Dagster drops edges to more than 100 partitions from its staleness.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.keys import asset_key
from assets.partitions import corpora
from assets.stages import OWNERS
from assets.user_errors import user_errors
from cer_pipeline.evaluation import evaluate as evaluation
from cer_pipeline.evaluation.read import tables_read
from cer_pipeline.stage import StageSpec
from cer_pipeline.tables import METRICS
from resources.settings import Settings

GROUP = "evaluation"
REPORT = "report"
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
        shown = evaluation.chosen(found.cells, name)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.footer.data_version),
            metadata={
                "dagster/row_count": found.footer.rows,
                "scores": dg.MetadataValue.md(f"{markdown(COLUMNS, score_rows(shown), RIGHT)}\n\n{NOTES}"),
                "splits": ", ".join(sorted({cell.split for cell in found.cells})),
                "unchanged": found.unchanged,
                "file": dg.MetadataValue.path(str(home.table(METRICS.name, name, evaluation.SHARD))),
                **headline(shown),
            },
        )

    return compute


def headline(cells: Sequence[evaluation.Cell]) -> dict[str, Any]:
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
        shown = evaluation.chosen(evaluation.read_cells(home, name), name)
        pictures = pictures_of(page, sorted({cell.split for cell in shown}))
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(str(page)),
                **{p.stem: dg.MetadataValue.md(markdown_picture(p.stem, p.read_bytes())) for p in pictures},
            }
        )

    return report
