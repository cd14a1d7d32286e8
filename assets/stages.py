"""One asset for every stage of the pipeline.

Belongs here: turning a StageSpec into an AssetsDefinition. Does not belong here: the stages themselves.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Callable

import dagster as dg

from assets.checks import leak_check_results, leak_check_specs
from assets.keys import asset_key
from assets.metadata import asset_metadata, check_metadata, run_metadata
from assets.models import heads_of
from assets.partitions import corpus_shards
from assets.user_errors import user_errors
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.row_coverage import EXAMPLES, missing_and_unexpected
from resources.progress import ProgressListener
from resources.tables import Tables

OWNERS = ("team:cer",)
CONSERVED = "rows_conserved"
NO_FAILURES = "no_failures"


StageUnder = Callable[[Profile, str], StageSpec]
"""(settings of a run, table name) -> stage; raises CerError where these settings make another graph."""


def stage_asset(spec: StageSpec, under: StageUnder) -> dg.AssetsDefinition:
    """The asset that makes a stage's table, with its checks.

    The data version is the digest of the table's content, so that a run that changes nothing stops the wave.

    Args:
        spec: the stage as it is when the definitions are loaded; it gives the asset its key, dependencies and columns.
        under: gives the stage under the settings of a run.
    """
    key = asset_key(spec.name)

    @dg.asset(
        key=key,
        deps=[*(asset_key(name) for name in spec.inputs), *heads_of(spec)],
        partitions_def=corpus_shards,
        group_name=spec.group,
        kinds=set(spec.kinds),
        owners=OWNERS,
        code_version=spec.code_version,
        description=spec.description,
        metadata=asset_metadata(spec),
        pool=spec.pool or None,
        check_specs=[
            dg.AssetCheckSpec(
                CONSERVED,
                asset=key,
                blocking=True,
                description="Every unit that this table must answer for has its row, and no other has.",
            ),
            dg.AssetCheckSpec(NO_FAILURES, asset=key, description="No row failed for an unforeseen reason."),
            *leak_check_specs(spec.name, key),
        ],
    )
    def compute(
        context: dg.AssetExecutionContext, tables: Tables, progress: dg.ResourceParam[ProgressListener]
    ) -> dg.MaterializeResult:
        shard = context.partition_key
        progress.started(spec.name, shard, context.log.info)
        with user_errors():
            report = tables.materialise(
                under(tables.settings.get_profile(), spec.name),
                shard,
                context.run.run_id,
                lambda done, total: progress.advanced(spec.name, shard, done, total),
            )
        progress.finished(report)
        lost, foreign = missing_and_unexpected(spec, tables.inputs(shard))
        failed = report.footer.by_status.get(Status.FAILED, 0)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.footer.data_version),
            metadata=run_metadata(spec, report, tables, shard),
            check_results=[
                dg.AssetCheckResult(
                    check_name=CONSERVED,
                    asset_key=key,
                    passed=not lost and not foreign,
                    metadata=check_metadata(lost=lost[:EXAMPLES], foreign=foreign[:EXAMPLES], rows=report.footer.rows),
                ),
                dg.AssetCheckResult(
                    check_name=NO_FAILURES,
                    asset_key=key,
                    passed=failed == 0,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata=check_metadata(failed=failed),
                ),
                *leak_check_results(spec.name, key, tables.inputs(shard)),
            ],
        )

    return compute
