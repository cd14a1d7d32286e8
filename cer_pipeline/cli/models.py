"""`cer models list|pull|pin|verify`.

Belongs here: showing the zoo and its progress. Does not belong here: fetching or verifying (`zoo`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import console, print_json, print_table, safe, say
from cer_pipeline.profiles import DEFAULT_PROFILE, load_profile, profile_names
from cer_pipeline.store.home import default_home
from cer_pipeline.zoo import MEDIA, ModelRow, Progress, Pulled, State, default_pins, list_models, open_zoo
from cer_pipeline.zoo import pin as pin_files
from cer_pipeline.zoo.entries import pin_command

app = typer.Typer(help="The model zoo: list, fetch, pin and verify weights.", no_args_is_help=True)
MEGABYTE = 1e6
EXIT_INPUT = 2
Ids = Annotated[list[str] | None, typer.Argument(help="Model ids; see `cer models list`.")]


@app.command("list")
def list_(
    profile: Annotated[str | None, typer.Option("--profile", help="Only the models of this profile.")] = None,
    json: Json = False,
) -> None:
    """List every model: licence, size, state, and the rows of the paper's Table 1 that need it."""
    zoo = open_zoo(heads=default_home().heads)
    uses = {name: models_of_profile(name) for name in profile_names()}
    rows = list_models(zoo, models_of_profile(profile) if profile else None)
    if json:
        print_json([_record(row, [name for name, models in uses.items() if row.entry.id in models]) for row in rows])
        return
    cells = [
        (
            row.entry.id,
            row.state.value,
            _megabytes(row),
            ", ".join(str(number) for number in row.entry.table1),
            safe(f"{row.entry.licence}: {row.entry.consequence}" if row.entry.consequence else row.entry.licence),
            safe(row.entry.purpose),
        )
        for row in rows
    ]
    print_table("Models", ("id", "state", "MB", "Table 1", "licence", "purpose"), cells, right=("MB",))
    if profile and (untrained := [model for model in uses[profile] if model not in zoo.entries]):
        print(f"not trained yet: {', '.join(model.removeprefix('head_') for model in untrained)} (`cer train NAME`)")


def _megabytes(row: ModelRow) -> str:
    """Size of the files; with "+" where the size of some file is not known."""
    return f"{row.entry.bytes / MEGABYTE:.1f}" + ("" if all(file.bytes for file in row.entry.files) else "+")


def models_of_profile(profile: str) -> list[str]:
    """Zoo ids of the weights that the stages of a profile need or can use.

    Raises:
        CerError: there is no such profile.
    """
    from cer_pipeline.pipeline import models_of, stages

    return models_of(stages(load_profile(profile)))


def _record(row: ModelRow, profiles: list[str]) -> dict[str, Any]:
    entry = row.entry
    return {
        "id": entry.id,
        "title": entry.title,
        "purpose": entry.purpose,
        "kind": entry.kind,
        "profiles": profiles,
        "table1": list(entry.table1),
        "licence": entry.licence,
        "consequence": entry.consequence,
        "note": entry.note,
        "input": entry.input,
        "output": entry.output,
        "bytes": entry.bytes,
        "sha256": {file.name: file.sha256 for file in entry.files},
        "state": row.state.value,
        "path": None if row.path is None else str(row.path),
    }


@app.command("pull")
def pull(
    models: Ids = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Pull the models of this profile where none is named.")
    ] = DEFAULT_PROFILE,
    json: Json = False,
) -> None:
    """Fetch models, verify their SHA-256 and store them. Models that are present are kept."""
    chosen, unpinned = models or [], list[str]()
    if not chosen:
        rows = list_models(open_zoo(heads=default_home().heads), models_of_profile(profile))
        chosen = [row.entry.id for row in rows if row.state is not State.UNPINNED]
        unpinned = [row.entry.id for row in rows if row.state is State.UNPINNED]
    pulled = pull_with_progress(chosen, profile, quiet=json)
    if json:
        print_json([{"id": p.model, "fetched": p.fetched, "path": str(p.path)} for p in pulled])
    else:
        fetched = [p.model for p in pulled if p.fetched]
        print(f"{len(pulled)} models are on this machine, {len(fetched)} of them fetched now; all digests match")
    for model in unpinned:
        say(f"not pulled, since no digest is known to verify it by: {model} - {pin_command(model)}")
    if unpinned:
        raise typer.Exit(EXIT_INPUT)


@app.command("pin")
def pin(
    model: Annotated[str, typer.Argument(help="Model id; see `cer models list`.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the files of the model, from a source that you trust.")],
) -> None:
    """Pin the SHA-256 of files that have no public digest; you vouch for these files."""
    pins = default_pins()
    digests = pin_files(open_zoo(), model, folder, pins)
    for name, (size, sha256) in digests.items():
        print(f"{name}: {sha256}, {size} bytes")
    print(f"pinned in {pins}; next: put {folder} at $CER_MODELS/{model}")


@app.command("verify")
def verify_(models: Ids = None, json: Json = False) -> None:
    """Hash the weights on this machine and compare with the pinned digests."""
    zoo = open_zoo(heads=default_home().heads)
    verdicts = zoo.verify(models or [row.entry.id for row in list_models(zoo) if row.path is not None])
    if json:
        print_json([{"id": v.model, "state": v.state.value, "detail": v.detail} for v in verdicts])
    else:
        for v in verdicts:
            print(f"{v.model}: {v.state.value}" + (f" - {v.detail}" if v.detail else ""))
        if not verdicts:
            print("no model is on this machine; next: cer models pull")
    if any(v.state is not State.PRESENT for v in verdicts):
        raise typer.Exit(EXIT_INPUT)


def pull_with_progress(models: list[str], profile: str = DEFAULT_PROFILE, quiet: bool = False) -> list[Pulled]:
    """Fetch models with a bar and the time left on a terminal, one line a step elsewhere.

    Licences that restrict the use of a model are printed before it is fetched.
    """
    zoo = open_zoo(heads=default_home().heads)
    rows = list_models(zoo, models or models_of_profile(profile))
    chosen = models or [row.entry.id for row in rows if row.entry.kind != MEDIA]
    if quiet:
        return zoo.pull(chosen)
    for row in rows:
        if row.entry.consequence and row.state is not State.PRESENT:
            say(safe(f"{row.entry.id}: {row.entry.licence} - {row.entry.consequence}"))
    if not sys.stderr.isatty():
        return zoo.pull(chosen, _print_steps())
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<42}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console(stderr=True)) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def bar(p: Progress) -> None:
            key = (p.model, p.step)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{p.model}: {p.step}")
            bars.update(tasks[key], completed=p.done, total=p.total or None)

        return zoo.pull(chosen, bar)


def _print_steps() -> Any:
    """A progress callback that prints each step once."""
    printed: set[tuple[str, str]] = set()

    def line(p: Progress) -> None:
        if (p.model, p.step) not in printed:
            printed.add((p.model, p.step))
            print(f"{p.model}: {p.step}", file=sys.stderr)

    return line
