"""Training of linear heads on the features of an encoder: logistic regression, scored out of fold.

Belongs here: the fit, the choice of its penalty, folds, the card and what is written. Does not belong here: the head's
arithmetic (`heads`), reading tables (`training.labelled`) or fine-tuning of an encoder.

Protocol: folds by source video. The penalty is chosen by inner folds of the training videos, so held-out videos choose
nothing. Classes have equal weight. The features are standardised with the training rows' mean and deviation, which are
part of the written layer. The encoder stays as it is: where the head in use changes it, the new head takes over these
changes, since the features come from the changed encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline import metrics
from cer_pipeline.branches.encoders.heads import ENCODER, LinearHead
from cer_pipeline.branches.encoders.specs import RECIPES, Recipe
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.stage import Weights
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training import labelled as windows
from cer_pipeline.training.folds import Ints, grouped_folds, out_of_fold
from cer_pipeline.training.labelled import Windows
from cer_pipeline.training.model_card import class_table, model_card, score_table
from cer_pipeline.training.options import apply
from cer_pipeline.training.progress import Progress
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import load_head, save_head

PENALTIES: Final = (1.0, 0.1, 0.01, 0.001)
"""Inverse strengths C of the penalty that are tried; standardised features of 512 to 1024 values need a strong one."""
ITERATIONS: Final = 1000  # of the solver; it stops earlier at a gradient of 1e-4

Layer = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weight [k, d] and bias [k]."""


@dataclass(frozen=True)
class ProbeSettings:
    """How a linear head is trained.

    Args:
        folds: of the cross-validation.
        inner: folds of the training videos by which the penalty is chosen.
        seed: of the folds.
    """

    folds: int = 5
    inner: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("folds", "inner"):
            if getattr(self, name) < 2:
                raise CerError(f"{name} must be at least 2", str(getattr(self, name)))


def fit(features: NDArray[np.floating], classes: Ints, penalty: float, vocabulary: list[int]) -> Layer:
    """Fit a multinomial logistic regression with equally weighted classes.

    Args:
        features: [n, d].
        classes: [n].
        penalty: inverse strength C of the squared penalty on the weights of standardised features.
        vocabulary: the classes, all of which occur.

    Returns:
        The layer on features that are not standardised, a row a class of the vocabulary.
    """
    from sklearn.linear_model import LogisticRegression

    wide = features.astype(np.float64)
    mean, spread = wide.mean(0), wide.std(0)
    spread[spread < 1e-6 * spread.max()] = 1  # a constant feature
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=ITERATIONS)
    model.fit((wide - mean) / spread, classes)
    weight, bias = model.coef_, model.intercept_
    if len(vocabulary) == 2:  # scikit-learn has one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight / spread, bias - (weight / spread) @ mean


def predict(layer: Layer, features: NDArray[np.floating], vocabulary: list[int]) -> NDArray[np.float64]:
    """Features [n, d] -> probabilities [n, 8]; 0 for classes outside the vocabulary."""
    full = np.zeros((len(features), len(BASIC)))
    full[:, vocabulary] = softmax(features.astype(np.float64) @ layer[0].T + layer[1], axis=-1)
    return full


def choose_penalty(data: Windows, rows: Ints, settings: ProbeSettings) -> float:
    """Return the penalty of the least cross-entropy of equally weighted classes in inner folds of some rows."""
    classes, vocabulary = data.classes[rows], sorted(set(data.classes[rows].tolist()))
    inner = grouped_folds(classes, [data.groups[i] for i in rows], settings.inner, settings.seed, "training videos")
    weight = 1 / np.bincount(classes, minlength=len(BASIC))[classes]

    def loss(penalty: float) -> float:
        def fold(train: Ints, test: Ints) -> NDArray[np.float64]:
            own = sorted(set(classes[train].tolist()))
            layer = fit(data.features[rows[train]], classes[train], penalty, own)
            return predict(layer, data.features[rows[test]], own)

        p = out_of_fold(fold, inner)
        return float(-(weight * np.log(np.maximum(p[np.arange(len(rows)), classes], 1e-12))).sum() / len(vocabulary))

    return min(PENALTIES, key=loss)


def train(request: Request) -> dict[str, Any]:
    """Entry of `cer train scene_roberta` and the other branches of `specs.RECIPES`: labelled corpora with features.

    Options: fields of `ProbeSettings`. Written: `BRANCH.safetensors`, `.md`, `.scores.json` and `.predictions.parquet`
    (corpus, segment_id, video_id, fold, label, and the 8 out-of-fold probabilities).

    Raises:
        CerError: an unknown option, or data that cannot be learned from.
    """
    recipe = RECIPES[request.branch]
    settings = apply(ProbeSettings(), request.options)
    data = windows.read(request.home, request.corpora, recipe.branch)
    windows.check(data, ", ".join(data.counts))
    changed = _changed(recipe, request.weights)
    with one_thread():
        return _train(data, recipe, settings, changed, request)


def _changed(recipe: Recipe, weights: Weights) -> dict[str, NDArray[Any]]:
    """The changed tensors of the encoder that made the features: those of the head in use."""
    if weights.digest(recipe.head) is None:
        return {}
    tensors, _ = load_head(weights.path(recipe.head))
    return {name: value for name, value in tensors.items() if name.startswith(ENCODER)}


def _train(
    data: Windows, recipe: Recipe, settings: ProbeSettings, changed: Mapping[str, NDArray[Any]], request: Request
) -> dict[str, Any]:
    vocabulary, where = data.vocabulary, ", ".join(data.counts)
    folds = grouped_folds(data.classes, data.groups, settings.folds, settings.seed, where)
    chosen: list[float] = []
    progress: Progress = request.progress

    def fold(rows: Ints, test: Ints) -> NDArray[np.float64]:
        progress(f"{recipe.branch}: cross-validation", len(chosen), len(folds) + 1)
        chosen.append(choose_penalty(data, rows, settings))
        own = sorted(set(data.classes[rows].tolist()))
        return predict(fit(data.features[rows], data.classes[rows], chosen[-1], own), data.features[test], own)

    p = out_of_fold(fold, folds)
    progress(f"{recipe.branch}: all videos", len(folds), len(folds) + 1)
    penalty = choose_penalty(data, np.arange(len(data)), settings)
    weight, bias = fit(data.features, data.classes, penalty, vocabulary)
    tensors = {"linear.weight": weight.astype(np.float32), "linear.bias": bias.astype(np.float32), **changed}
    meta = {
        "branch": recipe.branch, "encoder": recipe.encoder, "features": recipe.features,
        "classes": [BASIC[c] for c in vocabulary], "penalty": penalty, "trained_on": data.digest(),
    }  # fmt: skip
    LinearHead(recipe, tensors, meta, recipe.branch)
    scores = {
        "settings": {**asdict(settings), "penalties": list(PENALTIES)}, "penalty": penalty, "chosen": chosen,
        "windows": len(data), "videos": len(set(data.groups)), "corpora": data.counts, "digest": data.digest(),
        "fine_tuned": bool(changed), **_scores(p, data),
    }  # fmt: skip
    out, name = request.out, recipe.branch
    columns: dict[str, Any] = {"corpus": data.corpora, "segment_id": data.segments, "video_id": data.videos}
    columns |= {"fold": _fold_of(folds, len(data)), "label": [BASIC[c] for c in data.classes]}
    columns |= {column: p[:, i] for i, column in enumerate(BASIC_COLUMNS)}
    pq.write_table(pa.table(columns), out / f"{name}.predictions.parquet")
    (out / f"{name}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{name}.md").write_text(card(recipe, scores), "utf-8")
    save_head(out / f"{name}.safetensors", tensors, meta)
    return scores


def _fold_of(folds: Any, rows: int) -> Ints:
    number = np.zeros(rows, np.int64)
    for k, fold in enumerate(folds):
        number[fold.test] = k
    return number


def _scores(p: NDArray[np.float64], data: Windows) -> dict[str, Any]:
    """Out-of-fold scores in percent over the classes that occur; intervals resample source videos."""
    truth, guess, over = data.classes, p.argmax(1), data.vocabulary

    def percent(metric: Any, classes: list[int]) -> Any:
        return metrics.bootstrap(metric, truth, guess, data.groups, classes).percent

    return {
        "macro_f1": percent(metrics.macro_f1, over),
        "uar": percent(metrics.uar, over),
        "f1": {BASIC[c]: percent(metrics.macro_f1, [c]) for c in over},
        "recall": {BASIC[c]: percent(metrics.uar, [c]) for c in over},
        "confusion": metrics.confusion(truth, guess).tolist(),
        "ece": round(100 * float(metrics.expected_calibration_error(p, truth)), 2),
    }


def card(recipe: Recipe, scores: Mapping[str, Any]) -> str:
    """Return the model card of a linear head."""
    counts = ", ".join(f"{name} ({n} windows)" for name, n in scores["corpora"].items())
    encoder = "fine-tuned, by the changes that the head holds" if scores["fine_tuned"] else "as published"
    return model_card(
        recipe.branch,
        f"""Logistic regression on {recipe.size} features of {recipe.encoder} ({recipe.features}; the encoder is
        {encoder}) to basic emotions. A class without training rows gets probability 0.""",
        data=[
            f"""{counts}; {scores["windows"]} labelled windows of {scores["videos"]} source videos. The terms of
            these corpora and of {recipe.encoder} bind the head too.""",
        ],
        digests={"names, features and labels": scores["digest"]},
        settings=scores["settings"],
        protocol=[
            f"""{scores["settings"]["folds"]} folds by source video; the penalty of a fold is chosen by inner folds of
            its training videos.""",
            f"Penalty {scores['penalty']}; chosen by fold {scores['chosen']}.",
        ],
        scores=[
            "Out of fold; 95 % intervals over resampled source videos.",
            score_table(
                ["score", "value"],
                [
                    (f"macro-F1, {len(scores['f1'])} classes", scores["macro_f1"]),
                    ("UAR", scores["uar"]),
                    ("calibration error (ECE)", scores["ece"]),
                ],
            ),
            class_table(scores["f1"], scores["recall"]),
        ],
        limits="The paper fine-tunes the encoder. Scores of this head say nothing about a fine-tuned one.",
    )
