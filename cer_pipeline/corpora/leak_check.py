"""Check of the table `labels` for held-out data in training rows, in one corpus or across corpora.

Belongs here: the comparison of the table of one shard with all registrations. Does not belong here: the definition of a
leak (`leaks`).

Registration separates the splits of a corpus already. This check reads what training reads, so it also detects two
corpora that share files, a registration that keeps leaks or was edited, and a table whose split differs from the
registration.
"""

from __future__ import annotations

from dataclasses import replace

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.leaks import Member, class_word, find
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.corpora.splits import TRAIN
from cer_pipeline.status import Status


def leaks_of(inputs: ShardInputs) -> list[str]:
    """Return one line for every leak of a shard.

    A leak is a label in a video_id; a training row that the registration holds out; a source clip or exact copy that is
    also in a more held-out split of the corpus; or an exact copy of a training row that any corpus holds out.
    """
    table = inputs.table("labels", ["video_id", "split", "status"])
    rows = zip(*(table.column(n).to_pylist() for n in table.column_names), strict=True)
    labelled = {video: split for video, split, status in rows if status == Status.OK}
    all_members = registry.members(inputs.home.root)
    known = {m.video_id: m for m in all_members if m.corpus == inputs.corpus}
    lines = [f"{video}: its id contains {word!r}" for video in sorted(labelled) if (word := class_word(video))]
    for video, split in sorted(labelled.items()):
        registered = known[video].split if video in known else None
        if split == TRAIN and registered != TRAIN:
            lines.append(f"{video} (train): a row of the split {registered or 'none'} is in training")
    others = [m for m in all_members if m.corpus != inputs.corpus]
    return lines + _shared(inputs.corpus, labelled, known, others)


def _shared(corpus: str, labelled: dict[str, str | None], known: dict[str, Member], others: list[Member]) -> list[str]:
    # The table gives the split that training reads; the registration gives the split of the other videos.
    members = [replace(m, split=labelled.get(m.video_id, m.split)) for m in known.values()]
    inside = [leak for leak in find(members) if leak.member.video_id in labelled]
    training = [m for m in members if m.split == TRAIN and m.video_id in labelled]
    held = [m for m in others if m.split != TRAIN]
    across = [leak for leak in find([*training, *held]) if leak.member.corpus == corpus]
    return [leak.line() for leak in (*inside, *across)]
