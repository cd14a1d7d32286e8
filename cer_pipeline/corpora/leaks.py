"""Leaks: source clips and copies in two splits, labels in names, and held-out videos in a training.

Belongs here: finding and removing leaks. Does not belong here: reading a format, or reporting (`corpora.registry`, the
check on `labels`).

A clip or copy belongs to the most held-out split that it is in (test, then dev, then train). Its other copies stay in
the corpus without split and labels, so that nothing is trained or chosen on them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cer_pipeline.corpora.names import distinguishable
from cer_pipeline.corpora.scan import ScannedVideo
from cer_pipeline.corpora.splits import DEV, TEST, TRAIN
from cer_pipeline.errors import CerError

HELD_OUT_FIRST: Final = (TEST, DEV, TRAIN)

EXCLUDE: Final = "exclude"  # leave the less held-out copies out of their split
REFUSE: Final = "refuse"
KEEP: Final = "keep"  # register as it is; the check on `labels` then blocks training
MODES: Final = (EXCLUDE, REFUSE, KEEP)

_CLASS_WORD: Final = re.compile(
    r"(?<![a-z])(neutral|ang(?:er|ry)|disgust(?:ed)?|fear(?:ful)?|happ(?:y|iness)|joy(?:ful)?|sad(?:ness)?"
    r"|surprised?)(?![a-z])",
    re.IGNORECASE,
)


def class_word(name: str) -> str | None:
    """Return the first class word in a name, delimited by characters that are no letters; None without one."""
    match = _CLASS_WORD.search(name)
    return match[0] if match else None


def check_name(video_id: str, where: str = "") -> None:
    """Refuse a labelled video whose id contains a class word.

    Raises:
        CerError: it does.
    """
    if word := class_word(video_id):
        what = f"the name of a labelled video contains the class word {word!r}"
        raise CerError(what, where or video_id, "rename the file or its folder")


@dataclass(frozen=True)
class Member:
    """One video, as far as it matters to leaks.

    Args:
        corpus: name of its corpus.
        video_id: its id.
        split: train, dev or test; None where it belongs to none.
        source: the clip that it was cut from; compared inside its corpus only.
        contents: digests of its file and of its captions; compared across corpora.
    """

    corpus: str
    video_id: str
    split: str | None
    source: str
    contents: tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """A member of a split that is also in a more held-out split.

    Args:
        member: the less held-out one.
        other: the more held-out one.
        why: what they share, as a clause about `member`.
    """

    member: Member
    other: Member
    why: str

    def line(self) -> str:
        """Return the message about it."""
        where = self.other.split or ""
        if self.other.corpus != self.member.corpus:
            where = f"{where} of {self.other.corpus}"
        return f"{self.member.video_id} ({self.member.split}): {self.why} {where} ({self.other.video_id})"


def find(members: Iterable[Member]) -> list[Leak]:
    """Return at most one leak for every member, in order of corpus and video_id."""
    ordered = sorted((m for m in members if m.split in HELD_OUT_FIRST), key=lambda m: (m.corpus, m.video_id))
    sources: dict[tuple[str, str], Member] = {}
    contents: dict[str, Member] = {}
    leaks: list[Leak] = []
    for split in HELD_OUT_FIRST:
        of_split = [m for m in ordered if m.split == split]
        leaks += [leak for m in of_split if (leak := _leak(m, sources, contents))]
        for m in of_split:
            sources.setdefault((m.corpus, m.source), m)
            for content in m.contents:
                contents.setdefault(content, m)
    return sorted(leaks, key=lambda leak: (leak.member.corpus, leak.member.video_id))


def _leak(member: Member, sources: dict[tuple[str, str], Member], contents: dict[str, Member]) -> Leak | None:
    if other := sources.get((member.corpus, member.source)):
        return Leak(member, other, "the source clip also stands in")
    for content in member.contents:
        if other := contents.get(content):
            return Leak(member, other, "an exact copy of it stands in")
    return None


def unique_ids(videos: Sequence[ScannedVideo]) -> list[ScannedVideo]:
    """Rename videos of one video_id in several splits: `NAME@train`, `NAME@dev`.

    Raises:
        CerError: two files of one split have the same id.
    """
    by_id: defaultdict[str, list[ScannedVideo]] = defaultdict(list)
    for video in videos:
        by_id[video.video_id].append(video)
    renamed = []
    for video_id, same in by_id.items():
        if len({video.split for video in same}) != len(same):
            where = " and ".join(distinguishable(sorted(video.path for video in same)[:2]))
            raise CerError(f"two files of one split are the video {video_id}", where, "rename or remove one")
        for video in same:
            new_id = video_id if len(same) == 1 else f"{video_id}@{video.split}"
            renamed.append(replace(video, video_id=new_id, source=video.source or video_id))
    return renamed


def separate(members: Sequence[Member], mode: str) -> tuple[dict[str, str], list[str]]:
    """Find the videos of one corpus that must leave their split.

    Args:
        members: its videos.
        mode: one of `MODES`.

    Returns:
        video_id -> reason, and at most one message.

    Raises:
        CerError: there is a leak and the mode is `REFUSE`, or the mode is unknown.
    """
    if mode not in MODES:
        raise CerError("unknown mode for leaks", mode, f"choose one of: {', '.join(MODES)}")
    leaks = find(members)
    if not leaks:
        return {}, []
    if mode == REFUSE:
        what = f"{len(leaks)} videos are also in a split that is held out"
        raise CerError(what, leaks[0].line(), "remove them, or let them be left out of their split")
    if mode == KEEP:
        return {}, [
            f"{len(leaks)} leaks between splits are kept, first {leaks[0].line()}; nothing can be trained on it"
        ]
    reasons = {
        leak.member.video_id: f"left out of {leak.member.split}: {leak.why} {leak.other.split}" for leak in leaks
    }
    message = f"{len(leaks)} videos are left out of their split, first {leaks[0].line()}"
    return reasons, [message]


def check_training(chosen: Iterable[Member], everything: Callable[[], Iterable[Member]]) -> None:
    """Refuse training videos that are held out.

    Args:
        chosen: the videos of the training.
        everything: function that returns all videos of all registered corpora.

    Raises:
        CerError: one of them is not in a training split, or is in a held-out one too.
    """
    rows = list(chosen)
    for member in rows:
        if member.split != TRAIN:
            where = f"{member.video_id} of {member.corpus}"
            raise CerError(f"a row of the split {member.split or 'none'} is in training", where, "choose train alone")
    held = [m for m in everything() if m.split in (DEV, TEST)]
    if leaks := [leak for leak in find([*rows, *held]) if leak.member.split == TRAIN]:
        raise CerError(f"{len(leaks)} training videos are held out elsewhere", leaks[0].line(), "leave them out")
