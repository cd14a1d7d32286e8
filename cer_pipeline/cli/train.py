"""`cer train`: train a head on registered corpora and publish it.

Belongs here: launching the Dagster run of `models/BRANCH` and showing its scores. Does not belong here: any training.
"""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import print_json, print_table, safe
from cer_pipeline.errors import CerError

if TYPE_CHECKING:
    from cer_pipeline.store.home import Home
    from cer_pipeline.zoo.trained import Published


def train(
    branch: Annotated[str, typer.Argument(help="A branch, or mhpf for the fusion.")],
    corpora: Annotated[str, typer.Option("--corpora", help="Registered corpora to train on, with commas.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="An option of the training, name=value.")] = None,
    retire: Annotated[
        bool, typer.Option("--retire", help="Go back to the shipped head; what was trained stays on disk.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a head, with its scores and model card. A stopped training goes on when run again."""
    from cer_pipeline.store.home import writable_home
    from cer_pipeline.training import registry
    from cer_pipeline.training.summary import score_rows
    from cer_pipeline.zoo import trained as published

    home, what = writable_home(), registry.trainer(branch)
    if retire:
        published.retire(home.heads, branch)
        print(f"{branch}: the head that was trained here is no longer used; its files stay in {home.heads / branch}")
        return
    names = [name.strip() for name in corpora.split(",") if name.strip()]
    options = _options(set_ or [])
    registry.chosen(home, what, names)  # before any library is loaded: a mistake answers at once
    head, run_id = _launch(home, branch, names, options, quiet=json)
    scores = json_.loads((head.folder / f"{branch}.scores.json").read_text("utf-8"))
    if json:
        record = {"branch": branch, "corpora": names, "run": run_id, "sha256": head.sha256}
        print_json({**record, "folder": str(head.folder), "scores": scores})
        return
    print_table(f"Head {branch}", ("of what", "metric", "percent [95 %]"), list(score_rows(scores)))
    print(f"published: {head.weights} (SHA-256 {head.sha256})")
    print(f"model card: {head.folder / f'{branch}.md'}")
    print("next: cer run NAME makes anew what hangs on this head")


def _options(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, mark, _ in pairs:
        if not name or not mark:
            raise CerError("not an option of the form name=value", name, "for example --set epochs=20")
    return {name: value for name, _, value in pairs}


def _launch(home: Home, branch: str, names: list[str], options: dict[str, str], quiet: bool) -> tuple[Published, str]:
    from cer_pipeline.cli.dagster_home import instance
    from cer_pipeline.cli.launch import close_dead_runs, execute
    from cer_pipeline.cli.progress import TerminalProgress
    from cer_pipeline.cli.run import broken_steps
    from cer_pipeline.zoo.trained import read_current

    with instance(home) as opened, TerminalProgress(quiet) as progress:
        from assets.jobs import TRAIN
        from assets.keys import model_key
        from cer_pipeline.definitions import build_definitions
        from resources.settings import Settings

        close_dead_runs(opened)
        definitions = build_definitions(Settings(home=str(home.root)), {"progress": progress})
        step = "__".join(model_key(branch).path)
        config = {"ops": {step: {"config": {"corpora": names, "options": options}}}}
        job = definitions.resolve_job_def(TRAIN)
        result = execute(opened, job, config, asset_selection=[model_key(branch)])
    for reason in broken_steps(result).values():
        what, _, then = safe(reason).removeprefix(f"{CerError.__module__}.{CerError.__name__}: ").partition(" - ")
        raise CerError(what, then=then or "nothing was published")
    head = read_current(home.heads, branch)
    if head is None:
        raise CerError("the training published nothing", branch, "see the run in `cer ui`")
    return head, result.run_id
