"""Whether anything could be learned from rows of `labels` that is held out, here or in another corpus.

Belongs here: holding the table of one shard against all registrations. Does not belong here: what a leak is (`find`).

Registering a corpus keeps its splits apart already. This looks at what training would read, so it also finds what
registering cannot see: two corpora that share files, a registration that keeps leaks or was edited, a table that says
another split than the registration.
"""

from __future__ import annotations

from dataclasses import replace

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.leaks.find import Member, class_word, find
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.corpora.splits import TRAIN
from cer_pipeline.status import Status


def leaks_of(inputs: ShardInputs) -> list[str]:
    """One line for every leak of a shard; none where all is well.

    Found are: a label in a video_id; a row of training that the registration holds out; a source clip or an exact copy
    that a more held-out split of the corpus also has; an exact copy of a training row that any corpus holds out.
    """
    table = inputs.table("labels", ["video_id", "split", "status"])
    rows = zip(*(table.column(n).to_pylist() for n in table.column_names), strict=True)
    labelled = {video: split for video, split, status in rows if status == Status.OK}
    everyone = registry.members(inputs.home.root)
    known = {m.video_id: m for m in everyone if m.corpus == inputs.corpus}
    lines = [f"{video}: its id spells {word!r}" for video in sorted(labelled) if (word := class_word(video))]
    for video, split in sorted(labelled.items()):
        registered = known[video].split if video in known else None
        if split == TRAIN and registered != TRAIN:
            lines.append(f"{video} (train): a row of the split {registered or 'none'} is in training")
    others = [m for m in everyone if m.corpus != inputs.corpus]
    return lines + _shared(inputs.corpus, labelled, known, others)


def _shared(corpus: str, labelled: dict[str, str | None], known: dict[str, Member], others: list[Member]) -> list[str]:
    # The table says what training would take; the registration says what the rest of the corpus holds out.
    own = [replace(m, split=labelled.get(m.video_id, m.split)) for m in known.values()]
    inside = [leak for leak in find([*own]) if leak.member.video_id in labelled]
    learned = [m for m in own if m.split == TRAIN and m.video_id in labelled]
    held = [m for m in others if m.split != TRAIN]
    across = [leak for leak in find([*learned, *held]) if leak.member.corpus == corpus]
    return [leak.line() for leak in (*inside, *across)]
