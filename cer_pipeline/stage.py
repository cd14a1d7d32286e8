"""The interface of a stage: a table, its inputs, a plan of units, and a class that computes their rows.

Belongs here: the contract between a stage and everything that runs it (the store, the engines, the Dagster assets).
Does not belong here: any particular stage (`specs` and `stages` of each package) or running it (`store.materialise`).

A stage has two parts, so that loading the graph imports no model library:

* a `StageSpec`, which is plain data and a light `plan` function, in `cer_pipeline/<package>/specs.py`;
* a class, named by its import path. Its constructor loads the models once, and `__call__` maps a table of units to a
  table of rows. All engines use the same class. A row depends on its unit only, never on the other units of a batch.
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
from cer_pipeline.tables import TableSpec, status_column


class RegisteredFile(Protocol):
    """A registered video, as plans read it; see `corpora.corpus.File`."""

    @property
    def path(self) -> str:
        """POSIX path below the corpus folder."""
        ...

    @property
    def video_id(self) -> str:
        """Id of the video in all tables."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the content."""
        ...

    @property
    def split(self) -> str | None:
        """Split of the video; None if it has none."""
        ...

    @property
    def excluded(self) -> str:
        """Why the video is excluded from its split; empty if it is not."""
        ...

    @property
    def labels(self) -> str:
        """Digest of the labels; empty without labels."""
        ...

    @property
    def captions(self) -> str:
        """Digest of the imported captions; empty without captions."""
        ...

    @property
    def windows(self) -> tuple[int, ...]:
        """Window indices of a video without a media file."""
        ...


class RegisteredCorpus(Protocol):
    """A registered corpus, as plans and stages read it; see `corpora.corpus.Corpus`."""

    @property
    def format(self) -> str:
        """Name of the corpus format."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the format."""
        ...

    @property
    def annotations(self) -> Path | None:
        """File of the annotations; None without annotations."""
        ...

    @property
    def has_media(self) -> bool:
        """Whether every video has a media file."""
        ...

    def files_of(self, shard: str) -> Sequence[RegisteredFile]:
        """Return the files of a shard, sorted by video_id."""
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
        """Return a table of the shard in key order.

        Args:
            name: name of the table.
            columns: columns to read; by default all except binary ones.

        Raises:
            CerError: the table has not been materialised.
        """
        ...

    def batches(self, name: str, video_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one video in key order, batch by batch, so that a long video never fills the memory."""
        ...

    def digests(self, name: str, unit: str = "video_id") -> dict[str, str]:
        """Return the digest of the content of the rows for each value of the column `unit` (video_id, segment_id)."""
        ...

    def source(self, video_id: str) -> Path:
        """Return the media file of a video."""
        ...

    def registered(self) -> RegisteredCorpus:
        """Return the registered corpus: its files with their splits, labels and captions."""
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
        """Return the verified file or folder of a model.

        Raises:
            ModelUnavailable: the weights are not on this machine.
        """
        ...

    def digest(self, model: str) -> str | None:
        """Return the digest of the weights of a model; None if they are not on this machine."""
        ...


@dataclass
class StageContext:
    """Argument of the constructor of a stage.

    Args:
        profile: settings; a stage reads only [execution] and the sections in `config` of its spec.
        weights: verified weights of the models in `models` and `optional_models` of the spec.
        inputs: the tables of the shard; a stage reads only those in `inputs` of its spec.
        counters: counters for the metadata of the run, with keys such as "decoded/frames", "calls/centerface".
    """

    profile: Profile
    weights: Weights
    inputs: Inputs
    counters: Counter[str] = field(default_factory=Counter)


class Stage(Protocol):
    """Class of a stage."""

    def __init__(self, context: StageContext) -> None: ...

    def __call__(self, units: pa.Table) -> pa.Table:
        """Return the rows (`spec.table.schema`) of a batch of units (rows of the plan), grouped by unit."""
        ...


UNIT = "unit"  # plan column: value of the unit column of the table
INPUTS = "inputs"  # plan column: digest of everything that the unit is computed from


@dataclass(frozen=True)
class StageSpec:
    """One asset of the graph.

    Args:
        table: the table of the stage; its name is the name of the asset.
        description: one sentence for the Dagster UI and the docs.
        group: asset group: ingest, perception, features, probabilities, fusion or predictions.
        inputs: names of the tables that the stage reads.
        reads: columns by table that the plan and the class read, for the column lineage in the Dagster UI (a test
            compares them with what is read); tables of which only the content digests are used have no entry.
        plan: light function from the inputs to one row for each unit, with the columns `unit`, `inputs` and those that
            the class needs. It must not read blobs or load a model library.
        stage: import path of the class, "package.module:Class".
        code_version: changed by hand whenever the rows change for the same inputs and settings.
        config: profile sections whose values change the rows.
        models: zoo ids whose weights change the rows. If one is missing, all units are `model_unavailable`.
        optional_models: zoo ids of weights that the stage uses if they are present.
        placeholder_keys: keys of the rows of a unit without a value; by default one row with the keys in the plan.
        kinds: tags for the Dagster UI.
        may_be_empty: whether a unit may have no row, as a video without frames has in a table of frames.
        chunk_units: number of units that are computed and cached together; a crash loses at most these.
        level: what has one row each: "video", "segment", "sample" or "frame"; by default the one in the table's key.
    """

    table: TableSpec
    description: str
    group: str
    inputs: tuple[str, ...]
    plan: Callable[[Inputs, Profile], pa.Table]
    stage: str
    code_version: str
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    config: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    optional_models: tuple[str, ...] = ()
    placeholder_keys: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    kinds: tuple[str, ...] = ("parquet",)
    may_be_empty: bool = False
    chunk_units: int = 64
    level: str = ""

    @property
    def name(self) -> str:
        """Name of the asset and its table."""
        return self.table.name

    def load(self) -> type[Stage]:
        """Import the class of the stage."""
        module, _, name = self.stage.partition(":")
        return getattr(importlib.import_module(module), name)


Outcome = tuple[pa.Table, pa.Table | None, dict[str, str]]
"""Units of a chunk, rows of the units that were computed (or None), and the reason for each unit that failed."""

Engine = Callable[[StageSpec, StageContext, pa.Table, int], Iterator[Outcome]]
"""Runs a stage over units (rows of the plan) in chunks of a given size, see `engines`."""


def placeholder_rows(spec: StageSpec, unit: dict[str, Any], status: Status, reason: str) -> list[dict[str, Any]]:
    """Return the rows of a unit without a value: keys, status and reason; all other columns are null or empty.

    Args:
        spec: the stage.
        unit: row of the plan.
        status: why there is no value.
        reason: cause, as text for the user.
    """
    plain = {c.name: unit[c.name] for c in spec.table.columns if c.name in unit}
    keys = spec.placeholder_keys(unit) if spec.placeholder_keys else [plain]
    rows = []
    for key in keys:
        row: dict[str, Any] = {c.name: None if c.nullable else _empty(c.type) for c in spec.table.columns}
        row |= {spec.table.unit: unit[UNIT], **key}
        for name in {status_column(c.name) for c in spec.table.columns}:  # one, and one per combination of branches
            row |= {name: str(status), f"{name.removesuffix('status')}reason": reason}
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
