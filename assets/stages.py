"""One asset for every stage of the pipeline.

Belongs here: the mapping of a StageSpec to an AssetsDefinition. Does not belong here: the stages themselves, or their
checks (`checks`).
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Callable, Mapping

import dagster as dg

from assets.keys import asset_key
from assets.metadata import run_metadata, stage_metadata
from assets.models import heads_of
from assets.partitions import corpus_shards
from assets.step_errors import step_errors
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import StageSpec
from resources.progress import ProgressListener
from resources.tables import Tables

OWNERS = ("team:cer",)

StageUnder = Callable[[Profile, str], StageSpec]
"""(settings of a run, table name) -> stage; raises CerError where these settings make another graph."""


def stage_asset(spec: StageSpec, specs: Mapping[str, StageSpec], under: StageUnder) -> dg.AssetsDefinition:
    """Return the asset that makes a stage's table.

    The data version is the digest of the table's content, so that assets after an unchanged table stay up to date.

    Args:
        spec: the stage as it is when the definitions are loaded; it gives the asset its key, dependencies and columns.
        specs: all stages by table.
        under: gives the stage under the settings of a run.
    """

    @dg.asset(
        key=asset_key(spec.name),
        deps=[*(asset_key(name) for name in spec.inputs), *heads_of(spec)],
        partitions_def=corpus_shards,
        group_name=spec.group,
        kinds=set(spec.kinds),
        owners=OWNERS,
        code_version=spec.code_version,
        description=spec.description,
        metadata=stage_metadata(spec, specs),
    )
    def compute(
        context: dg.AssetExecutionContext, tables: Tables, progress: dg.ResourceParam[ProgressListener]
    ) -> dg.MaterializeResult:
        shard = context.partition_key
        progress.started(spec.name, shard, context.log.info)
        with step_errors():
            report = tables.materialise(
                under(tables.settings.get_profile(), spec.name),
                shard,
                context.run.run_id,
                lambda done, total: progress.advanced(spec.name, shard, done, total),
            )
        progress.finished(report)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.footer.data_version),
            metadata=run_metadata(spec, report, tables, shard),
        )

    return compute
