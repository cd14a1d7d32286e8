"""Read tasks (labels) and systems (predictions) from the tables of a corpus.

Belongs here: reading and aligning the tables of all shards. Does not belong here: scores (`protocols`, `metrics`).

Only this module and training read `labels` and `frame_labels`. The branches and the named combinations of branches are
those of the table `fused`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import matrix, rows_in, rows_where, texts, video_slices
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.corpora.corpus import shard_key
from cer_pipeline.corpora.shards import ShardInputs, shards
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.protocols import FRAME, NONE, SEGMENT, System, Task, annotated_classes, top
from cer_pipeline.fusion.inputs import combinations_in
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.predictions.frame_average import windows_at
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import read_footer
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS, prefix_of

FUSED: Final = "fused"
PPA: Final = "ppa"
PFSA: Final = "pfsa"
WHOLE: Final = "all"  # split of videos without one
WEIGHT: Final = "w_"  # prefix of the columns of `fused` that name its branches

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Values:
    """Values of one system for some segments or frames.

    Args:
        probabilities: [n, classes], NaN without a value.
        statuses: statuses [n].
        reasons: reasons [n].
    """

    probabilities: Floats
    statuses: list[str]
    reasons: list[str | None]

    @classmethod
    def of(cls, rows: pa.Table, columns: Sequence[str], prefix: str = "") -> Values:
        """The values of some rows of a table, from the columns behind a prefix."""
        values = matrix(rows, [f"{prefix}{name}" for name in columns])
        return cls(values, *(rows.column(f"{prefix}{name}").to_pylist() for name in ("status", "reason")))

    def missing(self, rows: slice) -> list[tuple[str, str | None]]:
        """Status and reason of the rows of a slice that have no value."""
        empty: list[int] = np.flatnonzero(~np.isfinite(self.probabilities[rows]).all(axis=1)).tolist()
        first = rows.start or 0
        return [(self.statuses[first + i], self.reasons[first + i]) for i in empty]


@dataclass(frozen=True)
class Scored:
    """A task and all systems with predictions for it."""

    task: Task
    systems: tuple[System, ...]

    def system(self, name: str) -> System | None:
        """The system of a name; None where it has no predictions for this task."""
        return next((s for s in self.systems if s.name == name), None)


def branches_of(shard: ShardInputs) -> list[str]:
    """The branches of the table `fused`.

    Raises:
        CerError: the table is missing.
    """
    names = shard.table(FUSED).column_names
    return [n.removeprefix(WEIGHT) for n in names if n.startswith(WEIGHT)]


def tables_read(branches: Sequence[str]) -> list[str]:
    """The tables that an evaluation reads."""
    probabilities = [f"probabilities/{b}" for b in branches]
    return ["labels", "frame_labels", "segments", *probabilities, FUSED, "compound", "frame_predictions"]


def inputs_digest(home: Home, name: str) -> str:
    """Digest of all tables that the evaluation of a corpus reads.

    Raises:
        CerError: no such corpus, or a table is missing.
    """
    parts = []
    for shard in shards(home, name):
        for table in tables_read(branches_of(shard)):
            footer = read_footer(home.table(table, name, shard.shard))
            if footer is None:
                key = shard_key(name, shard.shard)
                raise CerError(f"the table {table} of {key} has not been made", then=f"run `cer run {name}`")
            parts += [shard.shard, table, footer.data_version]
    return digest(*parts)


def splits(home: Home, name: str) -> list[str]:
    """The splits of a corpus that have labels, sorted by name.

    Raises:
        CerError: no such corpus, a missing table, or no labels at all.
    """
    names: set[str] = set()
    for shard in shards(home, name):
        table = shard.table("labels", ["split", "status"])
        rows = zip(table.column("split").to_pylist(), table.column("status").to_pylist(), strict=True)
        names |= {split or WHOLE for split, status in rows if status == Status.OK}
    if not names:
        raise CerError("the corpus has no labels", name, f"add them: `cer corpus add {name} PATH --labels …`")
    return sorted(names)


def read(home: Home, name: str) -> list[Scored]:
    """Every task of a corpus (split, segments or frames, basic or compound) with the predictions of all systems.

    Raises:
        CerError: no such corpus, tables that are missing or do not belong together, or no labels at all.
    """
    splits(home, name)  # refuses a corpus without labels
    parts = shards(home, name)
    systems = systems_of(parts)
    return [*_segment_tasks(parts, systems), *_frame_tasks(parts, systems)]


# --- systems ---


@dataclass(frozen=True)
class Systems:
    """The systems of a corpus.

    Args:
        branches: branches of the table `fused`.
        combinations: named combinations of branches in it.
        methods: compound mappings.
    """

    branches: tuple[str, ...]
    combinations: tuple[str, ...]
    methods: tuple[str, ...]


def systems_of(parts: Sequence[ShardInputs]) -> Systems:
    """The systems of all shards of a corpus.

    Raises:
        CerError: a table is missing, or shards have different branches or combinations.
    """
    fused = [(tuple(branches_of(s)), tuple(combinations_in(s.table(FUSED).column_names))) for s in parts]
    different = next((shard for shard, names in zip(parts, fused, strict=True) if names != fused[0]), None)
    if different is not None:
        key = shard_key(different.corpus, different.shard)
        raise CerError(
            "shards were made with different branches or combinations", key, f"run `cer run {different.corpus}`"
        )
    methods = {m for shard in parts for m in texts(shard.table("compound", ["method"]), "method")}
    return Systems(*fused[0], tuple(m for m in (PPA, PFSA) if m in methods))


# --- segments ---


def _segment_tasks(parts: Sequence[ShardInputs], systems: Systems) -> Iterator[Scored]:
    labels = pa.concat_tables([shard.table("labels") for shard in parts])
    ok = np.array([status == Status.OK for status in texts(labels, "status")], bool)
    split_of = np.array([split or WHOLE for split in labels.column("split").to_pylist()], object)
    videos = np.array(texts(labels, "video_id"), object)
    ids = np.array(texts(labels, "segment_id"))
    per_shard = [_segment_systems(shard, systems) for shard in parts]
    for names, columns, kind in ((BASIC, LABEL_COLUMNS, 0), (COMPOUND, COMPOUND_LABEL_COLUMNS, 1)):
        shares = matrix(labels, columns)
        valid = ok & np.isfinite(shares).all(axis=1) & (np.nan_to_num(shares).sum(axis=1) > 0)
        classes = _with_format(parts[0], names, annotated_classes(shares[valid]))
        for split in sorted(set(split_of[valid].tolist())):
            rows = np.flatnonzero(valid & (split_of == split))
            rows = rows[np.argsort(ids[rows])]  # a sum of floats must not depend on the shards of the videos
            task = Task(split, SEGMENT, names, classes, shares[rows].argmax(axis=1), videos[rows])
            yield Scored(task, tuple(_systems([values[kind] for values in per_shard], rows)))


def _with_format(shard: ShardInputs, names: Sequence[str], annotated: tuple[int, ...]) -> tuple[int, ...]:
    """The annotated classes, and those that the format of the corpus annotates although these labels have none."""
    if tuple(names) != BASIC:
        return annotated
    classes = shard.registered().format_classes
    return tuple(sorted({*annotated, *(BASIC.index(name) for name in classes)}))


def _systems(per_shard: Sequence[dict[str, Values]], rows: Ints) -> Iterator[System]:
    """The systems of all shards together, for some rows of all labels."""
    for name in per_shard[0]:
        values = np.concatenate([shard[name].probabilities for shard in per_shard])[rows]
        statuses = [s for shard in per_shard for s in shard[name].statuses]
        reasons = [r for shard in per_shard for r in shard[name].reasons]
        missing = [int(i) for i, p in zip(rows, values, strict=True) if not np.isfinite(p).all()]
        status, reason = _most_frequent([statuses[i] for i in missing], [reasons[i] for i in missing])
        yield System.of(name, values, status, reason)


def _most_frequent(statuses: Sequence[str], reasons: Sequence[str | None]) -> tuple[str, str | None]:
    if not statuses:
        return str(Status.OK), None
    status = Counter(statuses).most_common(1)[0][0]
    return status, next((r for s, r in zip(statuses, reasons, strict=True) if s == status and r), None)


def _segment_systems(shard: ShardInputs, systems: Systems) -> tuple[dict[str, Values], dict[str, Values]]:
    """Basic and compound values of every system for the segments of `labels`."""
    ids = texts(shard.table("labels", ["segment_id"]), "segment_id")
    basic, mapped = _partial_systems(shard, systems, ids)
    compound = {m: _values(shard, "compound", ids, COMPOUND_COLUMNS, m) for m in systems.methods} | mapped
    return basic | {FUSED: _values(shard, FUSED, ids, BASIC_COLUMNS)}, compound


def _partial_systems(
    shard: ShardInputs, systems: Systems, ids: Sequence[str]
) -> tuple[dict[str, Values], dict[str, Values]]:
    """Basic and compound values of the systems that read some of the branches: each branch, and each combination."""
    basic = {b: _values(shard, f"probabilities/{b}", ids, BASIC_COLUMNS) for b in systems.branches}
    compound = {f"{b}/{PPA}": Values(ppa(v.probabilities), v.statuses, v.reasons) for b, v in basic.items()}
    for name in systems.combinations:
        basic[name] = _values(shard, FUSED, ids, BASIC_COLUMNS, prefix=prefix_of(name))
        compound[f"{name}/{PPA}"] = _values(shard, "compound", ids, COMPOUND_COLUMNS, PPA, prefix_of(name))
    return basic, compound


def _values(
    shard: ShardInputs,
    name: str,
    ids: Sequence[str],
    columns: Sequence[str],
    method: str | None = None,
    prefix: str = "",
) -> Values:
    """Values of a table for some segments.

    Args:
        shard: tables of the shard.
        name: table name.
        ids: the segments, in the order of the result.
        columns: columns of the distribution, without prefix.
        method: of the table `compound`, the method of the rows.
        prefix: prefix of the columns of a combination of branches.
    """
    wanted = [f"{prefix}{c}" for c in ("status", "reason", *columns)]
    table = shard.table(name, ["segment_id", *wanted, *(["method"] if method else [])])
    if method:
        table = rows_where(table, "method", method)
    index = {segment: i for i, segment in enumerate(texts(table, "segment_id"))}
    missing = next((segment for segment in ids if segment not in index), None)
    if missing is not None:
        key = shard_key(shard.corpus, shard.shard)
        then = f"run `cer run {shard.corpus}`"
        raise CerError(f"labels of {key} name a segment that {name} does not have", missing, then)
    return Values.of(table.take(pa.array([index[segment] for segment in ids], pa.int64())), columns, prefix)


# --- frames ---


def _frame_tasks(parts: Sequence[ShardInputs], systems: Systems) -> Iterator[Scored]:
    clips = [clip for shard in parts for clip in _labelled_videos(shard, systems)]
    if not clips:
        return
    videos = np.concatenate([clip.videos for clip in clips])
    split_of = np.concatenate([clip.splits for clip in clips])
    for names, kind in ((BASIC, 0), (COMPOUND, 1)):
        truth = np.concatenate([clip.truth[kind] for clip in clips])
        predicted = {n: np.concatenate([clip.predicted[kind][n] for clip in clips]) for n in clips[0].predicted[kind]}
        valid = truth != NONE
        classes = _with_format(parts[0], names, tuple(int(c) for c in np.unique(truth[valid])))
        for split in sorted(set(split_of[valid].tolist())):
            rows = valid & (split_of == split)
            task = Task(split, FRAME, names, classes, truth[rows], videos[rows])
            in_split = [clip for clip in clips if clip.splits[0] == split]
            yield Scored(
                task, tuple(System(n, p[rows], None, *_status_of(in_split, kind, n)) for n, p in predicted.items())
            )


def _status_of(clips: Sequence[LabelledVideo], kind: int, system: str) -> StatusAndReason:
    """Most frequent status of the frames of some videos without a value of a system, and the reason of one of them."""
    missing = [row for clip in clips for row in clip.missing[kind].get(system, ())]
    return _most_frequent([status for status, _ in missing], [reason for _, reason in missing])


StatusAndReason = tuple[str, str | None]
"""Status and reason of a row without a value."""


@dataclass(frozen=True)
class LabelledVideo:
    """The n annotated frames of one video.

    Args:
        videos: the video, n times.
        splits: its split, n times.
        truth: basic and compound class of each frame [n]; NONE where a vocabulary is not annotated.
        predicted: basic and compound class that each system predicts [n].
        missing: status and reason of the windows (for `fused` and `ppa`: frames) without a value of a system, basic and
            compound.
    """

    videos: NDArray[np.object_]
    splits: NDArray[np.object_]
    truth: tuple[Ints, Ints]
    predicted: tuple[dict[str, Ints], dict[str, Ints]]
    missing: tuple[dict[str, list[StatusAndReason]], dict[str, list[StatusAndReason]]]


def _labelled_videos(shard: ShardInputs, systems: Systems) -> Iterator[LabelledVideo]:
    """Labels and predictions of the frames of every annotated video of a shard.

    `fused` and `ppa` are read from `frame_predictions`. Every other system is averaged over the windows that contain
    the frame and have a value, as in section 3.7 of the paper.
    """
    labels = shard.table("frame_labels", ["video_id", "frame", "basic", "compound", "status"])
    labels = rows_where(labels, "status", str(Status.OK))
    if not labels.num_rows:
        return
    split_table = shard.table("labels", ["video_id", "split"])
    split = dict(zip(texts(split_table, "video_id"), split_table.column("split").to_pylist(), strict=True))
    columns = ["video_id", "frame", "time_s", "status", "reason", *BASIC_COLUMNS, *COMPOUND_COLUMNS]
    predicted = shard.table("frame_predictions", columns)
    segments = shard.table("segments", ["segment_id", "video_id", "start_s", "end_s"])
    ids = texts(segments, "segment_id")
    basic, compound = _partial_systems(shard, systems, ids)
    for method in systems.methods:
        if method != PPA:
            compound[method] = _values(shard, "compound", ids, COMPOUND_COLUMNS, method)
    frame_rows, window_rows = video_slices(predicted), video_slices(segments)
    for video, rows in video_slices(labels).items():
        truth = rows_in(labels, rows)
        frames = rows_in(predicted, frame_rows.get(video, slice(0, 0)))
        at = window_rows.get(video, slice(0, 0))
        windows = rows_in(segments, at)
        place, hit = _places(frames.column("frame").to_numpy(), truth.column("frame").to_numpy())
        frames = frames.take(pa.array(place, pa.int64()))
        times = frames.column("time_s").to_numpy()
        numbers = _windows(times, windows)
        basic_classes, compound_classes = (
            {name: _spread(hit, _window_means(numbers, v.probabilities[at])) for name, v in systems_values.items()}
            for systems_values in (basic, compound)
        )
        basic_missing, compound_missing = (
            {name: v.missing(at) for name, v in systems_values.items()} for systems_values in (basic, compound)
        )
        fused, ppa_of_fused = (Values.of(frames, c) for c in (BASIC_COLUMNS, COMPOUND_COLUMNS))
        every = slice(0, frames.num_rows)
        yield LabelledVideo(
            np.full(len(hit), video, object),
            np.full(len(hit), split.get(video) or WHOLE, object),
            (
                _classes(truth.column("basic").to_pylist(), BASIC),
                _classes(truth.column("compound").to_pylist(), COMPOUND),
            ),
            (
                basic_classes | {FUSED: _spread(hit, fused.probabilities)},
                {PPA: _spread(hit, ppa_of_fused.probabilities)} | compound_classes,
            ),
            (
                basic_missing | {FUSED: fused.missing(every)},
                compound_missing | {PPA: ppa_of_fused.missing(every)},
            ),
        )


def _places(numbers: Ints, wanted: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Indices into ascending numbers of those wanted numbers that are among them, and which these are."""
    place = np.searchsorted(numbers, wanted)
    hit = np.zeros(len(wanted), bool)
    inside = place < len(numbers)
    hit[inside] = numbers[place[inside]] == wanted[inside]
    return place[hit], hit


def _spread(hit: NDArray[np.bool_], values: Floats) -> Ints:
    """The most probable class of every row of values, in the positions where `hit` is True; NONE elsewhere."""
    full = np.full(len(hit), NONE, np.int64)
    full[hit] = top(values)
    return full


def _windows(times: Floats, windows: pa.Table) -> Ints:
    if not windows.num_rows or not len(times):
        return np.full((len(times), 1), NONE, np.int64)
    return windows_at(times, windows.column("start_s").to_numpy(), windows.column("end_s").to_numpy())


def _window_means(numbers: Ints, values: Floats) -> Floats:
    """Mean over those windows of each time [n, J] that have a value [N, C]; NaN without such a window."""
    padded = np.vstack([values, np.full((1, values.shape[1]), np.nan)])  # the window NONE
    held = padded[numbers]
    used: NDArray[np.bool_] = np.asarray(np.isfinite(held).all(axis=2))
    total = np.where(used[..., None], held, 0.0).sum(axis=1)
    count = used.sum(axis=1, keepdims=True)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _classes(values: Sequence[str | None], names: Sequence[str]) -> Ints:
    index = {name: i for i, name in enumerate(names)}
    return np.array([NONE if v is None else index[v] for v in values], np.int64)
