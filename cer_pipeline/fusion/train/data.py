"""Training data of the fusion: labelled segments with the probabilities of branches that were not trained on them.

Belongs here: reading tables, out-of-fold files and votes, and refusing data that cannot be trained on. Does not belong
here: training (`mhpf`).

The values of a branch are those of its probability table. If its head was trained on this machine, the out-of-fold
values that the training wrote replace those of the table, because the head has been trained on these segments. A
segment stays in the data where some branches have no value; these are masked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cer_pipeline.arrow import matrix, texts
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.formats import votes as vote_files
from cer_pipeline.corpora.shards import corpus_table
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, Mask
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.store.home import Home
from cer_pipeline.training.labelled import annotated_classes, labelled, tables_on_disk
from cer_pipeline.zoo.trained import TrainedHead, read_current

VOTES: Final = "votes"
LEAST_VIDEOS: Final = 2
"""Source videos that each class needs, so that no fold contains a class that all others lack."""
OUT_OF_FOLD: Final = ("predictions.parquet", "out_of_fold.parquet")
"""Endings of the files in which trainings write the out-of-fold predictions of a head."""
WHOLE: Final = "all views"  # system that combines all texts of a segment


@dataclass(frozen=True)
class FusionData:
    """Labelled segments with the probabilities of the branches, in the order of corpora and of their tables.

    Args:
        branches: names [M].
        probabilities: [n, M, 8]; NaN where a branch has no value.
        targets: label distributions [n, 8].
        segments: segment_id of each segment [n].
        videos: video_id of each segment [n].
        groups: group of each segment in cross-validation [n]: corpus and source clip, or corpus and speaker.
        corpora: corpus of each segment [n].
        held: whether a segment is only scored [n], and used neither in training nor for a choice.
        sources: branch -> source of its values.
    """

    branches: tuple[str, ...]
    probabilities: Array
    targets: Array
    segments: tuple[str, ...]
    videos: tuple[str, ...]
    groups: NDArray[np.str_]
    corpora: tuple[str, ...]
    held: Mask
    sources: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def present(self) -> Mask:
        """Whether a branch has a value [n, M]."""
        return np.isfinite(self.probabilities[..., 0])

    @property
    def served(self) -> Mask:
        """Whether some branch has a value [n]."""
        return self.present.sum(axis=1) > 0

    @property
    def classes(self) -> NDArray[np.int64]:
        """Index of the largest entry of each target [n]; of equal entries the first."""
        return self.targets.argmax(axis=1)

    def digest(self) -> str:
        """SHA-256 of names, values and targets."""
        state = hashlib.sha256("\n".join([*self.branches, *self.corpora, *self.segments]).encode())
        state.update(np.ascontiguousarray(self.probabilities).tobytes())
        state.update(np.ascontiguousarray(self.targets).tobytes())
        return state.hexdigest()


def read(
    home: Home,
    corpora: Sequence[Corpus],
    branches: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    last_actor: int | None = None,
) -> FusionData:
    """The labelled segments of some corpora.

    Args:
        home: where the tables lie.
        corpora: corpora with tables, or of votes.
        branches: which branches; all that a corpus has values of unless given.
        renamed: voice and face of votes -> branches that they stand for.
        last_actor: of votes, actors above it are held; none unless given.

    Raises:
        CerError: no label, no branch, or a corpus without a training split.
    """
    names = {"voice": "voice", "face": "face", **(renamed or {})}
    parts = [_votes(c, names, last_actor) if c.format == VOTES else _tables(home, c, branches) for c in corpora]
    found = list(dict.fromkeys(b for part in parts for b in part.branches))
    wanted = tuple(branches) or tuple(sorted(found))
    lost = [b for b in wanted if b not in found]
    if lost:
        where = f"{', '.join(lost)} in {', '.join(c.name for c in corpora)}"
        raise CerError("no corpus has values of a branch", where, f"choose from: {', '.join(found) or 'none'}")
    return _joined(parts, wanted)


def check(data: FusionData) -> None:
    """Refuse segments that cross-validation cannot learn from.

    Raises:
        CerError: one source video, one class, or a class in fewer than `LEAST_VIDEOS` source videos.
    """
    mine = ~data.held & data.served
    where = ", ".join(dict.fromkeys(data.corpora))
    if not mine.any():
        raise CerError("no labelled segment has a value of any branch", where, "see `cer status` for the reasons")
    if len(set(data.groups[mine])) < LEAST_VIDEOS:
        raise CerError("one source video to train on", where, "cross-validation needs several: add videos")
    if len(set(data.classes[mine])) < 2:
        raise CerError(f"all segments are of the class {BASIC[data.classes[mine][0]]}", where, "add other classes")
    for c in sorted(annotated_classes(data.targets)):
        count = len(set(data.groups[mine & (data.classes == c)]))
        if count < LEAST_VIDEOS:
            what = f"the class {BASIC[c]} occurs in {count} source videos of the training split"
            raise CerError(what, where, f"at least {LEAST_VIDEOS} are needed: add videos of it")


def _votes(corpus: Corpus, names: Mapping[str, str], last_actor: int | None) -> FusionData:
    votes = vote_files.read_votes(corpus.root)
    places = [BASIC.index(label) for label in vote_files.CLASSES.values()]
    p, t = np.zeros((len(votes.clips), 2, len(BASIC))), np.zeros((len(votes.clips), len(BASIC)))
    p[..., places], t[..., places] = votes.probabilities, votes.targets
    branches = tuple(names[b] for b in vote_files.BRANCHES)
    if len(set(branches)) < len(branches):
        raise CerError("voice and face stand for the same branch", branches[0], "name two branches")
    return FusionData(
        branches,
        p,
        t,
        votes.clips,
        votes.clips,
        np.array([f"{corpus.name}/{actor}" for actor in votes.actors]),
        (corpus.name,) * len(votes.clips),
        np.zeros(len(p), bool) if last_actor is None else votes.actors > last_actor,
        {name: f"{corpus.name}: votes on {b}" for b, name in zip(vote_files.BRANCHES, branches, strict=True)},
    )


def _tables(home: Home, corpus: Corpus, branches: Sequence[str]) -> FusionData:
    """One corpus with tables."""
    known = labelled(home, corpus)
    offered = [b for b in tables_on_disk(home, corpus, "probabilities") if not branches or b in branches]
    if not offered:
        raise CerError("the corpus has no probability tables", corpus.name, f"run `cer run {corpus.name}`")
    found = [_said(home, corpus, b, known.segments) for b in offered]
    return FusionData(
        tuple(offered),
        np.stack([p for p, _ in found], axis=1),
        known.targets,
        known.segments,
        known.videos,
        known.groups,
        (corpus.name,) * len(known.segments),
        np.zeros(len(known.segments), bool),
        {b: f"{corpus.name}: {text}" for b, (_, text) in zip(offered, found, strict=True)},
    )


def _said(home: Home, corpus: Corpus, branch: str, segments: Sequence[str]) -> tuple[Array, str]:
    """What a branch says of some segments [n, 8], and where that comes from."""
    table = corpus_table(home, corpus, f"probabilities/{branch}", ["segment_id", "status", *BASIC_COLUMNS])
    place = {s: i for i, s in enumerate(texts(table, "segment_id"))}
    lost = next((s for s in segments if s not in place), None)
    if lost is not None:
        raise CerError(f"probabilities/{branch} lacks a labelled segment", lost, f"run `cer run {corpus.name}`")
    values = matrix(table, BASIC_COLUMNS)[[place[s] for s in segments]]
    head = read_current(home.heads, branch)
    held_out = {} if head is None else out_of_fold(head, corpus.name)
    seen = [i for i, s in enumerate(segments) if s in held_out]
    for i in seen:
        values[i] = held_out[segments[i]]
    return values, f"table; {len(seen)} of {len(segments)} segments out of fold" if seen else "table"


def out_of_fold(head: TrainedHead, corpus: str) -> dict[str, Array]:
    """What a head that was trained here said of segments that it was not trained on: segment_id -> [8].

    Several values of one segment (by repeated cross-validation) are averaged.

    Args:
        head: the head in use.
        corpus: name of the corpus; rows of other ones are skipped where a file names corpora.
    """
    kept: dict[str, list[Array]] = {}
    for ending in OUT_OF_FOLD:
        path = head.folder / f"{head.branch}.{ending}"
        if not path.is_file():
            continue
        table = pq.read_table(path)
        if not {"segment_id", *BASIC_COLUMNS} <= set(table.column_names):
            continue
        values = matrix(table, BASIC_COLUMNS)
        for value, row in zip(values, _names(table, ("segment_id", "corpus", "system")), strict=True):
            own = row.get("corpus", corpus) == corpus and row.get("system", WHOLE) == WHOLE
            if own and np.isfinite(value).all():
                kept.setdefault(row["segment_id"], []).append(value)
    return {segment: np.mean(found, axis=0) for segment, found in kept.items()}


def _names(table: pa.Table, wanted: Sequence[str]) -> Iterable[dict[str, Any]]:
    return table.select([c for c in wanted if c in table.column_names]).to_pylist()


def _joined(parts: Sequence[FusionData], branches: tuple[str, ...]) -> FusionData:
    wide = []
    for part in parts:
        own = np.full((len(part), len(branches), len(BASIC)), np.nan)
        for i, b in enumerate(part.branches):
            if b in branches:
                own[:, branches.index(b)] = part.probabilities[:, i]
        wide.append(own)
    return FusionData(
        branches,
        np.concatenate(wide),
        np.concatenate([p.targets for p in parts]),
        tuple(s for p in parts for s in p.segments),
        tuple(v for p in parts for v in p.videos),
        np.concatenate([p.groups for p in parts]),
        tuple(c for p in parts for c in p.corpora),
        np.concatenate([p.held for p in parts]),
        {b: "; ".join(p.sources[b] for p in parts if b in p.sources) for b in branches},
    )
