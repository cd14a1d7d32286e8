"""Labelled segments of registered corpora for training, and the features of one branch beside them.

Belongs here: reading labels and features out of tables, and refusing what cannot be learned from. Does not belong here:
any network or loop, or the data of the fusion (`fusion.train.data`).

Only segments of the training split are read: where a corpus has splits, `train`; where it has none, all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import matrix, texts
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.shards import corpus_table
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.status import Status
from cer_pipeline.store.home import Home
from cer_pipeline.tables import LABEL_COLUMNS

TRAIN: Final = "train"
_IDS: Final = ("segment_id", "video_id")
LEAST_VIDEOS: Final = 3
"""Source videos that each class needs: one for the held-out fold, one for early stopping, and one to train on."""


@dataclass(frozen=True)
class Labelled:
    """The labelled segments of one corpus that may be trained on, in the order of its tables.

    Args:
        segments: segment_id of each.
        videos: video_id of each.
        targets: label distributions [n, 8].
        groups: corpus and source clip of each; the video where no clip is known. Cross-validation keeps them whole.
    """

    segments: tuple[str, ...]
    videos: tuple[str, ...]
    targets: NDArray[np.float64]
    groups: NDArray[np.str_]


def annotated_classes(targets: NDArray[np.floating]) -> set[int]:
    """The classes that occur as the largest entry of a target."""
    return {int(c) for c in np.unique(targets.argmax(axis=1))}


def labelled(home: Home, corpus: Corpus) -> Labelled:
    """The labelled segments of a corpus; those of other splits than train are left out, where it has splits.

    Raises:
        CerError: no segments, no labels of basic emotions, or a training split without any, or without a class that
            another split has.
    """
    labels = corpus_table(home, corpus, "labels", ["segment_id", "video_id", "split", "status", *LABEL_COLUMNS])
    if not labels.num_rows:
        raise CerError("the corpus is empty", corpus.name, "add videos, and run `cer run` on it")
    values = matrix(labels, LABEL_COLUMNS)
    known = np.array([s == Status.OK for s in texts(labels, "status")], bool) & np.isfinite(values).all(axis=1)
    known &= np.nan_to_num(values).sum(axis=1) > 0
    if not known.any():
        raise CerError("the corpus has no labels of basic emotions", corpus.name, "register it with its annotations")
    split = labels.column("split").to_pylist()
    if any(split):
        annotated = annotated_classes(values[known])
        known &= np.array([s == TRAIN for s in split])
        if not known.any():
            raise CerError("the corpus has no labelled segment in its training split", corpus.name, "name another")
        absent = [BASIC[c] for c in sorted(annotated - annotated_classes(values[known]))]
        if absent:
            what = "the training split lacks a class that the corpus has"
            raise CerError(what, f"{', '.join(absent)} in {corpus.name}", "move videos of it into the training split")
    rows = np.flatnonzero(known)
    segments, videos = (tuple(column[i] for i in rows) for column in (texts(labels, c) for c in _IDS))
    source = {file.video_id: file.source or file.video_id for file in corpus.files}
    groups = np.array([f"{corpus.name}/{source.get(video, video)}" for video in videos])
    return Labelled(segments, videos, values[rows], groups)


def tables_on_disk(home: Home, corpus: Corpus, kind: str) -> list[str]:
    """Branches of which every shard of a corpus has a table `kind/BRANCH`, sorted."""
    folder = home.table_folder(kind)
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    made = [[home.table(f"{kind}/{n}", corpus.name, s).is_file() for s in corpus.shard_labels()] for n in names]
    return [n for n, files in zip(names, made, strict=True) if files and all(files)]


def features_of(
    home: Home, corpus: Corpus, branch: str, segments: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The features of a branch for some segments: [n, size], 0 where it has none, and [n] where it has.

    Raises:
        CerError: the table has not been made, or lacks one of the segments.
    """
    table = corpus_table(home, corpus, f"features/{branch}", ["segment_id", "status", "features"])
    position = {s: i for i, s in enumerate(texts(table, "segment_id"))}
    absent = next((s for s in segments if s not in position), None)
    if absent is not None:
        raise CerError(f"features/{branch} lacks a labelled segment", absent, f"run `cer run {corpus.name}`")
    rows = table.take(pa.array([position[s] for s in segments], pa.int64()))
    present = np.array([s == Status.OK for s in texts(rows, "status")], bool)
    values = np.zeros((len(segments), rows.schema.field("features").type.list_size), np.float32)
    if present.any():
        values[present] = np.array(rows.filter(pa.array(present)).column("features").to_pylist(), np.float32)
    return values, present


@dataclass(frozen=True)
class Windows:
    """Labelled segments with the features of one branch, in the order of corpora and of their tables.

    Args:
        features: float32 [n, size], as the feature table holds them.
        targets: float32 [n, 8], label distributions in the order of `labels.BASIC`.
        segments: segment_id of each window.
        videos: video_id of each.
        groups: what cross-validation keeps whole: corpus and source clip, the video where no clip is known.
        corpora: name of each window's corpus.
        counts: corpus -> number of its windows.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    segments: list[str]
    videos: list[str]
    groups: list[str]
    corpora: list[str]
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def classes(self) -> NDArray[np.int64]:
        """[n]: the largest entry of each target; of equal ones the first in the order of `labels.BASIC`."""
        return self.targets.argmax(1).astype(np.int64)

    @property
    def vocabulary(self) -> list[int]:
        """The classes that occur."""
        return sorted(annotated_classes(self.targets))

    def digest(self) -> str:
        """SHA-256 over names, features and targets."""
        state = hashlib.sha256("\n".join(f"{c} {s}" for c, s in zip(self.corpora, self.segments, strict=True)).encode())
        state.update(np.ascontiguousarray(self.features).tobytes())
        state.update(np.ascontiguousarray(self.targets).tobytes())
        return state.hexdigest()


def read(home: Home, corpora: Iterable[Corpus], branch: str) -> Windows:
    """The training segments of some corpora that have features of a branch.

    Raises:
        CerError: as `labelled` and `features_of`, or no labelled segment of a corpus has features.
    """
    parts = [_with_features(home, corpus, branch) for corpus in corpora]
    return Windows(
        np.concatenate([p.features for p in parts]),
        np.concatenate([p.targets for p in parts]),
        [s for p in parts for s in p.segments],
        [v for p in parts for v in p.videos],
        [g for p in parts for g in p.groups],
        [c for p in parts for c in p.corpora],
        {name: count for p in parts for name, count in p.counts.items()},
    )


def _with_features(home: Home, corpus: Corpus, branch: str) -> Windows:
    known = labelled(home, corpus)
    features, present = features_of(home, corpus, branch, known.segments)
    if not present.any():
        raise CerError("no labelled segment of the corpus has features", corpus.name, "see `cer status` for reasons")
    rows = np.flatnonzero(present)
    return Windows(
        features[rows],
        known.targets[rows].astype(np.float32),
        [known.segments[i] for i in rows],
        [known.videos[i] for i in rows],
        known.groups[rows].tolist(),
        [corpus.name] * len(rows),
        {corpus.name: len(rows)},
    )


def check(windows: Windows, where: str) -> None:
    """Refuse windows that cross-validation cannot learn from.

    Raises:
        CerError: one training video, one class, or a class that occurs in fewer than `LEAST_VIDEOS` source videos.
    """
    videos = len(set(windows.groups))
    if videos < 2:
        raise CerError(f"{videos} source video to train on", where, "cross-validation needs several: add videos")
    classes = windows.classes
    if len(windows.vocabulary) < 2:
        raise CerError(f"all windows are of the class {BASIC[windows.vocabulary[0]]}", where, "add other classes")
    for c in windows.vocabulary:
        found = {group for group, of in zip(windows.groups, classes, strict=True) if of == c}
        if len(found) < LEAST_VIDEOS:
            what = f"the class {BASIC[c]} occurs in {len(found)} source videos, at least {LEAST_VIDEOS} are needed"
            raise CerError(what, where, "add videos of it")
