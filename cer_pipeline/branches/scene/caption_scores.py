"""The scene head over a caption corpus: each view alone, all views together, compounds, and scores.

Belongs here: predictions and scores of caption files without any video. Does not belong here: the pipeline's own
captions (`branches.scene.branch`), training (`branches.scene.train`) or reading (`corpora.formats.caption_files`).

How a corpus is predicted was fixed on the AFEW training folds, before C-EXPR-DB was run: every view that has a text for
the segment, all with equal weight, by `SceneHead.fused`; compounds by PPA on the 8 probabilities as they are, and by
PFSA on the mean state of the same texts, with the head's prototypes and temperature. No prior correction, no smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline import metrics
from cer_pipeline.branches.scene.caption_head import CLASSES, Embed, SceneHead
from cer_pipeline.compound.pfsa import pfsa
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.corpora.formats.caption_files import CaptionSplit
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND_COLUMNS

FUSED: Final = "all views"


def predict(head: SceneHead, split: CaptionSplit, embed: Embed) -> dict[str, NDArray[np.float64]]:
    """Probabilities [n, 8] by each view alone (nan where it has no text) and, under `FUSED`, by all together."""
    every = list(dict.fromkeys(text for texts in split.texts.values() for text in texts if text is not None))
    known = dict(zip(every, embed(every), strict=True))  # a text is needed twice, and the encoder is slow

    def recall(texts: Sequence[str]) -> NDArray[Any]:
        return np.stack([known[text] for text in texts]) if texts else np.empty((0, len(head.mean)))

    found: dict[str, NDArray[np.float64]] = {}
    for view, texts in split.texts.items():
        rows = [i for i, text in enumerate(texts) if text is not None]
        found[view] = np.full((len(split), len(BASIC)), np.nan)
        found[view][rows] = head.probabilities([text for text in texts if text is not None], recall)
    return found | {FUSED: head.fused(list(split.texts.values()), recall)}


def predictions_table(split: CaptionSplit, predicted: Mapping[str, NDArray[np.float64]], **constant: str) -> pa.Table:
    """Predictions as rows: the constants, system, segment_id, video_id, segment and the 8 probabilities."""
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


def compound_table(split: CaptionSplit, head: SceneHead, embed: Embed) -> pa.Table:
    """The compounds of every segment from all its texts: segment_id, method (ppa or pfsa), seven probabilities.

    Raises:
        ValueError: the head holds no prototypes.
    """
    if head.prototypes is None:
        raise ValueError("the head holds no prototypes for PFSA")
    views = list(split.texts.values())
    by_method = {
        "ppa": ppa(head.fused(views, embed)),
        "pfsa": pfsa(head.features(views, embed), head.prototypes, float(head.meta["pfsa_temperature"])),
    }
    tables = []
    for method, p in by_method.items():
        columns: dict[str, Any] = {
            "segment_id": [s.segment_id for s in split.segments],
            "method": [method] * len(split),
        }
        tables.append(pa.table(columns | {name: p[:, i] for i, name in enumerate(COMPOUND_COLUMNS)}))
    return pa.concat_tables(tables)


def score(probabilities: NDArray[np.float64], targets: NDArray[np.int64], videos: Sequence[str]) -> dict[str, Any]:
    """Scores of one system over the segments that it has a value for.

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
    found: dict[str, Any] = {"n": int(rows.sum()), "videos": len(set(names.tolist())), "coverage": float(rows.mean())}
    for name, metric in (("macro_f1", metrics.macro_f1), ("uar", metrics.uar)):
        s = metrics.bootstrap(metric, truth, guess, names, CLASSES)
        found[name] = [_percent(v) for v in (s.value, s.low, s.high)]
        found.setdefault("union", {})[name] = _percent(float(metric(matrix, union)))
    for name, metric in (("f1", metrics.f1), ("recall", metrics.recall)):
        found[name] = {BASIC[c]: _percent(float(v)) for c, v in zip(CLASSES, metric(matrix, CLASSES), strict=True)}
    found["accuracy"] = _percent(float(metrics.accuracy(matrix)))
    found["ece"] = _percent(metrics.expected_calibration_error(p, truth))
    found["log_loss"] = round(metrics.log_loss(p, truth), 4)
    return found | {"confusion": matrix.tolist()}


def _percent(value: float) -> float:
    return round(100 * float(value), 2)
