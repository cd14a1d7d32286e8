"""Making one shard of one table: look up, compute what is missing, assemble, validate, commit.

Belongs here: the order of these steps and the isolation of failures. Does not belong here: scheduling (Dagster and
`pipeline`) or any computation (the stages).

1. The stage's plan lists the units of the shard with a digest of what each is computed from.
2. A row key is the digest of the stage's fingerprint (code version, settings, weights), the unit and its inputs.
3. If the table on disk answers this very plan, nothing is done.
4. Keys in the cache are taken from it; the others are computed in chunks, each kept as soon as it is done.
5. The table is assembled from the cache in key order, checked, and renamed into place.

So a crash loses at most one chunk, an earlier setting costs nothing to return to, and the same inputs give the same
bytes whatever happened in between.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from cer_pipeline.arrow import pc
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import INPUTS, UNIT, Engine, Inputs, StageContext, StageSpec, Weights, placeholder_rows
from cer_pipeline.status import RETRIED, Status
from cer_pipeline.store.cache import RowCache, read_rows
from cer_pipeline.store.files import exclusive
from cer_pipeline.store.fingerprint import content_digests, digest, row_key, stage_fingerprint
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import Footer, conform, read_footer, write_table

Progress = Callable[[int, int], None]
"""Called with (units done, units to compute)."""


@dataclass(frozen=True)
class Report:
    """What one materialisation did.

    Args:
        table: table name.
        corpus: corpus name.
        shard: shard label.
        footer: what the table says about itself now.
        cached: units that were taken from the cache or from the unchanged table.
        computed: units that were computed.
        unchanged: whether the table on disk already answered the plan, so that nothing was written.
        counters: what the stage counted (frames decoded, model calls).
        seconds: wall-clock time.
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
    """The plan of one shard of one table, with keys."""

    spec: StageSpec
    inputs: Inputs
    profile: Profile
    weights: Weights
    fingerprint: str
    plan: pa.Table
    keys: dict[str, str] = field(repr=False)  # unit -> row key, in key order

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
        CerError: a table that the stage reads has not been made.
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
    """Whether the table on disk answers the plan and holds no row that must be tried again."""
    footer = read_footer(home.table(work.spec.name, work.inputs.corpus, work.inputs.shard))
    return footer is not None and footer.plan == work.digest and not RETRIED & footer.by_status.keys()


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
    """Make one shard of one table.

    Args:
        spec: the stage.
        home: the home folder.
        inputs: the tables and files of the shard.
        profile: settings.
        weights: verified weights.
        engine: puts the units that are missing through the stage.
        run_id: run that is noted as the origin of computed rows.
        progress: told after each chunk.

    Raises:
        CerError: an input table is missing, the disk is full, or the home folder cannot be written to.
    """
    started = time.monotonic()
    corpus, shard = inputs.corpus, inputs.shard
    with exclusive(home.lock(spec.name, corpus, shard)):
        work = prepare(spec, inputs, profile, weights)
        path = home.table(spec.name, corpus, shard)
        if is_current(work, home):
            footer = read_footer(path)
            assert footer is not None
            return Report(spec.name, corpus, shard, footer, len(work.keys), 0, True, {}, time.monotonic() - started)
        cache = RowCache(home.cache(spec.name, work.fingerprint, corpus, shard))
        known = cache.index()
        missing = [unit for unit, key in work.keys.items() if key not in known]
        counters: Counter[str] = Counter()
        blanks = _compute(work, missing, cache, counters, engine, run_id, progress)
        footer = _assemble(work, cache, blanks, home)
    computed = len(missing) - (len(missing) if _unavailable(work) else 0)
    return Report(
        spec.name,
        corpus,
        shard,
        footer,
        len(work.keys) - len(missing),
        computed,
        False,
        dict(sorted(counters.items())),
        time.monotonic() - started,
    )


def _unavailable(work: Work) -> list[str]:
    return [model for model in work.spec.models if work.weights.digest(model) is None]


def _compute(
    work: Work,
    missing: list[str],
    cache: RowCache,
    counters: Counter[str],
    engine: Engine,
    run_id: str,
    progress: Progress | None,
) -> dict[str, pa.Table]:
    """Compute the missing units into the cache; return the rows of units that must not be kept."""
    if not missing:
        return {}
    chosen = work.plan.filter(pc.is_in(work.plan.column(UNIT), value_set=pa.array(missing, pa.string())))
    absent = _unavailable(work)
    if absent:
        reason = f"{', '.join(absent)}: not on this machine; run `cer models pull`, or train the head"
        return _blanks(work, chosen, Status.MODEL_UNAVAILABLE, reason)
    context = StageContext(work.profile, work.weights, work.inputs, counters)
    blanks: dict[str, pa.Table] = {}
    done = 0
    size = 1 if work.spec.table.blob else work.spec.chunk_units
    for units, rows, failures in engine(work.spec, context, chosen, size):
        kept, dropped = _split(work.spec, _stamped(work, rows)) if rows is not None else (None, {})
        if kept is not None:
            done_units = [u for u in units.column(UNIT).to_pylist() if u not in failures and u not in dropped]
            cache.append(kept, [work.keys[u] for u in done_units], run_id)
            blanks |= dropped
        for unit, reason in failures.items():
            blanks |= _blanks(work, units.filter(pc.equal(units.column(UNIT), unit)), Status.FAILED, reason)
        done += units.num_rows
        if progress:
            progress(done, len(missing))
    return blanks


def _blanks(work: Work, units: pa.Table, status: Status, reason: str) -> dict[str, pa.Table]:
    out = {}
    for unit in units.to_pylist():
        rows = pa.Table.from_pylist(placeholder_rows(work.spec, unit, status, reason), schema=work.spec.table.schema)
        out[unit[UNIT]] = _stamped(work, rows)
    return out


def _stamped(work: Work, rows: pa.Table) -> pa.Table:
    """Rows in key order with the store's columns."""
    spec = work.spec.table
    table = conform(spec, rows).sort_by([(name, "ascending") for name in spec.key])
    units: list[str] = table.column(spec.unit).to_pylist()
    starts = [i for i, unit in enumerate(units) if i == 0 or unit != units[i - 1]]
    digests = content_digests(table, starts)
    lengths = [stop - start for start, stop in pairwise([*starts, len(units)])]
    content = [d for d, n in zip(digests, lengths, strict=True) for _ in range(n)]
    table = table.append_column("row_key", pa.array([work.keys[unit] for unit in units], pa.string()))
    return table.append_column("content", pa.array(content, pa.string()))


def _split(spec: StageSpec, rows: pa.Table) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Rows of units to keep, and of each unit that has a row to be tried again."""
    again = rows.filter(pc.is_in(rows.column("status"), value_set=pa.array(sorted(RETRIED), pa.string())))
    if not again.num_rows:
        return rows, {}
    unit = rows.column(spec.table.unit)
    names = pc.unique(again.column(spec.table.unit))
    kept = rows.filter(pc.invert(pc.is_in(unit, value_set=names)))
    return kept, {name: rows.filter(pc.equal(unit, name)) for name in names.to_pylist()}


def _assemble(work: Work, cache: RowCache, blanks: dict[str, pa.Table], home: Home) -> Footer:
    spec = work.spec.table
    index = cache.index()
    unfinished = [unit for unit, key in work.keys.items() if key not in index and unit not in blanks]
    if unfinished:
        what = f"{len(unfinished)} units of {spec.name} have no rows"
        raise CerError(what, unfinished[0], "run again; nothing is lost")
    path = home.table(spec.name, work.inputs.corpus, work.inputs.shard)
    return write_table(path, spec, _pieces(work, index, blanks), work.digest, len(work.keys))


def _pieces(work: Work, index: dict[str, Path], blanks: dict[str, pa.Table]) -> Iterator[pa.Table]:
    """The table's rows in key order: one piece a unit for blob tables, one piece in all otherwise."""
    spec = work.spec.table
    order = [(name, "ascending") for name in spec.key]
    if spec.blob:
        for unit in sorted(work.keys):
            if unit in blanks:
                yield blanks[unit]
            else:
                yield read_rows(index[work.keys[unit]], [work.keys[unit]]).sort_by(order)
        return
    by_file: dict[Path, list[str]] = {}
    for unit, key in work.keys.items():
        if unit not in blanks:
            by_file.setdefault(index[key], []).append(key)
    parts = [read_rows(path, keys) for path, keys in by_file.items()]
    parts += list(blanks.values())
    empty = work.spec.table.stored_schema.remove_metadata().empty_table()
    yield pa.concat_tables([_plain(part, empty.schema) for part in parts] or [empty]).sort_by(order)


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.replace_schema_metadata(None).select(schema.names).cast(schema)
