"""What is odd about a labelled corpus as a whole: copies, classes that a split lacks, a training split of one clip.

Belongs here: looking at what was registered. Does not belong here: what stands in two splits (`corpora.leaks.find`), or
refusing to train (`training.folds`), which says the same of the rows that it would learn from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cer_pipeline.corpora.annotations import Notes
from cer_pipeline.corpora.splits import TRAIN
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

if TYPE_CHECKING:
    from cer_pipeline.corpora.corpus import File

FEWEST_SOURCES = 2  # with one, nothing can be held out of training


def look(files: Sequence[File], notes: Mapping[str, Notes], classes: Iterable[str] = ()) -> list[str]:
    """One line for everything that a user may want to know before training or scoring.

    Args:
        files: the videos.
        notes: what was written about each.
        classes: basic emotions that every split of this format has; by default those that occur in any.

    Raises:
        CerError: one file stands under two labels.
    """
    labelled = [file for file in files if file.labels and file.split]
    return [*_copies(files, notes), *_classes(labelled, notes, classes), *_sources(labelled)]


def _copies(files: Sequence[File], notes: Mapping[str, Notes]) -> list[str]:
    by_content: defaultdict[str, list[File]] = defaultdict(list)
    for file in files:
        by_content[file.sha256].append(file)
    copies = [same for same in by_content.values() if len({file.path for file in same}) > 1]
    for same in copies:
        clips = {told.clip for file in same if (told := notes[file.video_id].labels) and told.clip}
        if len(clips) > 1:
            where = " and ".join(file.path for file in same[:2])
            raise CerError("one file stands under two labels", where, "remove the wrong one")
    if not copies:
        return []
    first = " and ".join(file.video_id for file in copies[0][:2])
    return [f"{len(copies)} x file that stands in the corpus more than once, first {first}"]


def _classes(labelled: Sequence[File], notes: Mapping[str, Notes], classes: Iterable[str]) -> list[str]:
    seen: defaultdict[str, set[int]] = defaultdict(set)
    for file in labelled:
        told = notes[file.video_id].labels
        seen[file.split or ""] |= told.classes if told else frozenset()
    wanted = {BASIC.index(name) for name in classes} or set().union(*seen.values())
    lines = []
    for split, found in sorted(seen.items()):
        if missing := [BASIC[i] for i in sorted(wanted - found)]:
            lines.append(f"the split {split} has no {', '.join(missing)}: its scores over all classes count them as 0")
    return lines


def _sources(labelled: Sequence[File]) -> list[str]:
    sources = {file.source for file in labelled if file.split == TRAIN}
    if labelled and 0 < len(sources) < FEWEST_SOURCES:
        return [f"the training split has one source clip, {sources.pop()}: nothing can be trained on it"]
    return []
