"""The Dagster instance of a home folder.

Belongs here: preparing the instance, and its partitions. Does not belong here: running jobs (`launch`).
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cer_pipeline.store.files import commit_bytes
from cer_pipeline.store.home import HOME_VARIABLE, Home, checkout

if TYPE_CHECKING:
    from dagster import DagsterInstance

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """Return the path of dagster.yaml or workspace.yaml in the working copy or, without one, in the wheel."""
    return (checkout() or PACKAGE) / name


def prepare(home: Home) -> dict[str, str]:
    """Copy the project's dagster.yaml to the folder in which Dagster reads it.

    Returns:
        Environment variables with which a Dagster process uses this home folder.
    """
    settings = shipped("dagster.yaml").read_bytes()
    target = home.dagster / "dagster.yaml"
    if not target.is_file() or target.read_bytes() != settings:
        commit_bytes(target, settings)
    return {"DAGSTER_HOME": str(home.dagster), HOME_VARIABLE: str(home.root), "DAGSTER_DISABLE_TELEMETRY": "yes"}


@contextlib.contextmanager
def instance(home: Home) -> Iterator[DagsterInstance]:
    """Open the Dagster instance of a home folder, which `cer ui` shows too."""
    os.environ.update(prepare(home))
    from dagster import BetaWarning, DagsterInstance

    warnings.filterwarnings("ignore", category=BetaWarning)  # concerns developers, not users

    with DagsterInstance.get() as opened:
        yield opened


def add_partitions(home: Home, keys: Sequence[str]) -> None:
    """Add the partitions of shards to the instance."""
    from assets.partitions import CORPUS_SHARD

    with instance(home) as opened:
        opened.add_dynamic_partitions(CORPUS_SHARD, keys)


def remove_partitions(home: Home, keys: Sequence[str]) -> None:
    """Remove the partitions of shards from the instance."""
    from assets.partitions import CORPUS_SHARD

    with instance(home) as opened:
        for key in set(keys) & set(opened.get_dynamic_partitions(CORPUS_SHARD)):
            opened.delete_dynamic_partition(CORPUS_SHARD, key)
