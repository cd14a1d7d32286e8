"""`cer train`: train a head on registered corpora and publish it.

Belongs here: running the job for `models/BRANCH` and printing its scores. Does not belong here: training (`training`).
"""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from cer_pipeline.cli.options import Json, ProfileName
from cer_pipeline.cli.output import print_json, print_table
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE, load_profile, profile_names

if TYPE_CHECKING:
    from cer_pipeline.store.home import Home
    from cer_pipeline.zoo.trained import TrainedHead


def train(
    branch: Annotated[str, typer.Argument(help="A branch, or mhpf for the fusion.")],
    corpora: Annotated[str, typer.Option("--corpora", help="Registered corpora, separated by commas.")] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the training; may be repeated."),
    ] = None,
    retire: Annotated[
        bool, typer.Option("--retire", help="Stop using the head that was trained here; its files stay on disk.")
    ] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    json: Json = False,
) -> None:
    """Train a head and write its scores and model card. A stopped training continues when it is run again."""
    from cer_pipeline.store.home import writable_home
    from cer_pipeline.trainers import trainer
    from cer_pipeline.training.summary import score_rows
    from cer_pipeline.training.trainer import training_corpora
    from cer_pipeline.zoo.trained import retire as retire_head

    home = writable_home()
    profile = profile_of(home, branch, profile)
    training = trainer(load_profile(profile, home.settings), branch)
    if retire:
        retire_head(home.heads, branch)
        print(f"{branch}: the head that was trained here is no longer used; its files stay in {home.heads / branch}")
        return
    names = [name.strip() for name in corpora.split(",") if name.strip()]
    options = _options(set_ or [])
    training.check_options(options)
    training_corpora(home, training, names)  # before libraries are imported, so that a mistake is reported at once
    head, run_id = trained(home, branch, names, options, quiet=json, profile=profile)
    scores = json_.loads((head.folder / f"{branch}.scores.json").read_text("utf-8"))
    if json:
        record = {"branch": branch, "corpora": names, "run": run_id, "sha256": head.sha256}
        print_json({**record, "folder": str(head.folder), "scores": scores})
        return
    print_table(f"Head {branch}", ("data", "metric", "percent [95 %]"), list(score_rows(scores)))
    print(f"published: {head.weights} (SHA-256 {head.sha256})")
    print(f"model card: {head.folder / f'{branch}.md'}")
    print("next: `cer run NAME` makes the tables that depend on this head")


def profile_of(home: Home, branch: str, given: str) -> str:
    """Return the profile in whose graph a head is trained: the given one, or the first other one with the branch.

    Args:
        home: the home folder, whose settings may enable further branches.
        branch: a branch, or another trainer, which every profile has.
        given: the profile that the user chose.
    """
    names = dict.fromkeys([given, *profile_names()])
    with_branch = [n for n in names if branch in load_profile(n, home.settings)["branches"]["enabled"]]
    return with_branch[0] if with_branch else given


def _options(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, mark, _ in pairs:
        if not name or not mark:
            raise CerError("a training option has the form name=value", name, "for example --set epochs=20")
    return {name: value for name, _, value in pairs}


def trained(
    home: Home, branch: str, corpora: list[str], options: dict[str, str], quiet: bool, profile: str = DEFAULT_PROFILE
) -> tuple[TrainedHead, str]:
    """Run the job `train_models` for one head and return the head and the id of the run.

    Raises:
        CerError: the training failed.
    """
    from cer_pipeline.cli.launch import launcher
    from cer_pipeline.cli.progress import TerminalProgress
    from cer_pipeline.zoo.trained import read_current

    with TerminalProgress(quiet) as progress, launcher(home, progress, profile) as jobs:
        from assets.jobs import TRAIN
        from assets.keys import model_key

        key = model_key(branch)
        config = {"ops": {"__".join(key.path): {"config": {"corpora": corpora, "options": options}}}}
        result = jobs.run(TRAIN, [key], config=config)
        result.require_success()
    head = read_current(home.heads, branch)
    if head is None:
        raise CerError("the training published no head", branch, "see the run in `cer ui`")
    return head, result.run_id
