"""The assets `metrics` and `report` of a corpus.

Belongs here: their dependencies, partitions and metadata. Does not belong here: any score
(`cer_pipeline.evaluation`) or picture (`cer_pipeline.report`).

They have a partition dimension of their own, corpora, because a score is computed from all shards of a corpus at once.
Both compute nothing where their inputs are unchanged, so that the nightly run costs seconds. They digest their inputs
themselves, because Dagster drops edges to more than 100 partitions from its staleness.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.keys import asset_key
from assets.metadata import code_reference, picture_value, table_metadata, table_value
from assets.partitions import corpora
from assets.stages import OWNERS
from assets.step_errors import step_errors
from cer_pipeline.evaluation import evaluate as evaluation
from cer_pipeline.evaluation.read import tables_read
from cer_pipeline.stage import StageSpec
from cer_pipeline.tables import METRICS
from resources.settings import Settings

GROUP = "evaluation"
REPORT = "report"
ALL_SHARDS = dg.AllPartitionMapping()  # Dagster has no mapping from a corpus to its own shards


def evaluation_assets(specs: Sequence[StageSpec]) -> list[dg.AssetsDefinition]:
    """Return both assets over the tables that some stages make."""
    branches = [s.name.partition("/")[2] for s in specs if s.name.startswith("probabilities/")]
    made = {s.name for s in specs}
    reads = [name for name in tables_read(branches) if name in made]
    return [_metrics_asset(reads), _report_asset()]


def _metrics_asset(reads: Sequence[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(METRICS.name),
        deps=[dg.AssetDep(asset_key(name), partition_mapping=ALL_SHARDS) for name in reads],
        partitions_def=corpora,
        group_name=GROUP,
        kinds={"parquet", "numpy"},
        owners=OWNERS,
        code_version=evaluation.CODE_VERSION,
        description="Scores of every branch, the fusion and both mappings of a labelled corpus, with intervals.",
        metadata=table_metadata(METRICS) | code_reference("cer_pipeline.evaluation.evaluate:evaluate"),
    )
    def compute(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:
        from cer_pipeline.report.score_table import COLUMNS, NOTES, score_rows

        home, name = settings.get_home(), context.partition_key
        with step_errors():
            result = evaluation.evaluate(home, name)
        shown = evaluation.select_split(result.rows, name)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(result.footer.data_version),
            metadata={
                "dagster/row_count": result.footer.rows,
                "scores": table_value(COLUMNS, score_rows(shown)),
                "scores_explained": NOTES,
                "splits": ", ".join(sorted({cell.split for cell in result.rows})),
                "unchanged": result.unchanged,
                "file": dg.MetadataValue.path(str(home.table(METRICS.name, name, evaluation.SHARD))),
                **macro_f1(shown),
            },
        )

    return compute


def macro_f1(cells: Sequence[evaluation.MetricRow]) -> dict[str, Any]:
    """Return the numbers that the UI plots over time: macro-F1 of the segments, one a split and system, percent."""
    values = {f"macro_f1/{c.split}/{c.system}": c.value for c in cells
              if c.protocol == "segment" and c.metric == "macro_f1"}  # fmt: skip
    return {key: round(float(value), 4) for key, value in values.items() if value is not None}


def _report_asset() -> dg.AssetsDefinition:
    @dg.asset(
        key=REPORT,
        deps=[asset_key(METRICS.name)],
        partitions_def=corpora,
        group_name=GROUP,
        kinds={"html", "matplotlib"},
        owners=OWNERS,
        metadata=code_reference("cer_pipeline.report.evaluation_page:write_report"),
        description="A page with the scores of a corpus, reliability plots and confusion matrices.",
    )
    def report(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:
        from cer_pipeline.report.evaluation_page import headline as pictures_of
        from cer_pipeline.report.evaluation_page import write_report

        home, name = settings.get_home(), context.partition_key
        with step_errors():
            page = write_report(home, name)
        shown = evaluation.select_split(evaluation.read_metrics(home, name), name)
        pictures = pictures_of(page, sorted({cell.split for cell in shown}))
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(str(page)),
                **{p.stem: picture_value(p.stem, p.read_bytes()) for p in pictures},
            }
        )

    return report
