"""The asset checks of the tables.

Belongs here: one factory a check, which reads the stored table of a shard, so that the UI can run a check alone. Does
not belong here: the rules that are checked (`store.row_coverage`, `corpora.leaks`).
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from assets.keys import asset_key
from assets.partitions import corpus_shards
from assets.step_errors import step_errors
from assets.unstable import unstable_interfaces
from cer_pipeline.corpora.labels.specs import LABELS
from cer_pipeline.corpora.leak_check import leaks_of
from cer_pipeline.stage import StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.row_coverage import EXAMPLES, missing_and_unexpected
from resources.tables import Tables

ROWS_CONSERVED = "rows_conserved"
NO_FAILURES = "no_failures"
NO_LEAK = "no_leak"
SHOWN_LEAKS = 20  # enough to recognise the cause; the event log keeps every line


def table_checks(specs: Sequence[StageSpec]) -> list[dg.AssetChecksDefinition]:
    """Return the checks that every table has: `rows_conserved` and `no_failures`."""
    return [check for spec in specs for check in (rows_conserved(spec), no_failures(spec))]


def rows_conserved(spec: StageSpec) -> dg.AssetChecksDefinition:
    """Return the blocking check that a table has a row for every unit, and no other row."""

    @_table_check(
        spec.name,
        ROWS_CONSERVED,
        "The table has a row for every unit that it must answer for, and no other row.",
        blocking=True,
    )
    def check(context: dg.AssetCheckExecutionContext, tables: Tables) -> dg.AssetCheckResult:
        with step_errors():
            missing, unexpected = missing_and_unexpected(spec, tables.inputs(context.partition_key))
        counted = (("missing", missing), ("unexpected", unexpected))
        problems = [f"{len(keys)} {name}, first {keys[0]}" for name, keys in counted if keys]
        return dg.AssetCheckResult(
            passed=not problems,
            description=f"rows of {spec.name}: {'; '.join(problems) or 'complete'}",
            metadata={name: dg.MetadataValue.json(keys[:EXAMPLES]) for name, keys in counted},
        )

    return check


def no_failures(spec: StageSpec) -> dg.AssetChecksDefinition:
    """Return the check that no row of a table has the status `failed`; it warns and does not block."""

    @_table_check(
        spec.name,
        NO_FAILURES,
        "No row has the status `failed`, which stands for an unforeseen error. The next run computes such rows again.",
    )
    def check(context: dg.AssetCheckExecutionContext, tables: Tables) -> dg.AssetCheckResult:
        with step_errors():
            statuses = tables.inputs(context.partition_key).table(spec.name, ["status"]).column("status").to_pylist()
        failed = statuses.count(Status.FAILED)
        return dg.AssetCheckResult(
            passed=failed == 0, severity=dg.AssetCheckSeverity.WARN, metadata={"failed": failed, "rows": len(statuses)}
        )

    return check


def no_leak() -> dg.AssetChecksDefinition:
    """Return the blocking check on `labels` that no row of training is held out, in this corpus or another."""

    @_table_check(
        LABELS.name,
        NO_LEAK,
        "No source clip and no copy is in two splits, no id spells a label, no held-out row is in training.",
        blocking=True,
    )
    def check(context: dg.AssetCheckExecutionContext, tables: Tables) -> dg.AssetCheckResult:
        with step_errors():
            leaks = leaks_of(tables.inputs(context.partition_key))
        problem = f"{len(leaks)} leaks, first {leaks[0]} - take it out of one of the splits" if leaks else ""
        return dg.AssetCheckResult(
            passed=not leaks,
            description=problem or "no leak",
            metadata={"leaks": dg.MetadataValue.json(leaks[:SHOWN_LEAKS]), "count": len(leaks)},
        )

    return check


def _table_check(
    table: str, name: str, description: str, blocking: bool = False
) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
    def decorate(function: Callable[..., Any]) -> dg.AssetChecksDefinition:
        with unstable_interfaces():  # partitions of checks
            return dg.asset_check(
                asset=asset_key(table),
                name=name,
                description=description,
                blocking=blocking,
                partitions_def=corpus_shards,
            )(function)

    return decorate
