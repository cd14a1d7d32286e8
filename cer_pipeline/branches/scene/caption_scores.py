"""Predictions and scores of the caption head over caption files: each view alone, and all views together.

Belongs here: what needs no video. Does not belong here: the captions of the pipeline (`branches.scene.branch`),
training (`branches.scene.train`) or reading files (`corpora.formats.caption_files`).

The combination was fixed on the AFEW training folds: every view that has a text for the segment, all with equal weight,
by `SceneHead.fused`. No prior correction, no smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import metrics
from cer_pipeline.branches.scene.caption_head import Embed, SceneHead
from cer_pipeline.corpora.formats.caption_files import CaptionSplit
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, TRAINED_CLASSES

FUSED: Final = "all views"


def predict(head: SceneHead, split: CaptionSplit, embed: Embed) -> dict[str, NDArray[np.float64]]:
    """Return probabilities [n, 8] by each view alone (nan where it has no text) and, under `FUSED`, by all together."""
    distinct = list(dict.fromkeys(text for texts in split.texts.values() for text in texts if text is not None))
    states = dict(zip(distinct, embed(distinct), strict=True))  # a text is needed twice, and the encoder is slow

    def state_of(texts: Sequence[str]) -> NDArray[Any]:
        return np.stack([states[text] for text in texts]) if texts else np.empty((0, len(head.mean)))

    predicted: dict[str, NDArray[np.float64]] = {}
    for view, texts in split.texts.items():
        rows = [i for i, text in enumerate(texts) if text is not None]
        predicted[view] = np.full((len(split), len(BASIC)), np.nan)
        predicted[view][rows] = head.probabilities([text for text in texts if text is not None], state_of)
    return predicted | {FUSED: head.fused(list(split.texts.values()), state_of)}


def predictions_table(split: CaptionSplit, predicted: Mapping[str, NDArray[np.float64]], **constant: str) -> pa.Table:
    """Return predictions as rows: the constants, system, segment_id, video_id, segment and the 8 probabilities."""
    tables = []
    for system, p in predicted.items():
        columns: dict[str, Any] = {name: [value] * len(split) for name, value in constant.items()}
        columns |= {"system": [system] * len(split), "segment_id": [s.segment_id for s in split.segments]}
        columns |= {
            "video_id": list(split.videos),
            "segment": pa.array([s.segment for s in split.segments], pa.int32()),
        }
        columns |= {name: pa.array(p[:, i], from_pandas=True) for i, name in enumerate(BASIC_COLUMNS)}
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def score(probabilities: NDArray[np.float64], targets: NDArray[np.int64], videos: Sequence[str]) -> dict[str, Any]:
    """Return the scores of one system over the segments that it has a value for.

    Returns:
        In percent: `macro_f1` and `uar` as [value, low, high] over the 7 classes of AFEW, with intervals over
        resampled source videos; the same two under `union`, over the classes labelled or predicted (the paper's rule);
        `f1` and `recall` by class; `accuracy`; `ece`. Also `log_loss` in nats, `coverage` 0..1, `n`, `videos`, and the
        8 x 8 `confusion` (rows are labels).
    """
    rows = np.isfinite(probabilities).all(1)
    p, truth = probabilities[rows], np.asarray(targets)[rows]
    names, guess = np.asarray(videos)[rows], p.argmax(1)
    matrix = metrics.confusion(truth, guess)
    union = metrics.union_classes(truth, guess)
    scores: dict[str, Any] = {"n": int(rows.sum()), "videos": len(set(names.tolist())), "coverage": float(rows.mean())}
    for name, metric in (("macro_f1", metrics.macro_f1), ("uar", metrics.uar)):
        scores[name] = metrics.bootstrap(metric, truth, guess, names, TRAINED_CLASSES).percent
        scores.setdefault("union", {})[name] = _percent(float(metric(matrix, union)))
    for name, metric in (("f1", metrics.f1), ("recall", metrics.recall)):
        scores[name] = {
            BASIC[c]: _percent(float(v)) for c, v in zip(TRAINED_CLASSES, metric(matrix, TRAINED_CLASSES), strict=True)
        }
    scores["accuracy"] = _percent(float(metrics.accuracy(matrix)))
    scores["ece"] = _percent(metrics.expected_calibration_error(p, truth))
    scores["log_loss"] = round(metrics.log_loss(p, truth), 4)
    return scores | {"confusion": matrix.tolist()}


def _percent(value: float) -> float:
    return round(100 * float(value), 2)
