"""`cer run`: launch Dagster runs for what is out of date.

Belongs here: choosing assets, launching, showing progress, the closing summary. Does not belong here: making tables.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cer_pipeline.cli.launch import close_dead_runs, execute
from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import print_json, print_table, safe, say, status_counts
from cer_pipeline.cli.progress import reading, steps
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE

if TYPE_CHECKING:
    from cer_pipeline.corpora.registry import Corpus
    from cer_pipeline.pipeline import TableState
    from cer_pipeline.store.home import Home
    from cer_pipeline.store.materialise import Report

EXIT_FAILED_UNITS = 1
PLAIN_SELECTION = re.compile(r"(\+?)([a-z0-9_/]+)(\+?)")


@dataclass(frozen=True)
class Absent:
    """The folder of a corpus, where it cannot be looked into.

    Args:
        why: see `registry.why_absent`; empty where it can.
        root: the folder.
        reading: tables and shards that cannot be made without it.
    """

    why: str
    root: str
    reading: set[tuple[str, str]]


@dataclass
class Outcome:
    """What a `cer run` did.

    Args:
        corpus: corpus name.
        runs: Dagster run ids, one a shard that had something to do.
        reports: one for every table that was materialised.
        broken: tables that could not be made, with the reason.
        states: how every table stands afterwards.
    """

    corpus: str
    runs: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    states: list[TableState] = field(default_factory=list)

    @property
    def counters(self) -> Counter[str]:
        """Sums over all tables: videos and frames decoded, calls of each model."""
        total: Counter[str] = Counter()
        for report in self.reports:
            total.update(report.counters)
        return total

    @property
    def failed_rows(self) -> int:
        """Rows with status failed, over all tables."""
        return sum(s.footer.by_status.get("failed", 0) for s in self.states if s.footer)


def run(
    name: Annotated[str, typer.Argument(help="The corpus.")],
    select: Annotated[
        str,
        typer.Option(
            "--select",
            help='Asset selection: "faces+" with all that follows, "+fused" with all before, "group:fusion".',
        ),
    ] = "*",
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Make every table of a corpus that is missing or out of date."""
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    outcome = run_corpus(home, name, profile, set_ or [], select, quiet=json)
    if json:
        print_json(as_json(outcome))
    else:
        summarise(outcome)
    tell_tracks(home, name)
    if outcome.broken or outcome.failed_rows:
        raise typer.Exit(EXIT_FAILED_UNITS)


def run_corpus(
    home: Home, name: str, profile: str, overrides: list[str], select: str = "*", quiet: bool = False
) -> Outcome:
    """Launch one Dagster run for every shard of a corpus that has something to do.

    Raises:
        CerError: unknown corpus, setting or selection; disk full.
    """
    from cer_pipeline.corpora import registry
    from cer_pipeline.media.specs import AUDIO, FRAMES, VIDEOS
    from cer_pipeline.pipeline import State, stages, table_states
    from cer_pipeline.zoo import open_zoo

    settings = settings_of(home, profile, overrides)
    if branch := registry.load(home.root, name).trains:
        raise CerError(
            "the corpus has no videos, it is for training", name, f"run `cer train {branch} --corpora {name}`"
        )
    absent = refresh(home, name, quiet)
    corpus = registry.load(home.root, name)
    specs, zoo = stages(settings), open_zoo(heads=home.heads)
    before = table_states(specs, home, settings, zoo, name, corpus.shard_labels())
    pending = [s for s in before if s.state is not State.CURRENT]
    outcome = Outcome(name, states=before)
    if pending:
        media = [spec.name for spec in (VIDEOS, FRAMES, AUDIO)] if absent and corpus.has_media else []
        reading = {(s.table, s.shard) for s in pending if s.table in media and (s.units is None or s.cached != s.units)}
        _launch(home, outcome, pending, profile, overrides, select, quiet, Absent(absent, str(corpus.root), reading))
        outcome.states = table_states(specs, home, settings, zoo, name, corpus.shard_labels())
    return outcome


def tell_tracks(home: Home, name: str) -> None:
    """Name the videos that have several sound tracks."""
    from cer_pipeline.corpora import registry, sound_tracks
    from cer_pipeline.store.parquet import read_table

    columns = ("video_id", "audio_tracks", "audio_track", "audio_track_reason")
    files = [home.table("videos", name, shard) for shard in registry.load(home.root, name).shard_labels()]
    rows = [row for file in files if file.exists() for row in read_table(file, columns).to_pylist()]
    for line in sound_tracks.messages(rows, name):
        say(safe(line))


def refresh(home: Home, name: str, quiet: bool = False) -> str:
    """Pick up files that have come, changed or gone since the corpus was registered; tell leaks that are kept.

    Returns:
        Why the folder of the corpus cannot be looked into, in which case nothing is picked up; empty where it can.
    """
    from cer_pipeline.corpora import registry

    corpus = registry.load(home.root, name)
    if absent := registry.why_absent(corpus):
        say(absence(corpus, absent))
        return absent
    with steps(quiet) as step:
        hashing, probing = reading(step)
        changes = registry.register(home.root, name, corpus.root, corpus.format, progress=hashing, probing=probing)
    for text in changes.warnings:
        say(f"{name}: {safe(text)}")
    if changes.added or changes.changed or changes.removed:
        say(
            f"{name}: {len(changes.added)} new, {len(changes.changed)} changed, {len(changes.removed)} removed "
            f"since it was registered"
        )
    return ""


def absence(corpus: Corpus, absent: str) -> str:
    """What it means that the folder of a corpus cannot be looked into."""
    return (
        f"the folder of {corpus.name} {absent}: {safe(str(corpus.root))}; its videos stay registered and its tables "
        f"stay - bring it back, or name its new place: cer corpus add {corpus.name} PATH"
    )


def _launch(
    home: Home,
    outcome: Outcome,
    pending: Sequence[TableState],
    profile: str,
    overrides: list[str],
    select: str,
    quiet: bool,
    absent: Absent,
) -> None:
    from cer_pipeline.cli.dagster_home import add_partitions, instance
    from cer_pipeline.cli.progress import TerminalProgress
    from cer_pipeline.corpora.registry import shard_key

    shards = list(dict.fromkeys(s.shard for s in pending))
    add_partitions(home, [shard_key(outcome.corpus, shard) for shard in shards])
    with instance(home) as opened, TerminalProgress(quiet) as progress:
        from assets.jobs import PROCESS_SHARD
        from assets.keys import asset_key
        from cer_pipeline.definitions import build_definitions
        from resources.settings import Settings

        close_dead_runs(opened)
        settings = Settings(profile=profile, overrides=overrides, home=str(home.root))
        definitions = build_definitions(settings, {"progress": progress})
        job = definitions.resolve_job_def(PROCESS_SHARD)
        chosen = _selected(definitions, select)
        if lost := sorted({table for table, _ in absent.reading if asset_key(table) in chosen}):
            what = f"the videos are needed for {', '.join(lost)}, and their folder {absent.why}"
            then = f"bring it back, or run `cer corpus add {outcome.corpus} PATH`; all tables stay as they are"
            raise CerError(what, absent.root, then)
        for shard in shards:
            keys = [asset_key(s.table) for s in pending if s.shard == shard]
            keys = [key for key in keys if key in chosen]
            if not keys:
                continue
            progress.plan(len(keys))
            key = shard_key(outcome.corpus, shard)
            result = execute(opened, job, partition_key=key, asset_selection=keys)
            outcome.runs.append(result.run_id)
            outcome.broken |= broken_steps(result)
        outcome.reports += progress.reports


def _selected(definitions: Any, select: str) -> set[Any]:
    import dagster as dg

    graph = definitions.resolve_asset_graph()
    try:
        chosen = dg.AssetSelection.from_string(_selection(select)).resolve(graph)
    except Exception as error:
        raise CerError("not a valid asset selection", select, 'try "faces+", "+fused" or "group:fusion"') from error
    if not chosen:
        raise CerError("the selection names no asset", select, 'try "faces+", "+fused" or "group:fusion"')
    return set(chosen)


def _selection(text: str) -> str:
    """A table name with plus signs as a Dagster selection: "faces+" means faces and all that is made from it."""
    plain = PLAIN_SELECTION.fullmatch(text.strip())
    return f'{plain[1]}key:"{plain[2]}"{plain[3]}' if plain else text


def broken_steps(result: Any) -> dict[str, str]:
    """Steps that failed, with the line for the user where there is one, else the innermost reason."""
    out = {}
    blocked = {
        f"{check.asset_key.to_python_identifier()}_{check.check_name}": check.description
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.blocking and check.description
    }
    for event in result.all_events:
        if event.is_step_failure and event.event_specific_data.error:
            error = event.event_specific_data.error
            while error.cause and error.cls_name != CerError.__name__:
                error = error.cause
            out[event.step_key] = blocked.get(event.step_key) or " ".join(error.message.split())
    return out


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome for machines."""
    return {
        "corpus": outcome.corpus,
        "runs": outcome.runs,
        "broken": outcome.broken,
        "counters": dict(sorted(outcome.counters.items())),
        "decodes": outcome.counters["decoded/videos"],
        "model_calls": model_calls(outcome),
        "tables": [
            {
                "table": r.table,
                "shard": r.shard,
                "rows": r.footer.rows,
                "by_status": r.footer.by_status,
                "computed": r.computed,
                "cached": r.cached,
                "unchanged": r.unchanged,
                "seconds": round(r.seconds, 3),
            }
            for r in outcome.reports
        ],
    }


def model_calls(outcome: Outcome) -> int:
    """Images, sounds and texts that went through a model."""
    return sum(n for key, n in outcome.counters.items() if key.startswith("calls/"))


def summarise(outcome: Outcome) -> None:
    """Tell a person what was done."""
    if outcome.reports:
        rows = [
            (
                r.table,
                r.shard,
                str(r.footer.rows),
                status_counts(r.footer.by_status),
                str(r.computed),
                str(r.cached),
                f"{r.seconds:.1f}",
            )
            for r in outcome.reports
        ]
        columns = ("table", "shard", "rows", "by status", "computed", "cached", "s")
        print_table(f"Corpus {outcome.corpus}", columns, rows, right=("rows", "computed", "cached", "s"))
    else:
        print(f"corpus {outcome.corpus}: everything is up to date")
    counters = outcome.counters
    print(
        f"decoded {counters['decoded/videos']} videos, {counters['decoded/frames']} frames; "
        f"{model_calls(outcome)} model calls"
    )
    for key, n in sorted(counters.items()):
        if key.startswith("calls/"):
            print(f"  {key.removeprefix('calls/')}: {n}")
    for table, reason in outcome.broken.items():
        say(f"failed: {table}: {safe(reason)}")
