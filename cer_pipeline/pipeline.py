"""The whole pipeline as a list of stages, and what of it is out of date.

Belongs here: collecting the stages of all layers in order, and comparing plans with the tables on disk.
Does not belong here: running (`store.materialise`) or wiring into Dagster (`assets`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Final

from cer_pipeline.branches.registry import branches
from cer_pipeline.corpora.labels.specs import STAGES as LABEL_STAGES
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.specs import combinations_of, fusion_stages
from cer_pipeline.media.specs import STAGES as MEDIA_STAGES
from cer_pipeline.perception.specs import perception_stages
from cer_pipeline.predictions.specs import compound_stages
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import StageSpec, Weights
from cer_pipeline.store.cache import RowCache
from cer_pipeline.store.home import Home
from cer_pipeline.store.materialise import Work, is_current, prepare
from cer_pipeline.store.parquet import Footer, read_footer

SHOWN_TABLES: Final = 3
"""Tables that a refusal names: enough to recognise the setting."""


class State(StrEnum):
    """How the table of a shard stands to its plan."""

    CURRENT = "current"
    STALE = "stale"  # inputs, settings, weights or code have changed, or rows have failed
    MISSING = "missing"


@dataclass(frozen=True)
class TableState:
    """One shard of one table: how it stands, what it says about itself, and how much of it the cache holds.

    Args:
        table: table name.
        corpus: corpus name.
        shard: shard label.
        state: see `State`.
        footer: of the table on disk; None where missing.
        units: units in the plan; None where an input table is missing.
        cached: units of the plan whose rows lie in the cache; None where an input table is missing.
    """

    table: str
    corpus: str
    shard: str
    state: State
    footer: Footer | None
    units: int | None
    cached: int | None


def stages(profile: Profile) -> tuple[StageSpec, ...]:
    """All stages of a profile, every stage after those that it reads.

    Raises:
        CerError: a branch or a combination of branches that does not exist.
        ValueError: two stages make one table, a stage reads a table that nobody makes, or the graph has a cycle.
    """
    enabled = branches(profile)
    specs: list[StageSpec] = [*MEDIA_STAGES, *LABEL_STAGES, *perception_stages(profile)]
    for branch in enabled:
        specs += [*branch.extra, branch.features, branch.probabilities]
        specs += [branch.samples] if branch.samples else []
    combinations = combinations_of(profile, [branch.name for branch in enabled])
    specs += fusion_stages(enabled, profile["fusion"]["method"], combinations)
    specs += compound_stages(enabled, combinations)
    return in_order(specs)


def models_of(specs: Iterable[StageSpec]) -> list[str]:
    """Zoo ids of all weights that stages need or can use, each once, in the order of the stages."""
    return list(dict.fromkeys(model for spec in specs for model in (*spec.models, *spec.optional_models)))


def changed_tables(loaded: Sequence[StageSpec], now: Sequence[StageSpec]) -> list[str]:
    """Tables that one list of stages has and the other has not, or that differ in their inputs or columns; sorted."""
    first, second = ({spec.name: (spec.inputs, spec.table.schema) for spec in specs} for specs in (loaded, now))
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def stage_under(profile: Profile, name: str, loaded: Sequence[StageSpec]) -> StageSpec:
    """The stage that makes a table under the settings of a run.

    Settings may change which weights a stage needs, and so its keys; the stage is therefore looked up anew in the
    stages of the run's profile. They must not change the graph: its assets were made when the definitions were loaded.

    Args:
        profile: the settings that the run was launched with.
        name: table name.
        loaded: the stages that the definitions were made of.

    Raises:
        CerError: these settings make other tables than the loaded graph.
    """
    now = stages(profile)
    if changed := changed_tables(loaded, now):
        shown = ", ".join(changed[:SHOWN_TABLES]) + (", ..." if len(changed) > SHOWN_TABLES else "")
        then = "write them to settings.toml and reload the code location, or use `cer run --set`"
        raise CerError("the settings of this run make another graph than the one that is loaded", shown, then)
    return next(spec for spec in now if spec.name == name)


def recomputed(specs: Sequence[StageSpec], section: str) -> tuple[list[str], list[str]]:
    """What is computed anew when a setting of a profile section changes.

    Args:
        specs: all stages, every stage after those that it reads.
        section: of the profile.

    Returns:
        Tables whose rows are computed anew, and tables after these, which are computed anew where what they read comes
        out with another content.
    """
    first = [spec.name for spec in specs if section in spec.config]
    later: list[str] = []
    for spec in specs:
        if spec.name not in first and not {*first, *later}.isdisjoint(spec.inputs):
            later.append(spec.name)
    return first, later


def in_order(specs: Iterable[StageSpec]) -> tuple[StageSpec, ...]:
    """Stages in an order in which every stage follows those that it reads; a stage named twice stands once."""
    by_name: dict[str, StageSpec] = {}
    for spec in specs:
        if by_name.setdefault(spec.name, spec) is not spec:
            raise ValueError(f"two stages make the table {spec.name}")
    for spec in by_name.values():
        unknown = [name for name in spec.inputs if name not in by_name]
        if unknown:
            raise ValueError(f"{spec.name} reads {', '.join(unknown)}, which no stage makes")
    try:
        order = TopologicalSorter({spec.name: spec.inputs for spec in by_name.values()}).static_order()
        return tuple(by_name[name] for name in order)
    except CycleError as error:
        raise ValueError(f"the stages form a cycle: {error.args[1]}") from error


def table_states(
    specs: Sequence[StageSpec], home: Home, profile: Profile, weights: Weights, corpus: str, shards: Iterable[str]
) -> list[TableState]:
    """How every table of some shards stands, in the order of the stages."""
    out = []
    for shard in shards:
        pending: set[str] = set()
        for spec in specs:
            state = _state(spec, home, profile, weights, corpus, shard, bool(pending & set(spec.inputs)))
            if state.state is not State.CURRENT:
                pending.add(spec.name)
            out.append(state)
    return out


def _state(
    spec: StageSpec, home: Home, profile: Profile, weights: Weights, corpus: str, shard: str, upstream_pending: bool
) -> TableState:
    footer = read_footer(home.table(spec.name, corpus, shard))
    readable = all(home.table(name, corpus, shard).is_file() for name in spec.inputs)
    work = prepare(spec, ShardInputs(home, corpus, shard), profile, weights) if readable else None
    if footer is None:
        state = State.MISSING
    elif upstream_pending or work is None or not is_current(work, home):
        state = State.STALE
    else:
        state = State.CURRENT
    units = None if work is None else len(work.keys)
    return TableState(spec.name, corpus, shard, state, footer, units, None if work is None else _cached(work, home))


def _cached(work: Work, home: Home) -> int:
    known = RowCache(home.cache(work.spec.name, work.fingerprint, work.inputs.corpus, work.inputs.shard)).index()
    return sum(key in known for key in work.keys.values())
