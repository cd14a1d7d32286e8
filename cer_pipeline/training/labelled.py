"""Labelled windows for training: a branch's features beside the labels, out of the tables of registered corpora.

Belongs here: reading, joining and refusing what cannot be learned from. Does not belong here: any network or loop.

Only windows of the training split are read: where a corpus has splits, `train`; where it has none, all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.shards import corpus_table
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.status import Status
from cer_pipeline.store.home import Home
from cer_pipeline.tables import LABEL_COLUMNS

TRAIN: Final = "train"
LEAST_VIDEOS: Final = 3
"""Source videos that each class needs: one may be held out, one watched, and one is left to learn from."""


@dataclass(frozen=True)
class Windows:
    """Labelled windows, in the order of corpora and of their tables.

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
        return sorted(set(self.classes.tolist()))

    def digest(self) -> str:
        """SHA-256 over names, features and targets."""
        state = hashlib.sha256("\n".join(f"{c} {s}" for c, s in zip(self.corpora, self.segments, strict=True)).encode())
        state.update(np.ascontiguousarray(self.features).tobytes())
        state.update(np.ascontiguousarray(self.targets).tobytes())
        return state.hexdigest()


def joined(features: pa.Table, labels: pa.Table, corpus: str, sources: Mapping[str, str] | None = None) -> Windows:
    """Windows of one corpus that have both features and a label.

    Args:
        features: columns segment_id, video_id, features, status.
        labels: columns segment_id, split, `tables.LABEL_COLUMNS`, status.
        corpus: its name.
        sources: video_id -> the clip that it was cut from; the video itself where it says nothing.

    Raises:
        CerError: the corpus has no window, no label, no training split, one that lacks a class of the others, or no
            window with both features and a label.
    """
    if not labels.num_rows:
        raise CerError("the corpus is empty", corpus, "add videos, and run `cer run` on it")
    rows = labels.to_pylist()
    known = [r for r in rows if r["status"] == Status.OK and r[LABEL_COLUMNS[0]] is not None]
    if not known:
        raise CerError("the corpus has no labels of basic emotions", corpus, "register it with its annotations")
    if any(r["split"] for r in rows):
        every, known = known, [r for r in known if r["split"] == TRAIN]
        if not known:
            raise CerError("the corpus has no labelled window in its training split", corpus, "name another corpus")
        if lost := _occurring(every) - _occurring(known):
            where = f"{', '.join(BASIC[c] for c in sorted(lost))} in {corpus}"
            raise CerError("the training split lacks a class that the corpus has", where, "move videos of it there")
    target = {r["segment_id"]: [r[name] for name in LABEL_COLUMNS] for r in known}
    used = [r for r in features.to_pylist() if r["status"] == Status.OK and r["segment_id"] in target]
    if not used:
        raise CerError("no labelled window of the corpus has features", corpus, "see `cer status` for the reasons")
    return Windows(
        features=np.array([r["features"] for r in used], np.float32),
        targets=np.array([target[r["segment_id"]] for r in used], np.float32),
        segments=[r["segment_id"] for r in used],
        videos=[r["video_id"] for r in used],
        groups=[f"{corpus}/{(sources or {}).get(r['video_id']) or r['video_id']}" for r in used],
        corpora=[corpus] * len(used),
        counts={corpus: len(used)},
    )


def _occurring(rows: Iterable[Mapping[str, Any]]) -> set[int]:
    return {int(np.argmax([row[name] for name in LABEL_COLUMNS])) for row in rows}


def concatenated(parts: Sequence[Windows]) -> Windows:
    """The windows of several corpora, one after another."""
    return Windows(
        np.concatenate([p.features for p in parts]),
        np.concatenate([p.targets for p in parts]),
        [s for p in parts for s in p.segments],
        [v for p in parts for v in p.videos],
        [g for p in parts for g in p.groups],
        [c for p in parts for c in p.corpora],
        {name: count for p in parts for name, count in p.counts.items()},
    )


def read(home: Home, corpora: Iterable[Corpus], branch: str) -> Windows:
    """The training windows of some corpora.

    Raises:
        CerError: as `joined`, or a table has not been made.
    """
    parts = []
    for corpus in corpora:
        features = corpus_table(
            home, corpus.name, f"features/{branch}", ["segment_id", "video_id", "features", "status"]
        )
        labels = corpus_table(home, corpus.name, "labels", ["segment_id", "split", *LABEL_COLUMNS, "status"])
        parts.append(joined(features, labels, corpus.name, {file.video_id: file.source for file in corpus.files}))
    return concatenated(parts)


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
        found = {group for group, own in zip(windows.groups, classes, strict=True) if own == c}
        if len(found) < LEAST_VIDEOS:
            what = f"the class {BASIC[c]} occurs in {len(found)} source videos, at least {LEAST_VIDEOS} are needed"
            raise CerError(what, where, "add videos of it")
