"""Schedules: runs at fixed times.

Belongs here: the schedules and the runs that they request. Does not belong here: jobs (`jobs`) or computation.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Iterator

import dagster as dg

from assets.jobs import EVALUATE
from assets.partitions import CORPUS
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation import evaluate as evaluation
from cer_pipeline.evaluation.read import splits
from resources.settings import Settings

SCHEDULE = "nightly_evaluation"
NIGHTLY = "0 2 * * *"  # 02:00, outside working hours
TIMEZONE = "UTC"


def nightly_schedule() -> dg.ScheduleDefinition:
    """Return the schedule that evaluates every labelled corpus at night.

    It is stopped until it is turned on in the UI, like the sensor, so that no machine computes at night unasked.
    """

    @dg.schedule(
        name=SCHEDULE,
        job_name=EVALUATE,
        cron_schedule=NIGHTLY,
        execution_timezone=TIMEZONE,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Evaluates every corpus that has labels; an unchanged corpus costs seconds.",
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
