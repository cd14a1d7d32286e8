"""Materialise one shard of one table: look up, compute what is missing, assemble, validate, commit.

Belongs here: the order of these steps and the isolation of failures. Does not belong here: scheduling (Dagster and
`pipeline`) or any computation (the stages).

1. The stage's plan lists the units of the shard with a digest of what each is computed from.
2. A row key is the digest of the stage's fingerprint (code version, settings, weights), the unit and its inputs.
3. If the table on disk answers this very plan, nothing is done.
4. Rows whose keys are in the cache are taken from it; the others are computed in chunks, and each chunk is cached as
   soon as it is done.
5. The table is assembled from the cache in key order, checked, and renamed into place.

So a crash loses at most one chunk, returning to an earlier setting computes nothing, and the same inputs give the same
bytes whatever was run in between.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cer_pipeline.arrow import pc
from cer_pipeline.errors import CerError, ModelUnavailable
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Engine, Inputs, StageContext, StageSpec, Weights, placeholder_rows
from cer_pipeline.status import RETRIED, Status
from cer_pipeline.store.cache import RowCache, read_rows
from cer_pipeline.store.files import exclusive
from cer_pipeline.store.fingerprint import digest, row_key, stage_fingerprint
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import Footer, add_store_columns, read_footer, sort_order, write_table

Progress = Callable[[int, int], None]
"""Called with (units done, units to compute)."""


@dataclass(frozen=True)
class Report:
    """Result of one materialisation.

    Args:
        table: table name.
        corpus: corpus name.
        shard: shard label.
        footer: footer of the table file.
        cached: number of units that were taken from the cache or from the unchanged table.
        computed: number of units that were computed.
        unchanged: whether the table on disk already answered the plan, so that nothing was written.
        counters: counters of the stage (frames decoded, model calls).
        seconds: wall-clock time, s.
    """

    table: str
    corpus: str
    shard: str
    footer: Footer
    cached: int
    computed: int
    unchanged: bool
    counters: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Work:
    """The plan of one shard of one table, with row keys.

    Args:
        spec: the stage.
        inputs: the tables and files of the shard.
        profile: settings.
        weights: verified weights.
        fingerprint: digest of the stage, see `stage_fingerprint`.
        plan: one row for each unit.
        keys: unit -> row key, in the order of the plan.
    """

    spec: StageSpec
    inputs: Inputs
    profile: Profile
    weights: Weights
    fingerprint: str
    plan: pa.Table
    keys: dict[str, str] = field(repr=False)

    @property
    def digest(self) -> str:
        """Digest of the whole plan: equal digests mean equal tables."""
        return digest(self.fingerprint, *self.keys.values())


def prepare(spec: StageSpec, inputs: Inputs, profile: Profile, weights: Weights) -> Work:
    """Plan one shard of one table.

    Args:
        spec: the stage.
        inputs: the tables and files of the shard.
        profile: settings.
        weights: verified weights.

    Raises:
        CerError: a table that the stage reads has not been materialised.
        ValueError: the plan names a unit twice.
    """
    plan = spec.plan(inputs, profile)
    fingerprint = stage_fingerprint(spec, profile, weights)
    units: list[str] = plan.column(UNIT).to_pylist()
    digests: list[str] = plan.column(INPUTS).to_pylist()
    if len(set(units)) != len(units):
        raise ValueError(f"{spec.name}: the plan names a unit twice")
    keys = {unit: row_key(fingerprint, unit, content) for unit, content in zip(units, digests, strict=True)}
    return Work(spec, inputs, profile, weights, fingerprint, plan, keys)


def is_current(work: Work, home: Home) -> bool:
    """Return whether the table on disk answers the plan and holds no row that must be computed again."""
    return _current_footer(work, home) is not None


def _current_footer(work: Work, home: Home) -> Footer | None:
    footer = read_footer(home.table(work.spec.name, work.inputs.corpus, work.inputs.shard))
    is_answer = footer is not None and footer.plan == work.digest and not RETRIED & footer.by_status.keys()
    return footer if is_answer else None


def materialise(
    spec: StageSpec,
    home: Home,
    inputs: Inputs,
    profile: Profile,
    weights: Weights,
    engine: Engine,
    run_id: str,
    progress: Progress | None = None,
) -> Report:
    """Materialise one shard of one table.

    Args:
        spec: the stage.
        home: the home folder.
        inputs: the tables and files of the shard.
        profile: settings.
        weights: verified weights.
        engine: computes the missing units with the stage.
        run_id: run that is recorded as the origin of computed rows.
        progress: called after each chunk.

    Raises:
        CerError: an input table is missing, the disk is full, or the home folder cannot be written to.
    """
    started = time.monotonic()
    corpus, shard = inputs.corpus, inputs.shard
    missing: list[str] = []
    counters: Counter[str] = Counter()
    with exclusive(home.lock(spec.name, corpus, shard)):
        work = prepare(spec, inputs, profile, weights)
        current = _current_footer(work, home)
        if current is None:
            cache = RowCache(home.cache(spec.name, work.fingerprint, corpus, shard))
            index = cache.index()
            missing = [unit for unit, key in work.keys.items() if key not in index]
            uncached = _compute(work, missing, cache, counters, engine, run_id, progress)
            footer = _assemble(work, cache, uncached, home)
        else:
            footer = current
    return Report(
        spec.name,
        corpus,
        shard,
        footer,
        cached=len(work.keys) - len(missing),
        computed=0 if _absent_models(work) else len(missing),
        unchanged=current is not None,
        counters=dict(sorted(counters.items())),
        seconds=time.monotonic() - started,
    )


def _absent_models(work: Work) -> list[str]:
    return [model for model in work.spec.models if work.weights.digest(model) is None]


def _absence(work: Work, models: list[str]) -> str:
    """Return the reason of rows without a value: the models that are absent, and the commands that bring them."""
    pulled, steps = [], []
    for model in models:
        try:
            work.weights.path(model)
        except ModelUnavailable as error:
            pulled += [model] * error.pulled
            steps += [] if error.pulled else [error.then]
        except CerError as error:
            steps.append(error.then or error.what)
    pull = [f"run `cer models pull {' '.join(pulled)}`"] if pulled else []
    return f"{', '.join(models)}: not on this machine; {'; '.join([*pull, *steps])}"


def _compute(
    work: Work,
    missing: list[str],
    cache: RowCache,
    counters: Counter[str],
    engine: Engine,
    run_id: str,
    progress: Progress | None,
) -> dict[str, pa.Table]:
    """Compute the missing units into the cache; return the rows of the units that must not be cached."""
    if not missing:
        return {}
    chosen = work.plan.filter(pc.is_in(work.plan.column(UNIT), value_set=pa.array(missing, pa.string())))
    if absent := _absent_models(work):
        return _placeholders(work, chosen, Status.MODEL_UNAVAILABLE, _absence(work, absent))
    context = StageContext(work.profile, work.weights, work.inputs, counters)
    uncached: dict[str, pa.Table] = {}
    done = 0
    size = 1 if work.spec.table.blob else work.spec.chunk_units
    for units, rows, failures in engine(work.spec, context, chosen, size):
        if rows is not None:
            cacheable, retried = _split_retried(work.spec, add_store_columns(work.spec.table, rows, work.keys))
            complete = [u for u in units.column(UNIT).to_pylist() if u not in failures and u not in retried]
            cache.append(cacheable, [work.keys[u] for u in complete], run_id)
            uncached |= retried
        for unit, reason in failures.items():
            failed = units.filter(pc.equal(units.column(UNIT), unit))
            uncached |= _placeholders(work, failed, Status.FAILED, reason)
        done += units.num_rows
        if progress:
            progress(done, len(missing))
    return uncached


def _placeholders(work: Work, units: pa.Table, status: Status, reason: str) -> dict[str, pa.Table]:
    tables = {}
    for unit in units.to_pylist():
        rows = pa.Table.from_pylist(placeholder_rows(work.spec, unit, status, reason), schema=work.spec.table.schema)
        tables[unit[UNIT]] = add_store_columns(work.spec.table, rows, work.keys)
    return tables


def _split_retried(spec: StageSpec, rows: pa.Table) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Split rows into those to cache, and those of each unit with a row that must be computed again."""
    units = rows.column(spec.table.unit)
    retried = pc.is_in(rows.column("status"), value_set=pa.array(sorted(RETRIED), pa.string()))
    names = pc.unique(units.filter(retried))
    if not len(names):
        return rows, {}
    cacheable = rows.filter(pc.invert(pc.is_in(units, value_set=names)))
    return cacheable, {name: rows.filter(pc.equal(units, name)) for name in names.to_pylist()}


def _assemble(work: Work, cache: RowCache, uncached: dict[str, pa.Table], home: Home) -> Footer:
    spec = work.spec.table
    index = cache.index()
    without_rows = [unit for unit, key in work.keys.items() if key not in index and unit not in uncached]
    if without_rows:
        what = f"{len(without_rows)} units of {spec.name} have no rows"
        raise CerError(what, without_rows[0], "run again; nothing is lost")
    path = home.table(spec.name, work.inputs.corpus, work.inputs.shard)
    return write_table(path, spec, _pieces(work, index, uncached), work.digest, len(work.keys))


def _pieces(work: Work, index: dict[str, Path], uncached: dict[str, pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of a table in key order: one piece for each unit of a blob table, otherwise a single piece."""
    spec = work.spec.table
    if spec.blob:
        for unit in sorted(work.keys):
            if unit in uncached:
                yield uncached[unit]
            else:
                yield read_rows(index[work.keys[unit]], [work.keys[unit]]).sort_by(sort_order(spec))
        return
    by_file: dict[Path, list[str]] = {}
    for unit, key in work.keys.items():
        if unit not in uncached:
            by_file.setdefault(index[key], []).append(key)
    parts = [*(read_rows(path, keys) for path, keys in by_file.items()), *uncached.values()]
    schema = spec.stored_schema.remove_metadata()
    aligned = [part.replace_schema_metadata(None).select(schema.names).cast(schema) for part in parts]
    yield pa.concat_tables([schema.empty_table(), *aligned]).sort_by(sort_order(spec))
