"""`cer models list|pull|verify`.

Belongs here: printing the zoo, and the progress of downloads. Does not belong here: fetching or verifying (`zoo`).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import console, print_json, print_table, safe
from cer_pipeline.store.home import default_home
from cer_pipeline.zoo import Progress, Pulled, State, list_models, open_zoo, verify
from cer_pipeline.zoo import pull as pull_models

app = typer.Typer(help="List, fetch and verify the models.", no_args_is_help=True)
MEGABYTE = 1e6
EXIT_INPUT = 2
Ids = Annotated[list[str] | None, typer.Argument(help="Model ids; see `cer models list`.")]


@app.command("list")
def list_(
    profile: Annotated[str | None, typer.Option("--profile", help="Only the models of this profile.")] = None,
    json: Json = False,
) -> None:
    """List every model with purpose, licence, size and state on this machine."""
    rows = list_models(open_zoo(heads=default_home().heads), profile)
    if json:
        print_json(
            [
                {
                    "id": r.entry.id,
                    "title": r.entry.title,
                    "purpose": r.entry.purpose,
                    "kind": r.entry.kind,
                    "profile": r.entry.profile,
                    "licence": r.entry.licence,
                    "input": r.entry.input,
                    "output": r.entry.output,
                    "bytes": sum(f.bytes for f in r.entry.files),
                    "sha256": {f.name: f.sha256 for f in r.entry.files},
                    "state": r.state.value,
                    "path": None if r.path is None else str(r.path),
                }
                for r in rows
            ]
        )
        return
    cells = [
        (
            r.entry.id,
            r.entry.profile,
            r.state.value,
            f"{sum(f.bytes for f in r.entry.files) / MEGABYTE:.1f}",
            safe(r.entry.licence),
            safe(r.entry.purpose),
        )
        for r in rows
    ]
    print_table("Models", ("id", "profile", "state", "MB", "licence", "purpose"), cells, right=("MB",))


@app.command("pull")
def pull(
    models: Ids = None,
    profile: Annotated[str, typer.Option("--profile", help="Profile, if no model is named.")] = "embedded",
    json: Json = False,
) -> None:
    """Fetch the models that are missing, and check their SHA-256."""
    pulled = pull_with_progress(models or [], profile, quiet=json)
    if json:
        print_json([{"id": p.model, "fetched": p.fetched, "path": str(p.path)} for p in pulled])
    else:
        fetched = [p.model for p in pulled if p.fetched]
        print(f"{len(pulled)} models are on this machine, {len(fetched)} of them fetched now; all digests match")


@app.command("verify")
def verify_(models: Ids = None, json: Json = False) -> None:
    """Hash the weights on this machine and compare them with the pinned digests."""
    verdicts = verify(open_zoo(heads=default_home().heads), models or [])
    if json:
        print_json([{"id": v.model, "state": v.state.value, "detail": v.detail} for v in verdicts])
    else:
        for v in verdicts:
            print(f"{v.model}: {v.state.value}" + (f" - {v.detail}" if v.detail else ""))
        if not verdicts:
            print("no model is on this machine; next: cer models pull")
    if any(v.state is not State.PRESENT for v in verdicts):
        raise typer.Exit(EXIT_INPUT)


def pull_with_progress(models: list[str], profile: str = "embedded", quiet: bool = False) -> list[Pulled]:
    """Fetch models with a progress bar on a terminal, and a line for every step elsewhere."""
    zoo = open_zoo(heads=default_home().heads)
    if quiet:
        return pull_models(zoo, models, profile)
    if not sys.stderr.isatty():
        printed: set[tuple[str, str]] = set()

        def line(p: Progress) -> None:
            if (p.model, p.step) not in printed:
                printed.add((p.model, p.step))
                print(f"{p.model}: {p.step}", file=sys.stderr)

        return pull_models(zoo, models, profile, line)
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description:<42}"), BarColumn(), DownloadColumn(), console=console(stderr=True)
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(p: Progress) -> None:
            if p.model not in tasks:
                tasks[p.model] = bars.add_task(p.model)
            task = tasks[p.model]
            text = f"{p.model}: {p.step}"
            bars.update(task, description=text, completed=p.done, total=p.total or None)

        return pull_models(zoo, models, profile, bar)
