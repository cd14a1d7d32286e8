"""The labelled captions that both heads of the scene branch are trained and scored on.

Belongs here: reading the two splits and separating them. Does not belong here: the file format
(`corpora.formats.caption_files`) or training (`train`, `train_au`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cer_pipeline.corpora.formats.caption_files import CaptionSplit, Overlap, check_separate, read_split, separate
from cer_pipeline.labels import TRAINED_CLASSES
from cer_pipeline.training.folds import check_classes


@dataclass(frozen=True)
class LabelledSplits:
    """Train and dev of a caption corpus.

    Args:
        train: the train split without the rows that share a source clip or a text with dev.
        dev: the dev split.
        shared: the source clips and texts that were in both.
        left_out: ids of the segments that left train.
    """

    train: CaptionSplit
    dev: CaptionSplit
    shared: Overlap
    left_out: list[str]


def read_labelled_splits(folder: Path) -> LabelledSplits:
    """Read train and dev of a caption corpus and separate them.

    Raises:
        CerError: a file, row or label that cannot be right, or a class without a training row.
    """
    whole, dev = (read_split(folder, name, labelled=True) for name in ("train", "dev"))
    train, shared = separate(whole, dev)
    check_separate(train, dev)
    check_classes(train.targets, TRAINED_CLASSES, f"{train.corpus} train")
    return LabelledSplits(train, dev, shared, [whole.segments[i].segment_id for i in shared.rows])
