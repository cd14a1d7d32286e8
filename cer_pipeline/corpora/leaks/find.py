"""What may not stand in two splits, and how it is kept apart.

Belongs here: finding source clips and copies that two splits share, names that spell a label, and rows that a training
may not see. Does not belong here: reading a format, or telling anybody (`registry`, the check on `labels`).

The rule: a clip or a copy belongs to the split that is held out most (test, then dev, then train). Its other copies
stay in the corpus but lose their split and their labels, so that nothing is learned or chosen on them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cer_pipeline.corpora.formats.names import shown
from cer_pipeline.corpora.formats.registry import Found
from cer_pipeline.corpora.splits import DEV, TEST, TRAIN
from cer_pipeline.errors import CerError

HELD_OUT_FIRST: Final = (TEST, DEV, TRAIN)

EXCLUDE: Final = "exclude"  # leave the less held-out copies out of their split
REFUSE: Final = "refuse"
KEEP: Final = "keep"  # register as it is; the check on `labels` then stops whatever would learn from it
MODES: Final = (EXCLUDE, REFUSE, KEEP)

_CLASS_WORD: Final = re.compile(
    r"(?<![a-z])(neutral|ang(?:er|ry)|disgust(?:ed)?|fear(?:ful)?|happ(?:y|iness)|joy(?:ful)?|sad(?:ness)?"
    r"|surprised?)(?![a-z])",
    re.IGNORECASE,
)


def class_word(name: str) -> str | None:
    """The first word for a class that a name spells, on its own between other characters; None without one."""
    found = _CLASS_WORD.search(name)
    return found[0] if found else None


def check_name(video_id: str, where: str = "") -> None:
    """Refuse a labelled video whose id spells a label.

    Raises:
        CerError: it does.
    """
    if word := class_word(video_id):
        what = f"the name of a labelled video spells the class word {word!r}"
        raise CerError(what, where or video_id, "rename the file or its folder")


@dataclass(frozen=True)
class Member:
    """One video as the search for leaks sees it.

    Args:
        corpus: name of its corpus.
        video_id: its id.
        split: train, dev or test; None where it belongs to none.
        source: the clip that it was cut from, whose name holds inside its corpus only.
        contents: digests of its file and of its texts, which hold everywhere.
    """

    corpus: str
    video_id: str
    split: str | None
    source: str
    contents: tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """A member of a split that also stands in one that is held out more.

    Args:
        member: the less held-out one.
        other: the more held-out one.
        why: what they share, as a clause about `member`.
    """

    member: Member
    other: Member
    why: str

    def line(self) -> str:
        """For people."""
        where = self.other.split or ""
        if self.other.corpus != self.member.corpus:
            where = f"{where} of {self.other.corpus}"
        return f"{self.member.video_id} ({self.member.split}): {self.why} {where} ({self.other.video_id})"


def find(members: Iterable[Member]) -> list[Leak]:
    """At most one leak for every member, members in order of corpus and id."""
    ordered = sorted((m for m in members if m.split in HELD_OUT_FIRST), key=lambda m: (m.corpus, m.video_id))
    sources: dict[tuple[str, str], Member] = {}
    contents: dict[str, Member] = {}
    leaks: list[Leak] = []
    for split in HELD_OUT_FIRST:
        mine = [m for m in ordered if m.split == split]
        leaks += [leak for m in mine if (leak := _leak(m, sources, contents))]
        for m in mine:
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


def tell_apart(files: Sequence[Found]) -> list[Found]:
    """Give copies of one video_id in several splits ids of their own: `NAME@train`, `NAME@dev`.

    Raises:
        CerError: two files of one split have one id.
    """
    by_id: defaultdict[str, list[Found]] = defaultdict(list)
    for file in files:
        by_id[file.video_id].append(file)
    out = []
    for video_id, same in by_id.items():
        if len({file.split for file in same}) != len(same):
            where = " and ".join(shown(sorted(file.path for file in same)[:2]))
            raise CerError(f"two files of one split are the video {video_id}", where, "rename or remove one")
        alone = len(same) == 1
        out += [
            replace(file, video_id=video_id if alone else f"{video_id}@{file.split}", source=file.source or video_id)
            for file in same
        ]
    return out


def separate(members: Sequence[Member], mode: str) -> tuple[dict[str, str], list[str]]:
    """Which videos of one corpus leave their split.

    Args:
        members: its videos.
        mode: one of `MODES`.

    Returns:
        (video_id -> reason, one line for people where there is anything to tell).

    Raises:
        CerError: there is a leak and the mode is `REFUSE`, or the mode is unknown.
    """
    if mode not in MODES:
        raise CerError("unknown way with leaks", mode, f"choose one of: {', '.join(MODES)}")
    leaks = find(members)
    if not leaks:
        return {}, []
    if mode == REFUSE:
        what = f"{len(leaks)} videos also stand in a split that is held out"
        raise CerError(what, leaks[0].line(), "remove them, or let them be left out of their split")
    if mode == KEEP:
        return {}, [
            f"{len(leaks)} leaks between splits are kept, first {leaks[0].line()}; nothing can be trained on it"
        ]
    reasons = {
        leak.member.video_id: f"left out of {leak.member.split}: {leak.why} {leak.other.split}" for leak in leaks
    }
    told = f"{len(leaks)} videos are left out of their split, first {leaks[0].line()}"
    return reasons, [told]


def check_training(chosen: Iterable[Member], everything: Callable[[], Iterable[Member]]) -> None:
    """Refuse a selection of videos to learn from that is not apart from what is held out.

    Args:
        chosen: what would be learned from.
        everything: all videos of all registered corpora.

    Raises:
        CerError: one of them is not in a training split, or stands in a held-out one too.
    """
    rows = list(chosen)
    for member in rows:
        if member.split != TRAIN:
            where = f"{member.video_id} of {member.corpus}"
            raise CerError(f"a row of the split {member.split or 'none'} is in training", where, "choose train alone")
    held = [m for m in everything() if m.split in (DEV, TEST)]
    if leaks := find([*rows, *held]):
        mine = [leak for leak in leaks if leak.member.split == TRAIN]
        if mine:
            raise CerError(f"{len(mine)} training videos are held out elsewhere", mine[0].line(), "leave them out")
