"""From the tables of a corpus to tasks and systems: labels beside everything that was predicted for them.

Belongs here: reading and aligning tables of all shards. Does not belong here: scores (`protocols`, `metrics`).

This is, with training, the only reader of `labels` and `frame_labels`. The branches are those that `fused` was made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import matrix, texts
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.formats.registry import FORMATS
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.protocols import FRAME, NONE, SEGMENT, System, Task, annotated_classes, top
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.predictions.frame_average import windows_at
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import read_footer
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS

FUSED: Final = "fused"
PPA: Final = "ppa"
PFSA: Final = "pfsa"
WHOLE: Final = "all"  # the split of videos whose corpus names none
WEIGHT: Final = "w_"  # prefix of the columns of `fused` that name its branches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Values:
    """What one system says of the segments of a shard, in the order of `labels`.

    Args:
        probabilities: [n, classes], NaN where there is no value.
        statuses: why [n].
        reasons: in words [n].
    """

    probabilities: Floats
    statuses: list[str]
    reasons: list[str | None]

    def missing(self, rows: slice) -> list[tuple[str, str | None]]:
        """Status and reason of those of some rows that have no value."""
        lacking: list[int] = np.flatnonzero(~np.isfinite(self.probabilities[rows]).all(axis=1)).tolist()
        first = rows.start or 0
        return [(self.statuses[first + i], self.reasons[first + i]) for i in lacking]


@dataclass(frozen=True)
class Scored:
    """A task and all systems that answer it."""

    task: Task
    systems: tuple[System, ...]

    def system(self, name: str) -> System | None:
        """The system of a name, if it answers this task."""
        return next((s for s in self.systems if s.name == name), None)


def shards(home: Home, name: str) -> list[ShardInputs]:
    """All shards of a registered corpus.

    Raises:
        CerError: no such corpus, or one without videos, which has no predictions.
    """
    corpus = registry.load(home.root, name)
    if corpus.trains:
        then = f"`cer train {corpus.trains} --corpora {name}` prints scores"
        raise CerError("the corpus has no videos, it is for training", name, then)
    return [ShardInputs(home, name, label) for label in corpus.shard_labels()]


def branches_of(shard: ShardInputs) -> list[str]:
    """The branches that `fused` was made of.

    Raises:
        CerError: the table has not been made.
    """
    names = shard.table(FUSED).column_names
    return [n.removeprefix(WEIGHT) for n in names if n.startswith(WEIGHT)]


def tables_read(branches: Sequence[str]) -> list[str]:
    """The tables that an evaluation reads."""
    made = [f"probabilities/{b}" for b in branches]
    return ["labels", "frame_labels", "segments", *made, FUSED, "compound", "frame_predictions"]


def inputs_digest(home: Home, name: str) -> str:
    """Digest of all tables that the evaluation of a corpus reads.

    Raises:
        CerError: no such corpus, or a table has not been made.
    """
    parts = []
    for shard in shards(home, name):
        for table in tables_read(branches_of(shard)):
            footer = read_footer(home.table(table, name, shard.shard))
            if footer is None:
                key = registry.shard_key(name, shard.shard)
                raise CerError(f"the table {table} of {key} has not been made", then=f"run `cer run {name}`")
            parts += [shard.shard, table, footer.data_version]
    return digest(*parts)


def splits(home: Home, name: str) -> list[str]:
    """The splits of a corpus that have labels, in order of their names.

    Raises:
        CerError: no such corpus, tables that have not been made, or no labels at all.
    """
    found: set[str] = set()
    for shard in shards(home, name):
        table = shard.table("labels", ["split", "status"])
        rows = zip(table.column("split").to_pylist(), table.column("status").to_pylist(), strict=True)
        found |= {split or WHOLE for split, status in rows if status == Status.OK}
    if not found:
        raise CerError("the corpus has no labels", name, f"add them: `cer corpus add {name} PATH --labels …`")
    return sorted(found)


def read(home: Home, name: str) -> list[Scored]:
    """Every task of a corpus (split, segments or frames, basic or compound) with the systems that answer it.

    Raises:
        CerError: no such corpus, tables that have not been made or do not belong together, or no labels at all.
    """
    splits(home, name)
    own = shards(home, name)
    systems = systems_of(own)
    return [*_segment_tasks(own, systems), *_frame_tasks(own, systems)]


# --- what answers ---


@dataclass(frozen=True)
class Systems:
    """The systems that all shards of a corpus hold.

    Args:
        branches: branches that `fused` was made of.
        methods: compound mappings.
    """

    branches: tuple[str, ...]
    methods: tuple[str, ...]


def systems_of(own: Sequence[ShardInputs]) -> Systems:
    """The systems of some shards of one corpus.

    Raises:
        CerError: a table has not been made, or shards were made with unlike branches.
    """
    made = [tuple(branches_of(shard)) for shard in own]
    odd = next((shard for shard, names in zip(own, made, strict=True) if names != made[0]), None)
    if odd is not None:
        then = f"run `cer run {odd.corpus}`"
        raise CerError("shards were made with unlike branches", registry.shard_key(odd.corpus, odd.shard), then)
    methods = {m for shard in own for m in texts(shard.table("compound", ["method"]), "method")}
    return Systems(made[0], tuple(m for m in (PPA, PFSA) if m in methods))


# --- segments ---


def _segment_tasks(own: Sequence[ShardInputs], systems: Systems) -> Iterator[Scored]:
    labels = pa.concat_tables([s.table("labels") for s in own])
    ok = np.array([status == Status.OK for status in texts(labels, "status")], bool)
    where = np.array([split or WHOLE for split in labels.column("split").to_pylist()], object)
    videos = np.array(texts(labels, "video_id"), object)
    ids = np.array(texts(labels, "segment_id"))
    per_shard = [_segment_systems(s, systems) for s in own]
    for names, columns, kind in ((BASIC, LABEL_COLUMNS, 0), (COMPOUND, COMPOUND_LABEL_COLUMNS, 1)):
        shares = matrix(labels, columns)
        valid = ok & np.isfinite(shares).all(axis=1) & (np.nan_to_num(shares).sum(axis=1) > 0)
        classes = _with_format(own[0], names, annotated_classes(shares[valid]))
        for split in sorted(set(where[valid].tolist())):
            rows = np.flatnonzero(valid & (where == split))
            rows = rows[np.argsort(ids[rows])]  # a sum of floats must not depend on how videos fell into shards
            task = Task(split, SEGMENT, names, classes, shares[rows].argmax(axis=1), videos[rows])
            yield Scored(task, tuple(_systems([found[kind] for found in per_shard], rows)))


def _with_format(shard: ShardInputs, names: Sequence[str], annotated: tuple[int, ...]) -> tuple[int, ...]:
    """The classes that were annotated, and those that the corpus's format annotates even where this part has none."""
    if tuple(names) != BASIC:
        return annotated
    told = FORMATS[shard.registered().format].classes
    return tuple(sorted({*annotated, *(BASIC.index(name) for name in told)}))


def _systems(per_shard: Sequence[dict[str, Values]], rows: Ints) -> Iterator[System]:
    """The systems of all shards together, over some rows of all labels."""
    for name in per_shard[0]:
        values = np.concatenate([found[name].probabilities for found in per_shard])[rows]
        statuses = [s for found in per_shard for s in found[name].statuses]
        reasons = [r for found in per_shard for r in found[name].reasons]
        missing = [int(i) for i, p in zip(rows, values, strict=True) if not np.isfinite(p).all()]
        status, reason = _most_frequent([statuses[i] for i in missing], [reasons[i] for i in missing])
        yield System.of(name, values, status, reason)


def _most_frequent(statuses: Sequence[str], reasons: Sequence[str | None]) -> tuple[str, str | None]:
    if not statuses:
        return str(Status.OK), None
    status = Counter(statuses).most_common(1)[0][0]
    return status, next((r for s, r in zip(statuses, reasons, strict=True) if s == status and r), None)


def _segment_systems(shard: ShardInputs, systems: Systems) -> tuple[dict[str, Values], dict[str, Values]]:
    """What every system says of the segments of `labels`: basic emotions, and compounds."""
    ids = texts(shard.table("labels", ["segment_id"]), "segment_id")
    basic = {b: _values(shard, f"probabilities/{b}", ids, BASIC_COLUMNS) for b in systems.branches}
    compound = {m: _values(shard, "compound", ids, COMPOUND_COLUMNS, m) for m in systems.methods}
    for branch, known in basic.items():
        compound[f"{branch}/{PPA}"] = Values(ppa(known.probabilities), known.statuses, known.reasons)
    return basic | {FUSED: _values(shard, FUSED, ids, BASIC_COLUMNS)}, compound


def _values(
    shard: ShardInputs, name: str, ids: Sequence[str], columns: Sequence[str], method: str | None = None
) -> Values:
    read = ["segment_id", "status", "reason", *columns, *(["method"] if method else [])]
    table = shard.table(name, read)
    if method:
        table = table.filter(pa.array([m == method for m in table.column("method").to_pylist()], pa.bool_()))
    place = {segment: i for i, segment in enumerate(table.column("segment_id").to_pylist())}
    lost = next((i for i in ids if i not in place), None)
    if lost is not None:
        key = registry.shard_key(shard.corpus, shard.shard)
        then = f"run `cer run {shard.corpus}`"
        raise CerError(f"labels of {key} name a segment that {name} does not have", lost, then)
    order = [place[i] for i in ids]
    rows = table.take(pa.array(order, pa.int64()))
    return Values(matrix(rows, columns), rows.column("status").to_pylist(), rows.column("reason").to_pylist())


# --- frames ---


def _frame_tasks(own: Sequence[ShardInputs], systems: Systems) -> Iterator[Scored]:
    parts = [part for shard in own for part in _frame_parts(shard, systems)]
    if not parts:
        return
    videos = np.concatenate([part.videos for part in parts])
    where = np.concatenate([part.splits for part in parts])
    for names, kind in ((BASIC, 0), (COMPOUND, 1)):
        truth = np.concatenate([part.truth[kind] for part in parts])
        guesses = {n: np.concatenate([part.guesses[kind][n] for part in parts]) for n in parts[0].guesses[kind]}
        valid = truth != NONE
        classes = _with_format(own[0], names, tuple(int(c) for c in np.unique(truth[valid])))
        for split in sorted(set(where[valid].tolist())):
            rows = valid & (where == split)
            task = Task(split, FRAME, names, classes, truth[rows], videos[rows])
            mine = [part for part in parts if part.splits[0] == split]
            yield Scored(task, tuple(System(n, g[rows], None, *_why(mine, kind, n)) for n, g in guesses.items()))


def _why(parts: Sequence[FramePart], kind: int, system: str) -> tuple[str, str | None]:
    """Why a system has no value for frames of some videos: the most frequent status, and the reason of one of these."""
    found = [why for part in parts for why in part.missing[kind].get(system, ())]
    return _most_frequent([status for status, _ in found], [reason for _, reason in found])


Why = tuple[str, str | None]
"""Status and reason of a row without a value."""


@dataclass(frozen=True)
class FramePart:
    """The annotated frames of one video, n of them.

    Args:
        videos: the video, n times.
        splits: its split, n times.
        truth: basic and compound class of each frame [n]; NONE where that vocabulary is not annotated.
        guesses: what every system says, basic and compound [n].
        missing: status and reason of the windows (of the frames, for `fused` and `ppa`) for which a system has no
            value, basic and compound.
    """

    videos: NDArray[np.object_]
    splits: NDArray[np.object_]
    truth: tuple[Ints, Ints]
    guesses: tuple[dict[str, Ints], dict[str, Ints]]
    missing: tuple[dict[str, list[Why]], dict[str, list[Why]]]


def _frame_parts(shard: ShardInputs, systems: Systems) -> Iterator[FramePart]:
    """Labels and predictions of every annotated video of a shard, frame by frame.

    `fused` and `ppa` are the pipeline's own frame values. Every other system is averaged over the windows that hold the
    frame and that it has a value for, as in section 3.7 of the paper.
    """
    labels = shard.table("frame_labels", ["video_id", "frame", "basic", "compound", "status"])
    labels = labels.filter(pa.array([s == Status.OK for s in texts(labels, "status")], pa.bool_()))
    if not labels.num_rows:
        return
    named = shard.table("labels", ["video_id", "split"])
    split = dict(zip(texts(named, "video_id"), named.column("split").to_pylist(), strict=True))
    columns = ["video_id", "frame", "time_s", "status", "reason", *BASIC_COLUMNS, *COMPOUND_COLUMNS]
    predicted = shard.table("frame_predictions", columns)
    segments = shard.table("segments", ["segment_id", "video_id", "start_s", "end_s"])
    ids = texts(segments, "segment_id")
    basic = {b: _values(shard, f"probabilities/{b}", ids, BASIC_COLUMNS) for b in systems.branches}
    compound = {f"{b}/{PPA}": Values(ppa(v.probabilities), v.statuses, v.reasons) for b, v in basic.items()}
    for method in systems.methods:
        if method != PPA:
            compound[method] = _values(shard, "compound", ids, COMPOUND_COLUMNS, method)
    frame_rows, window_rows = _spans(predicted), _spans(segments)
    for video, rows in _spans(labels).items():
        mine = _rows(labels, rows)
        frames = _rows(predicted, frame_rows.get(video, slice(0, 0)))
        at = window_rows.get(video, slice(0, 0))
        windows = _rows(segments, at)
        place, hit = _places(frames.column("frame").to_numpy(), mine.column("frame").to_numpy())
        frames = frames.take(pa.array(place, pa.int64()))
        times = frames.column("time_s").to_numpy()
        numbers = _windows(times, windows)
        own, mapped = (
            {name: _spread(hit, _window_means(numbers, v.probabilities[at])) for name, v in found.items()}
            for found in (basic, compound)
        )
        whys = ({name: v.missing(at) for name, v in found.items()} for found in (basic, compound))
        frame_values = [Values(matrix(frames, c), *_told(frames)) for c in (BASIC_COLUMNS, COMPOUND_COLUMNS)]
        every = slice(0, frames.num_rows)
        yield FramePart(
            np.full(len(hit), video, object),
            np.full(len(hit), split.get(video) or WHOLE, object),
            (
                _classes(mine.column("basic").to_pylist(), BASIC),
                _classes(mine.column("compound").to_pylist(), COMPOUND),
            ),
            (
                own | {FUSED: _spread(hit, frame_values[0].probabilities)},
                {PPA: _spread(hit, frame_values[1].probabilities)} | mapped,
            ),
            (
                next(whys) | {FUSED: frame_values[0].missing(every)},
                next(whys) | {PPA: frame_values[1].missing(every)},
            ),
        )


def _told(rows: pa.Table) -> tuple[list[str], list[str | None]]:
    return rows.column("status").to_pylist(), rows.column("reason").to_pylist()


def _places(numbers: Ints, wanted: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where the wanted numbers stand among ascending ones, for those that do, and which those are."""
    place = np.searchsorted(numbers, wanted)
    hit = np.zeros(len(wanted), bool)
    inside = place < len(numbers)
    hit[inside] = numbers[place[inside]] == wanted[inside]
    return place[hit], hit


def _spread(hit: NDArray[np.bool_], values: Floats) -> Ints:
    """The top class of every row of values, put at the places of `hit`; NONE elsewhere."""
    full = np.full(len(hit), NONE, np.int64)
    full[hit] = top(values)
    return full


def _windows(times: Floats, windows: pa.Table) -> Ints:
    if not windows.num_rows or not len(times):
        return np.full((len(times), 1), NONE, np.int64)
    return windows_at(times, windows.column("start_s").to_numpy(), windows.column("end_s").to_numpy())


def _window_means(numbers: Ints, values: Floats) -> Floats:
    """The mean of the windows of each time [n, J] that have a value [N, C]; NaN where none has."""
    padded = np.vstack([values, np.full((1, values.shape[1]), np.nan)])  # the window NONE
    held = padded[numbers]
    used: NDArray[np.bool_] = np.asarray(np.isfinite(held).all(axis=2))
    total = np.where(used[..., None], held, 0.0).sum(axis=1)
    count = used.sum(axis=1, keepdims=True)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _classes(values: Sequence[str | None], names: Sequence[str]) -> Ints:
    place = {name: i for i, name in enumerate(names)}
    return np.array([NONE if v is None else place[v] for v in values], np.int64)


def _spans(table: pa.Table) -> dict[str, slice]:
    """The rows of every video of a table in key order."""
    videos = texts(table, "video_id")
    starts = [i for i, v in enumerate(videos) if i == 0 or v != videos[i - 1]]
    return {videos[a]: slice(a, b) for a, b in zip(starts, [*starts[1:], len(videos)], strict=True)}


def _rows(table: pa.Table, rows: slice) -> pa.Table:
    return table.slice(rows.start, rows.stop - rows.start)
