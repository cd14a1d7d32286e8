"""Training of the feature-level fusion on feature tables of labelled corpora.

Belongs here: the loop, early stopping on an inner fold, out-of-fold scores, and what is written. Does not belong here:
the network (`feature_level`), or reading labels (`data`).

    cer train feature_fusion --corpora NAME[,NAME…] [--set branches=face_static,scene_minilm,text_minilm]

Loss, optimiser and schedule are those of the published code: soft focal loss (gamma 2, smoothing 0.1) with balanced
class weights, AdamW at 1e-3 with a cosine over ten steps, batches of 32, patience 20. Branches are left out at random
in training, so that every subset of them is met.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.feature_level import FLAT, FeatureFusion, FeatureHead, Shape, save
from cer_pipeline.fusion.train.fit import dropped
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.metrics import RESAMPLES, bootstraps, macro_f1, uar
from cer_pipeline.store.home import Home
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training import loop
from cer_pipeline.training.folds import random_group_folds
from cer_pipeline.training.labelled import features_of, labelled, tables_on_disk
from cer_pipeline.training.loop import Loop
from cer_pipeline.training.losses import class_weights, soft_focal
from cer_pipeline.training.model_card import model_card, score_table
from cer_pipeline.training.options import apply
from cer_pipeline.training.trainer import Request

NAME: Final = "feature_fusion"
BATCH: Final = 32
RATE: Final = 1e-3
PERIOD: Final = 10  # steps of the cosine, as published
GAIN: Final = 1e-3  # by which the validation loss must fall to count as better, as published

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureSettings:
    """How the fusion is trained.

    Args:
        epochs: at most.
        patience: epochs without a lower loss on the validation groups after which training stops.
        leave_out: share of segments that lose branches at random in every step.
        folds: outer folds.
        seed: of first values, batches, folds and what is left out.
    """

    epochs: int = 100
    patience: int = 20
    leave_out: float = 0.3
    folds: int = 5
    seed: int = 42


@dataclass(frozen=True)
class FeatureData:
    """Labelled segments with the features of some branches.

    Args:
        branches: M names.
        features: of each [n, size]; 0 where the branch has no value.
        present: [n, M].
        targets: label distributions [n, 8].
        segments: segment_id of each.
        videos: video_id of each.
        groups: what cross-validation keeps whole.
        corpora: name of each segment's corpus.
    """

    branches: tuple[str, ...]
    features: tuple[Floats, ...]
    present: NDArray[np.bool_]
    targets: Floats
    segments: tuple[str, ...]
    videos: tuple[str, ...]
    groups: NDArray[np.str_]
    corpora: tuple[str, ...]

    @property
    def classes(self) -> Rows:
        """[n]: the largest entry of each target."""
        return self.targets.argmax(axis=1)

    def digest(self) -> str:
        """SHA-256 over names, features and targets."""
        state = hashlib.sha256("\n".join([*self.branches, *self.corpora, *self.segments]).encode())
        for values in (*self.features, self.present, self.targets):
            state.update(np.ascontiguousarray(values).tobytes())
        return state.hexdigest()


def train(request: Request) -> dict[str, Any]:
    """Entry of `cer train feature_fusion`.

    Options: `branches` (names with commas; all whose features every corpus has unless given), else fields of
    `FeatureSettings`.
    """
    settings = apply(FeatureSettings(), request.options, also=("branches",))
    names = [b.strip() for b in request.options.get("branches", "").split(",") if b.strip()]
    data = read(request.home, request.corpora, names)
    return train_features(data, request.out, settings, progress=request.progress)


def read(home: Home, corpora: Sequence[Corpus], branches: Sequence[str] = ()) -> FeatureData:
    """The labelled segments of some corpora; those of other splits than train are left out, where there are splits.

    Raises:
        CerError: no labels, or branches without a feature table.
    """
    made = [tables_on_disk(home, corpus, "features") for corpus in corpora]
    shared = [b for b in made[0] if all(b in own for own in made)]
    wanted = tuple(branches) or tuple(shared)
    lost = [b for b in wanted if b not in shared]
    if lost or not wanted:
        where = f"{', '.join(lost) or 'any branch'} in {', '.join(c.name for c in corpora)}"
        raise CerError("a corpus has no feature table", where, "run `cer run` on it, or name other branches")
    known = [labelled(home, corpus) for corpus in corpora]
    features, present = [], []
    for branch in wanted:
        parts = [features_of(home, c, branch, k.segments) for c, k in zip(corpora, known, strict=True)]
        features.append(np.concatenate([values for values, _ in parts]))
        present.append(np.concatenate([seen for _, seen in parts]))
    return FeatureData(
        wanted,
        tuple(features),
        np.stack(present, axis=1),
        np.concatenate([k.targets for k in known]).astype(np.float32),
        tuple(s for k in known for s in k.segments),
        tuple(v for k in known for v in k.videos),
        np.concatenate([k.groups for k in known]),
        tuple(c.name for c, k in zip(corpora, known, strict=True) for _ in k.segments),
    )


def fit(data: FeatureData, rows: Rows, settings: FeatureSettings, shape: Shape | None = None) -> FeatureHead:
    """Train on some rows; a fifth of their groups is for validation, and its epoch of lowest loss is taken.

    The same arguments give the same bits on one machine.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return _fit(data, rows, settings, shape or Shape())


def _fit(data: FeatureData, rows: Rows, settings: FeatureSettings, shape: Shape) -> FeatureHead:
    count = min(5, len(set(data.groups[rows])))
    validated = (
        random_group_folds(data.groups[rows], count, settings.seed) == 0 if count > 1 else np.zeros(len(rows), bool)
    )
    fitted, other = rows[~validated], rows[validated] if validated.any() else rows
    means, scales = zip(
        *(_moments(v[fitted], data.present[fitted, i]) for i, v in enumerate(data.features)), strict=True
    )
    network = FeatureFusion([v.shape[1] for v in data.features], shape, means, scales)
    targets = torch.from_numpy(data.targets / data.targets.sum(axis=1, keepdims=True))
    weights = class_weights(targets[fitted])
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, PERIOD)
    rng = np.random.default_rng(settings.seed)

    def batches(_: int) -> list[Rows]:
        network.train()
        return np.array_split(rng.permutation(fitted), max(1, round(len(fitted) / BATCH)))

    def loss(batch: Rows, _: int) -> torch.Tensor:
        here = data.present[batch]
        hit = rng.random(len(batch)) < settings.leave_out
        here = np.where(hit[:, None], dropped(here, rng), here)
        return soft_focal(_logits(network, data, batch, here), targets[batch], weights)

    def score() -> float:
        network.eval()
        with torch.no_grad():
            return -float(soft_focal(_logits(network, data, other, data.present[other]), targets[other], weights))

    limits = Loop(settings.epochs, patience=settings.patience, gain=GAIN)
    loop.train(dict(network.named_parameters()), optimiser, limits, batches, loss, schedule, score)
    known = np.bincount(data.classes[rows], minlength=len(BASIC)) > 0
    sizes = tuple(v.shape[1] for v in data.features)
    return FeatureHead(network.eval(), data.branches, sizes, tuple(bool(k) for k in known))


def _logits(network: FeatureFusion, data: FeatureData, rows: Rows, present: NDArray[np.bool_]) -> torch.Tensor:
    return network([torch.from_numpy(v[rows]) for v in data.features], torch.from_numpy(present))


def predict(head: FeatureHead, data: FeatureData, rows: Rows) -> Floats:
    """What a head says of some rows [n, 8]."""
    features = {b: v[rows] for b, v in zip(data.branches, data.features, strict=True)}
    return head.probabilities(features, {b: data.present[rows, i] for i, b in enumerate(data.branches)})


def train_features(
    data: FeatureData,
    out: Path,
    settings: FeatureSettings | None = None,
    shape: Shape | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate, train and write: `feature_fusion.predictions.parquet`, `.scores.json`, `.md`, `.safetensors`.

    Raises:
        CerError: the data cannot be learned from; nothing is written then.
    """
    settings, tell = settings or FeatureSettings(), progress or (lambda _what, _done, _all: None)
    usable = np.flatnonzero(data.present.sum(axis=1) > 0)
    where = ", ".join(dict.fromkeys(data.corpora))
    if not len(usable):
        raise CerError("no labelled segment has features", where, "see `cer status` for the reasons")
    if len(set(data.groups[usable])) < 2:
        raise CerError("one source video to train on", where, "cross-validation needs several: add videos")
    if len(set(data.classes[usable])) < 2:
        raise CerError(f"all segments are of the class {BASIC[data.classes[usable][0]]}", where, "add other classes")
    fold = random_group_folds(data.groups[usable], settings.folds, settings.seed)
    p = np.zeros((len(usable), len(BASIC)), np.float32)
    for i in range(settings.folds):
        tell("cross-validation", i, settings.folds)
        p[fold == i] = predict(fit(data, usable[fold != i], settings, shape), data, usable[fold == i])
    tell("fitting", 0, 1)
    head = fit(data, usable, settings, shape)
    truth = data.classes[usable]
    over = sorted({int(c) for c in truth})
    found = bootstraps({"macro_f1": (macro_f1, over), "uar": (uar, over)}, truth, p.argmax(axis=1), data.groups[usable])
    scores: dict[str, Any] = {
        "settings": asdict(settings),
        "shape": asdict(head.network.shape),
        "branches": dict(zip(data.branches, head.sizes, strict=True)),
        "coverage": {b: round(float(data.present[:, i].mean()), 4) for i, b in enumerate(data.branches)},
        "rows": {"train": len(usable), "no branch": len(data.segments) - len(usable)},
        "digest": data.digest(),
        "out_of_fold": {m: s.percent for m, s in found.items()},
    }
    _write(out, data, usable, fold, p, head, scores)
    tell("done", 1, 1)
    return scores


def _write(
    out: Path, data: FeatureData, usable: Rows, fold: Rows, p: Floats, head: FeatureHead, scores: Mapping[str, Any]
) -> None:
    """All files of a finished training, the weights last."""
    out.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "corpus": [data.corpora[i] for i in usable],
        "segment_id": [data.segments[i] for i in usable],
        "video_id": [data.videos[i] for i in usable],
        "fold": fold,
        "label": [BASIC[c] for c in data.classes[usable]],
    }
    columns |= {name: p[:, i].astype(np.float64) for i, name in enumerate(BASIC_COLUMNS)}
    pq.write_table(pa.table(columns), out / f"{NAME}.predictions.parquet")
    (out / f"{NAME}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{NAME}.md").write_text(card(scores), "utf-8")
    save(out / f"{NAME}.safetensors", head, {"branch": NAME, "trained_on": scores["digest"]})


def card(scores: Mapping[str, Any]) -> str:
    """Return the model card."""
    coverage = scores["coverage"]
    return model_card(
        f"{NAME}: a query over the features of {', '.join(scores['branches'])}",
        "`cer_pipeline/fusion/feature_level.py` describes the network. Its values do not split into parts by branch.",
        data=[
            f"{scores['rows']['train']} labelled segments. The licence of the corpora holds for this head too.",
            *(f"{name}: {size} features, {100 * coverage[name]:.0f} %" for name, size in scores["branches"].items()),
        ],
        digests={"features and labels": scores["digest"]},
        settings=scores["settings"],
        protocol=[
            f"""{scores["settings"]["folds"]} outer folds that keep source videos whole; 95 % intervals over
            resampled source videos ({RESAMPLES} resamples).""",
            f"Shape: `{json.dumps(scores['shape'])}`.",
        ],
        scores=["Out of fold:", score_table(["score", "value"], scores["out_of_fold"].items())],
    )


def _moments(values: Floats, present: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the features over the segments that have them."""
    if not present.any():
        return torch.zeros(values.shape[1]), torch.ones(values.shape[1])
    own = values[present].astype(np.float64)
    scale = own.std(axis=0)
    return (
        torch.from_numpy(own.mean(axis=0).astype(np.float32)),
        torch.from_numpy(np.where(scale > FLAT, scale, 1.0).astype(np.float32)),
    )
