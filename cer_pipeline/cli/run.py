"""`cer run`: make the tables of a corpus that are missing or out of date.

Belongs here: choosing assets and shards, and the summary of the run. Does not belong here: computing tables (`store`,
`assets`) or running jobs (`launch`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cer_pipeline.cli.absent import absent_line
from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import console, print_json, print_table, safe, say, status_counts
from cer_pipeline.cli.progress import reading, steps
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE

if TYPE_CHECKING:
    from cer_pipeline.cli.launch import StepFailure
    from cer_pipeline.corpora.corpus import Corpus
    from cer_pipeline.pipeline import TableState
    from cer_pipeline.store.home import Home
    from cer_pipeline.store.materialise import Report

EXIT_FAILED_UNITS = 1
PLAIN_SELECTION = re.compile(r"(\+?)([a-z0-9_/]+)(\+?)")


@dataclass(frozen=True)
class AbsentFolder:
    """The state of the folder of a corpus.

    Args:
        why: why the folder cannot be read (`registry.why_absent`); empty if it can.
        root: the folder.
        reading: tables and shards that need files from it.
    """

    why: str
    root: str
    reading: set[tuple[str, str]]


@dataclass
class Outcome:
    """The result of `cer run`.

    Args:
        corpus: corpus name.
        runs: Dagster run ids, one for every shard with pending tables.
        reports: one for every table that was materialised.
        failures: steps that failed.
        states: the state of every table after the run.
        without_model: line about the models that are not on this machine; empty if none is missing.
    """

    corpus: str
    runs: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    failures: list[StepFailure] = field(default_factory=list)
    states: list[TableState] = field(default_factory=list)
    without_model: str = ""

    @property
    def counters(self) -> Counter[str]:
        """Decoded videos, decoded frames and calls of each model, summed over all tables."""
        total: Counter[str] = Counter()
        for report in self.reports:
            total.update(report.counters)
        return total

    @property
    def failed_rows(self) -> int:
        """Number of rows with status failed, over all tables."""
        return sum(s.footer.by_status.get("failed", 0) for s in self.states if s.footer)


def run(
    name: Annotated[str, typer.Argument(help="The corpus.")],
    select: Annotated[
        str,
        typer.Option(
            "--select",
            help='Asset selection: "faces+" with all later assets, "+fused" with all earlier ones, "group:fusion".',
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
        if outcome.without_model:
            console().print(safe(outcome.without_model), soft_wrap=True)
    print_sound_tracks(home, name)
    if outcome.failures or outcome.failed_rows:
        raise typer.Exit(EXIT_FAILED_UNITS)


def run_corpus(
    home: Home, name: str, profile: str, overrides: list[str], select: str = "*", quiet: bool = False
) -> Outcome:
    """Launch one Dagster run for every shard of a corpus that has pending tables.

    Raises:
        CerError: unknown corpus, setting or selection, a corpus without videos, or a folder that cannot be read.
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
        folder = AbsentFolder(absent, str(corpus.root), reading)
        _launch(home, outcome, pending, profile, overrides, select, quiet, folder)
        outcome.states = table_states(specs, home, settings, zoo, name, corpus.shard_labels())
    outcome.without_model = absent_line(specs, zoo, [s.footer.by_status for s in outcome.states if s.footer])
    return outcome


def print_sound_tracks(home: Home, name: str) -> None:
    """Print a line for every group of videos with several sound tracks."""
    from cer_pipeline.corpora import registry, sound_tracks
    from cer_pipeline.store.parquet import read_table

    columns = ("video_id", "audio_tracks", "audio_track", "audio_track_reason")
    files = [home.table("videos", name, shard) for shard in registry.load(home.root, name).shard_labels()]
    rows = [row for file in files if file.exists() for row in read_table(file, columns).to_pylist()]
    for line in sound_tracks.messages(rows, name):
        say(safe(line))


def refresh(home: Home, name: str, quiet: bool = False) -> str:
    """Register new, changed and removed files of a corpus again, and print its warnings.

    Returns:
        Why the folder of the corpus cannot be read, in which case the registration stays; empty if it can.
    """
    from cer_pipeline.corpora import registry

    corpus = registry.load(home.root, name)
    if absent := registry.why_absent(corpus):
        say(absent_folder_message(corpus, absent))
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


def absent_folder_message(corpus: Corpus, why: str) -> str:
    """Return the message for a corpus whose folder cannot be read."""
    return (
        f"the folder of {corpus.name} {why}: {safe(str(corpus.root))}; its videos stay registered and its tables "
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
    absent: AbsentFolder,
) -> None:
    """Run the job for every shard that has a pending table within the selection; the outcome gets the results."""
    from cer_pipeline.cli.launch import launcher
    from cer_pipeline.cli.progress import TerminalProgress
    from cer_pipeline.corpora.corpus import shard_key

    with TerminalProgress(quiet) as progress, launcher(home, progress, profile, overrides) as jobs:
        from assets.jobs import PROCESS_SHARD
        from assets.keys import asset_key

        selected = _selected(jobs.definitions, select)
        if tables := sorted({table for table, _ in absent.reading if asset_key(table) in selected}):
            what = f"the videos are needed for {', '.join(tables)}, and their folder {absent.why}"
            then = f"bring it back, or run `cer corpus add {outcome.corpus} PATH`; all tables stay as they are"
            raise CerError(what, absent.root, then)
        for shard in dict.fromkeys(s.shard for s in pending):
            keys = [key for s in pending if s.shard == shard and (key := asset_key(s.table)) in selected]
            if not keys:
                continue
            progress.plan(len(keys))
            result = jobs.run(PROCESS_SHARD, keys, shard_key(outcome.corpus, shard))
            outcome.runs.append(result.run_id)
            outcome.failures += result.failures
        outcome.reports += progress.reports


def _selected(definitions: Any, select: str) -> set[Any]:
    import dagster as dg

    graph = definitions.resolve_asset_graph()
    try:
        selected = dg.AssetSelection.from_string(_selection(select)).resolve(graph)
    except Exception as error:
        raise CerError("not a valid asset selection", select, 'try "faces+", "+fused" or "group:fusion"') from error
    if not selected:
        raise CerError("the selection names no asset", select, 'try "faces+", "+fused" or "group:fusion"')
    return set(selected)


def _selection(text: str) -> str:
    """Return the Dagster selection for a table name with plus signs; other selections are returned as they are."""
    plain = PLAIN_SELECTION.fullmatch(text.strip())
    return f'{plain[1]}key:"{plain[2]}"{plain[3]}' if plain else text


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as the document of `--json`."""
    return {
        "corpus": outcome.corpus,
        "runs": outcome.runs,
        "broken": {failure.step: failure.reason for failure in outcome.failures},
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
    """Return the number of images, sounds and texts that models have processed."""
    return sum(n for key, n in outcome.counters.items() if key.startswith("calls/"))


def summarise(outcome: Outcome) -> None:
    """Print the outcome."""
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
    for failure in outcome.failures:
        say(f"failed: {failure.step}: {safe(failure.reason)}")
