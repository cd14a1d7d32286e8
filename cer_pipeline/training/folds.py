"""Grouped cross-validation and the out-of-fold probabilities that it yields.

Belongs here: which rows train and which are predicted, and putting the predictions together. Does not belong here: any
model, or scores (`metrics`).

A group (source video, speaker) lies in one fold whole, so no row is predicted by a model that saw another row of its
group. Fusion is trained on what comes out here, never on in-sample predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

FOLDS: Final = 5

Ints = NDArray[np.int64]
Predict = Callable[[Ints, Ints], ArrayLike]
"""(rows to train on, rows to predict) -> one value, vector or matrix for each row to predict."""


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to predict, both ascending, without a common group."""

    train: Ints
    test: Ints


def check_classes(targets: ArrayLike, needed: Sequence[int], where: str, least: int = 1) -> None:
    """Refuse training rows that lack a class.

    Args:
        targets: class index of each row.
        needed: classes that must occur.
        where: what the rows are, for the message.
        least: number of rows (or groups) that each class needs.

    Raises:
        CerError: a class has fewer rows; the line names it.
    """
    values = np.asarray(targets, np.int64)
    if not values.size:
        raise CerError("there are no rows to train on", where)
    for c in needed:
        if (count := int((values == c).sum())) < least:
            raise CerError(f"{count} rows of the class {BASIC[c]}, at least {least} needed", where, "add rows of it")


def grouped_folds(
    targets: ArrayLike, groups: Sequence[str], folds: int = FOLDS, seed: int = 0, where: str = "training rows"
) -> tuple[Fold, ...]:
    """Split rows into folds that keep groups whole and the classes about equally frequent.

    Args:
        targets: class index of each row [n].
        groups: group of each row [n].
        folds: number of folds.
        seed: of the shuffling; the same arguments always give the same folds.
        where: what the rows are, for messages.

    Raises:
        CerError: fewer groups than folds, or a class that occurs in one group only (the fold that predicts it would
            train without it).
    """
    from sklearn.model_selection import StratifiedGroupKFold

    values, names = np.asarray(targets, np.int64), np.asarray(groups)
    if len(values) != len(names):
        raise ValueError(f"{len(values)} targets for {len(names)} groups")
    count = len(set(groups))
    if count < folds:
        raise CerError(f"{count} source videos for {folds} folds", where, f"at least {folds} are needed")
    for c in sorted(set(values.tolist())):
        if len(set(names[values == c].tolist())) < 2:
            raise CerError(f"all rows of the class {BASIC[c]} are from one source video", where, "add another video")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return tuple(
        Fold(np.asarray(train, np.int64), np.asarray(test, np.int64))
        for train, test in splitter.split(np.zeros(len(values)), values, names)
    )


def random_group_folds(groups: Sequence[object] | NDArray[Any], folds: int, seed: int) -> Ints:
    """Fold of every row; groups are shuffled and dealt out, so that no group is in two folds.

    Unlike `grouped_folds` it needs no class of each row and a class may occur in one group only: the fusion is trained
    on soft targets, and its reported scores come from these folds.

    Raises:
        CerError: fewer groups than folds.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < folds:
        raise CerError(f"{folds} folds need as many groups", f"{len(names)} found", "use more videos or fewer folds")
    order = np.random.default_rng(seed).permutation(len(names))
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % folds
    return fold[member]


def out_of_fold(predict: Predict, folds: Sequence[Fold]) -> NDArray[np.float64]:
    """Predictions for every row, each by a model that saw no row of its group.

    Args:
        predict: trains on some rows and predicts others.
        folds: as `grouped_folds` gives them; their test rows cover every row once.

    Returns:
        [n, ...] in the order of the rows.

    Raises:
        ValueError: the folds do not cover the rows exactly once.
    """
    rows = np.concatenate([fold.test for fold in folds])
    known = np.unique(np.concatenate([rows, *(fold.train for fold in folds)]))
    if not np.array_equal(np.sort(rows), known) or not np.array_equal(known, np.arange(len(known))):
        raise ValueError("the test rows of the folds must cover every row once")
    parts = [np.asarray(predict(fold.train, fold.test), np.float64) for fold in folds]
    values = np.empty((len(rows), *parts[0].shape[1:]))
    for fold, part in zip(folds, parts, strict=True):
        values[fold.test] = part
    return values
