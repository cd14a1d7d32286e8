"""The one path on which commands run Dagster jobs.

Belongs here: preparing the instance and the definitions, running a job in this process, typed results, and closing
runs whose process has ended. Does not belong here: which job runs with which assets (the commands).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cer_pipeline.cli.stopping import is_interrupt
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE

if TYPE_CHECKING:
    import dagster as dg

    from cer_pipeline.cli.progress import TerminalProgress
    from cer_pipeline.store.home import Home

PID_TAG = "cer/pid"
HOST_TAG = "cer/host"
QUIET_LOGS = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class StepFailure:
    """A step that failed.

    Args:
        step: step key, the path of the asset joined by two underscores.
        reason: one line: that of the CerError or of the blocking check, else type and message of the innermost error.
        expected: whether the reason is a CerError or a blocking check, which name the next step themselves.
    """

    step: str
    reason: str
    expected: bool

    def error(self) -> CerError:
        """Return the failure as the error of a command."""
        return CerError(self.reason, then="" if self.expected else "`cer ui` shows the run")


@dataclass(frozen=True)
class JobResult:
    """The end of a run.

    Args:
        run_id: id of the run in the Dagster instance.
        failures: the steps that failed, in order.
        interrupted: whether Ctrl-C ended the run; Dagster reports it as the failure of a step.
    """

    run_id: str
    failures: tuple[StepFailure, ...] = ()
    interrupted: bool = False

    @classmethod
    def of(cls, result: dg.ExecuteInProcessResult) -> JobResult:
        """Return the typed form of a result of Dagster."""
        errors = [getattr(event.event_specific_data, "error", None) for event in result.all_events if event.is_failure]
        return cls(result.run_id, tuple(_failures(result)), any(map(is_interrupt, errors)))

    def require_success(self) -> None:
        """Check that no step failed.

        Raises:
            CerError: the first failure.
        """
        for failure in self.failures:
            raise failure.error()


@dataclass(frozen=True)
class Launcher:
    """Runs jobs of a set of definitions in the instance that `cer ui` shows."""

    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def run(
        self,
        job_name: str,
        assets: Sequence[dg.AssetKey] | None = None,
        partition: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> JobResult:
        """Run a job in this process and wait for its end.

        Args:
            job_name: one of `assets.jobs`.
            assets: the assets to materialise; all assets of the job by default.
            partition: partition key, added to the instance where it is new.
            config: run configuration of the ops.

        Raises:
            KeyboardInterrupt: Ctrl-C ended the run.
        """
        job = self.definitions.resolve_job_def(job_name)
        if partition is not None:
            self.instance.add_dynamic_partitions(getattr(job.partitions_def, "name"), [partition])  # noqa: B009
        return execute(self.instance, job, config or {}, asset_selection=assets, partition_key=partition)


@contextlib.contextmanager
def launcher(
    home: Home,
    progress: TerminalProgress | None = None,
    profile: str = DEFAULT_PROFILE,
    overrides: Sequence[str] = (),
) -> Iterator[Launcher]:
    """Open the instance of a home folder and load the definitions for it.

    Args:
        home: the home folder.
        progress: listener of the run; the log of the run by default.
        profile: name of the profile.
        overrides: settings over the profile.

    Raises:
        CerError: unknown profile or setting.
    """
    from cer_pipeline.cli.dagster_home import instance

    with instance(home) as opened:
        from cer_pipeline.definitions import build_definitions
        from resources.settings import Settings

        close_dead_runs(opened)
        settings = Settings(profile=profile, overrides=list(overrides), home=str(home.root))
        yield Launcher(opened, build_definitions(settings, {"progress": progress} if progress else None))


def execute(
    opened: dg.DagsterInstance, job: dg.JobDefinition, config: Mapping[str, Any] | None = None, **options: Any
) -> JobResult:
    """Run a job in this process; failed steps are in the result.

    Args:
        opened: the instance.
        job: the job.
        config: run configuration, to which quiet logs are added.
        options: further arguments of `execute_in_process`.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the run.
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
    typed = JobResult.of(result)
    if typed.interrupted:
        raise KeyboardInterrupt
    return typed


def _failures(result: dg.ExecuteInProcessResult) -> Iterator[StepFailure]:
    blocking = {  # a check that blocks is a step of its own; its failure is reported for the table
        f"{check.asset_key.to_python_identifier()}_{check.check_name}": (
            "__".join(check.asset_key.path),
            check.description,
        )
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.blocking and check.description
    }
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        failure = event.step_failure_data
        step, declared = str(event.step_key), failure.user_failure_data
        step, expected = blocking.get(step, (step, declared.description if declared else None))
        if expected:
            yield StepFailure(step, expected, expected=True)
        elif error := failure.error:
            while error.cause:
                error = error.cause
            yield StepFailure(step, " ".join(error.message.split()), expected=False)


def close_dead_runs(opened: dg.DagsterInstance) -> None:
    """Mark runs as failed whose process on this machine has ended, so that none stays in the state "started"."""
    from dagster import DagsterRunStatus, RunsFilter

    active = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED])
    for run in opened.get_runs(filters=active):
        pid = run.tags.get(PID_TAG, "")
        if run.tags.get(HOST_TAG) == socket.gethostname() and pid.isdigit() and not _is_running(int(pid)):
            opened.report_run_failed(run, f"process {pid} has ended; the results that it had computed are kept")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
