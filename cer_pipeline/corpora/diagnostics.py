"""Diagnostics of a labelled corpus as a whole: copies, classes that a split lacks, a training split of one clip.

Belongs here: checks of what was registered. Does not belong here: videos in two splits (`corpora.leaks`), or the
checks of the rows that a training reads (`training.folds`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cer_pipeline.corpora.annotations import VideoAnnotations
from cer_pipeline.corpora.splits import TRAIN
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

if TYPE_CHECKING:
    from cer_pipeline.corpora.corpus import File

MIN_SOURCES: Final = 2  # with one, nothing can be held out of training


def diagnose(
    files: Sequence[File], annotations: Mapping[str, VideoAnnotations], classes: Iterable[str] = ()
) -> list[str]:
    """Return one line for every fact that matters to training or scoring.

    Args:
        files: the videos.
        annotations: video_id -> its annotations.
        classes: basic emotions that every split of this format has; by default those that occur in any.

    Raises:
        CerError: one file has two labels.
    """
    labelled = [file for file in files if file.labels and file.split]
    return [*_copies(files, annotations), *_missing_classes(labelled, annotations, classes), *_sources(labelled)]


def _copies(files: Sequence[File], annotations: Mapping[str, VideoAnnotations]) -> list[str]:
    by_content: defaultdict[str, list[File]] = defaultdict(list)
    for file in files:
        by_content[file.sha256].append(file)
    copies = [same for same in by_content.values() if len({file.path for file in same}) > 1]
    for same in copies:
        labels = [annotations[file.video_id].labels for file in same]
        if len({label.clip for label in labels if label and label.clip}) > 1:
            where = " and ".join(file.path for file in same[:2])
            raise CerError("one file has two labels", where, "remove the wrong one")
    if not copies:
        return []
    first = " and ".join(file.video_id for file in copies[0][:2])
    return [f"{len(copies)} x file that occurs more than once in the corpus, first {first}"]


def _missing_classes(
    labelled: Sequence[File], annotations: Mapping[str, VideoAnnotations], classes: Iterable[str]
) -> list[str]:
    present: defaultdict[str, set[int]] = defaultdict(set)
    for file in labelled:
        labels = annotations[file.video_id].labels
        present[file.split or ""] |= labels.classes if labels else frozenset()
    expected = {BASIC.index(name) for name in classes} or set().union(*present.values())
    return [
        f"the split {split} has no {', '.join(BASIC[i] for i in sorted(expected - of_split))}: its scores over all "
        "classes count them as 0"
        for split, of_split in sorted(present.items())
        if expected - of_split
    ]


def _sources(labelled: Sequence[File]) -> list[str]:
    sources = {file.source for file in labelled if file.split == TRAIN}
    if labelled and 0 < len(sources) < MIN_SOURCES:
        return [f"the training split has one source clip, {sources.pop()}: nothing can be trained on it"]
    return []
