"""What a stage of the pipeline is: a table, its inputs, a plan of units, and a class that computes them.

Belongs here: the contract between a stage and everything that runs it (the store, the engines, the Dagster assets).
Does not belong here: any particular stage (the `stages` module of each layer) or the running (`store.materialise`).

A stage is told in two parts, so that reading the graph loads no model library:

* a `StageSpec`, plain data and a light `plan` function, in `cer_pipeline/<layer>/stages.py`;
* a class, named by import path: its constructor loads the models once, `__call__` maps a table of units to a table of
  rows. Every engine takes the class unchanged. A row depends on its unit alone, never on the batch that it came in.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from cer_pipeline.profiles import Profile
from cer_pipeline.status import Status
from cer_pipeline.tables import TableSpec


class RegisteredFile(Protocol):
    """A registered video, as plans read it; see `corpora.registry.File`."""

    @property
    def path(self) -> str:
        """POSIX path below the corpus folder."""
        ...

    @property
    def video_id(self) -> str:
        """Its id in every table."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the file."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the content."""
        ...

    @property
    def split(self) -> str | None:
        """Split that it belongs to; None where it belongs to none."""
        ...

    @property
    def excluded(self) -> str:
        """Why it was left out of its split; empty where it was not."""
        ...

    @property
    def labels(self) -> str:
        """Digest of its labels; empty without any."""
        ...

    @property
    def captions(self) -> str:
        """Digest of its imported texts; empty without any."""
        ...

    @property
    def windows(self) -> tuple[int, ...]:
        """Window indices of a video without a media file."""
        ...


class RegisteredCorpus(Protocol):
    """A registered corpus, as plans and stages read it; see `corpora.registry.Corpus`."""

    @property
    def format(self) -> str:
        """Name of the corpus format."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """What else the format was told."""
        ...

    @property
    def annotations(self) -> Path | None:
        """File of the annotations; None where there are none."""
        ...

    @property
    def has_media(self) -> bool:
        """Whether there is a media file behind every video."""
        ...

    def files_of(self, shard: str) -> Sequence[RegisteredFile]:
        """The files of a shard, by video_id."""
        ...


class Inputs(Protocol):
    """Read access to the tables and files of one corpus shard."""

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        ...

    @property
    def shard(self) -> str:
        """Shard label, such as "s000"."""
        ...

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The shard's whole table in key order, all columns unless named. Blob columns only where named.

        Raises:
            CerError: the table has not been materialised.
        """
        ...

    def batches(self, name: str, video_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """One video's rows in key order, streamed, so that a long video never lies in memory whole."""
        ...

    def digests(self, name: str, unit: str = "video_id") -> dict[str, str]:
        """For each value of the column `unit` (video_id or segment_id): one digest of the content of its rows."""
        ...

    def source(self, video_id: str) -> Path:
        """The media file behind a video_id."""
        ...

    def registered(self) -> RegisteredCorpus:
        """The corpus as it was registered: its files with their splits, and what was written about them."""
        ...


def video_rows(
    inputs: Inputs, table: str, video_id: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """One video's rows of a table in key order, streamed batch by batch; see `Inputs.batches`."""
    for batch in inputs.batches(table, video_id, columns):
        yield from batch.to_pylist()


class Weights(Protocol):
    """Verified weights by zoo id."""

    def path(self, model: str) -> Path:
        """The verified file or folder of a model.

        Raises:
            ModelUnavailable: the weights are not on this machine.
        """
        ...

    def digest(self, model: str) -> str | None:
        """Digest of the weights of a model; None where they are not on this machine."""
        ...


@dataclass
class StageContext:
    """What a stage's constructor is given.

    Args:
        profile: settings; a stage reads only the sections that its spec names in `config`, and [execution].
        weights: verified weights of the models that its spec names in `models`.
        inputs: the tables of the shard, only those that its spec names in `inputs`.
        counters: what the stage did, for the run's metadata; keys such as "decoded/frames", "calls/centerface".
    """

    profile: Profile
    weights: Weights
    inputs: Inputs
    counters: Counter[str] = field(default_factory=Counter)


class Stage(Protocol):
    """A stage's class."""

    def __init__(self, context: StageContext) -> None: ...

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows (`spec.table.schema`, all rows of a unit together) for a batch of the plan's rows."""
        ...


UNIT = "unit"  # plan column: value of the table's unit column
INPUTS = "inputs"  # plan column: digest of everything that this unit is computed from


@dataclass(frozen=True)
class StageSpec:
    """One asset of the graph.

    Args:
        table: the table that it makes; its name is the asset's name.
        description: one sentence for the Dagster UI and the docs.
        group: asset group: ingest, perception, features, probabilities, fusion or predictions.
        inputs: names of the tables that it reads.
        plan: light function from the inputs to one row per unit: columns `unit`, `inputs`, and what the class needs.
            It must not read blobs or load a model library.
        stage: import path "package.module:Class".
        code_version: changed by hand whenever the rows would change for the same inputs and settings.
        config: profile sections whose values change the rows.
        models: zoo ids whose weights change the rows. Where one is missing, every unit becomes `model_unavailable`.
        optional_models: zoo ids that the stage uses where they are present and does without where they are not.
        placeholder_keys: key values of the rows of a unit that has no value; by default one row, with the plan's keys.
        kinds: tags for the UI.
        pool: Dagster concurrency pool, "" for none.
        may_be_empty: whether a unit may have no row (a video without frames has no row a frame).
        chunk_units: units that are computed and cached together; a crash loses at most these.
        level: what must have a row each: "video", "segment", "sample" or "frame"; told by the table's key unless given.
    """

    table: TableSpec
    description: str
    group: str
    inputs: tuple[str, ...]
    plan: Callable[[Inputs, Profile], pa.Table]
    stage: str
    code_version: str
    config: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    optional_models: tuple[str, ...] = ()
    placeholder_keys: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    kinds: tuple[str, ...] = ("parquet",)
    pool: str = ""
    may_be_empty: bool = False
    chunk_units: int = 64
    level: str = ""

    @property
    def name(self) -> str:
        """Name of the asset and its table."""
        return self.table.name

    def load(self) -> type[Stage]:
        """Import the stage's class."""
        module, _, name = self.stage.partition(":")
        return getattr(importlib.import_module(module), name)


Outcome = tuple[pa.Table, pa.Table | None, dict[str, str]]
"""(units of the chunk, rows of those that worked or None, unit -> reason of those that failed)."""

Engine = Callable[[StageSpec, StageContext, pa.Table, int], Iterator[Outcome]]
"""Puts units (rows of the plan) through a stage, so many at a time; see `engines`."""


def placeholder_rows(spec: StageSpec, unit: dict[str, Any], status: Status, reason: str) -> list[dict[str, Any]]:
    """The rows of a unit that has no value: its keys, the status and the reason; every other column null or empty.

    Args:
        spec: the stage.
        unit: the unit's row of the plan.
        status: why there is no value.
        reason: what happened, for people.
    """
    plain = {c.name: unit[c.name] for c in spec.table.columns if c.name in unit}
    keys = spec.placeholder_keys(unit) if spec.placeholder_keys else [plain]
    rows = []
    for key in keys:
        row: dict[str, Any] = {c.name: None if c.nullable else _empty(c.type) for c in spec.table.columns}
        row |= {spec.table.unit: unit[UNIT], **key, "status": str(status), "reason": reason}
        rows.append(row)
    return rows


def _empty(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_string(kind):
        return ""
    return 0
