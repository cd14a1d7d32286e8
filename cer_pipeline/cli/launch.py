"""Running a Dagster job in this process, for every command that does.

Belongs here: the tags of a run, what a stopped run looks like, and runs whose process has died. Does not belong here:
which job runs on what (the commands).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from cer_pipeline.stopping import is_interrupt

if TYPE_CHECKING:
    from dagster import DagsterInstance, ExecuteInProcessResult

PID_TAG = "cer/pid"
HOST_TAG = "cer/host"
QUIET_LOGS = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def execute(opened: DagsterInstance, job: Any, config: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run a job; failed steps are in the result.

    Args:
        opened: the instance.
        job: a job definition.
        config: run configuration beside quiet logs.
        options: of `execute_in_process`.

    Raises:
        KeyboardInterrupt: it was stopped by hand.
    """
    from dagster import DagsterExecutionInterruptedError

    try:
        result = job.execute_in_process(
            instance=opened,
            run_config={**QUIET_LOGS, **(config or {})},
            tags={PID_TAG: str(os.getpid()), HOST_TAG: socket.gethostname()},
            raise_on_error=False,
            **options,
        )
    except DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None
    if was_stopped(result):
        raise KeyboardInterrupt
    return result


def was_stopped(result: ExecuteInProcessResult) -> bool:
    """Whether a run ended because somebody pressed Ctrl-C, which Dagster turns into the failure of a step."""
    failures = (event.event_specific_data for event in result.all_events if event.is_failure)
    return any(is_interrupt(getattr(data, "error", None)) for data in failures)


def close_dead_runs(opened: DagsterInstance) -> None:
    """Mark runs as failed whose process on this machine has died, so that none seems to run for ever."""
    from dagster import DagsterRunStatus, RunsFilter

    active = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED])
    for run in opened.get_runs(filters=active):
        pid = run.tags.get(PID_TAG, "")
        if run.tags.get(HOST_TAG) == socket.gethostname() and pid.isdigit() and not _alive(int(pid)):
            opened.report_run_failed(run, f"its process {pid} has ended; what it had computed is kept")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
