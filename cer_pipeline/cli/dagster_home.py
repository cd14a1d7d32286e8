"""Dagster's instance for a home folder.

Belongs here: finding and preparing Dagster's own state. Does not belong here: launching runs (`run`).
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
    """dagster.yaml or workspace.yaml: of the working copy, else as packed into the wheel."""
    return (checkout() or PACKAGE) / name


def prepare(home: Home) -> dict[str, str]:
    """Put the project's dagster.yaml where Dagster looks for it.

    Returns:
        Environment variables that make any Dagster process use this home folder.
    """
    settings = shipped("dagster.yaml").read_bytes()
    target = home.dagster / "dagster.yaml"
    if not target.is_file() or target.read_bytes() != settings:
        commit_bytes(target, settings)
    return {"DAGSTER_HOME": str(home.dagster), HOME_VARIABLE: str(home.root), "DAGSTER_DISABLE_TELEMETRY": "yes"}


@contextlib.contextmanager
def instance(home: Home) -> Iterator[DagsterInstance]:
    """The Dagster instance of a home folder, the same one that `cer ui` shows."""
    os.environ.update(prepare(home))
    from dagster import BetaWarning, DagsterInstance

    warnings.filterwarnings("ignore", category=BetaWarning)  # for the developers of this project, not for its users

    with DagsterInstance.get() as opened:
        yield opened


def add_partitions(home: Home, keys: Sequence[str]) -> None:
    """Make shards known to Dagster."""
    from assets.partitions import CORPUS_SHARD

    with instance(home) as opened:
        known = set(opened.get_dynamic_partitions(CORPUS_SHARD))
        new = [key for key in keys if key not in known]
        if new:
            opened.add_dynamic_partitions(CORPUS_SHARD, new)


def remove_partitions(home: Home, keys: Sequence[str]) -> None:
    """Make Dagster forget shards."""
    from assets.partitions import CORPUS_SHARD

    with instance(home) as opened:
        for key in set(keys) & set(opened.get_dynamic_partitions(CORPUS_SHARD)):
            opened.delete_dynamic_partition(CORPUS_SHARD, key)
