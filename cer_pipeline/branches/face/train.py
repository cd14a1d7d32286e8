"""Training of the temporal face heads.

Belongs here: the loop over windows, early stopping, folds and what is written. Does not belong here: the networks
(`branches.face.temporal_head`), reading tables (`training.labelled`), the card (`card`), losses, or the search
(`search`).

Protocol: folds by source video. For every outer fold a network is trained on the other videos, of which one part is
for validation: the epoch with the best mean of macro-F1 and UAR on the validation videos is taken. The held-out videos
therefore influence no choice, and the probabilities of every window come from a network trained without its video. The
written head is trained by the same procedure on all videos. An optional search runs within each outer fold.

A step that does not count (no face, or behind the end) is masked everywhere; see `branches.face.temporal_head`. All is
seeded and runs on one thread. After every epoch the state is on disk, so a stopped run goes on to the same result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cer_pipeline import metrics
from cer_pipeline.branches.face import specs
from cer_pipeline.branches.face import temporal_head as temporal
from cer_pipeline.branches.face.card import card, picture
from cer_pipeline.branches.face.specs import MAMBA, STEP_FEATURES, TRANSFORMER
from cer_pipeline.branches.face.temporal_head import Shape, TemporalHead
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training import labelled as windows
from cer_pipeline.training import loop, losses, search
from cer_pipeline.training.checkpoint import Checkpoint, Schedule
from cer_pipeline.training.folds import Ints, grouped_folds, out_of_fold
from cer_pipeline.training.labelled import Windows
from cer_pipeline.training.loop import Loop
from cer_pipeline.training.options import apply, whole
from cer_pipeline.training.progress import Progress, quiet
from cer_pipeline.training.search import Choice, Space, Span
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import save_head

KINDS: Final[Mapping[str, str]] = {
    TRANSFORMER: temporal.TRANSFORMER,
    MAMBA: temporal.MAMBA,
    specs.EXPRESSION_TRANSFORMER: temporal.TRANSFORMER,
    specs.EXPRESSION_MAMBA: temporal.MAMBA,
    specs.CLIP_TRANSFORMER: temporal.TRANSFORMER,
    specs.CLIP_MAMBA: temporal.MAMBA,
}
"""Branch -> network."""

LOSSES: Final = ("cross_entropy", "soft_focal")
OPTIMISERS: Final = ("adam", "adamw")
SCHEDULES: Final = ("plateau", "cosine", "warmup", "constant")
PLATEAU: Final = (0.5, 2, 1e-7)  # published: the rate is halved after 2 epochs without gain, down to 1e-7
_SIZES: Final[Space] = {"hidden": Choice((128, 256, 512)), "middle": Choice((128, 256, 512)), "layers": Span(1, 4)}
_SPACES: Final[Mapping[str, Space]] = {
    temporal.TRANSFORMER: {**_SIZES, "heads": Choice((2, 4, 8, 16))},
    temporal.MAMBA: {**_SIZES, "states": Span(4, 16), "kernel": Span(1, 7)},
}
SEARCH_SPACES: Final[Mapping[str, Space]] = {branch: _SPACES[network] for branch, network in KINDS.items()}
"""Paper, section 4 (implementation of video-based models): widths, layers, and what each network has of its own."""

SEARCH_FOLDS: Final = 3  # of the training videos, for each trial of a search
INNER: Final = 5  # one fifth of the training videos is for validation
TEMPERATURES: Final = tuple(round(0.2 + i / 20, 2) for i in range(97))  # 0.2 to 5.0


@dataclass(frozen=True)
class TemporalSettings:
    """How a temporal head is trained; defaults as published where not said otherwise.

    Args:
        hidden: width of the sequence (published: 512 for 512 features; these have 62).
        middle: width of the classifier.
        layers: blocks.
        heads: attention heads (Transformer).
        states: state values of a channel (Mamba).
        kernel: steps of the convolution (Mamba).
        dropout: share of values zeroed in training.
        loss: one of `LOSSES`; both weigh the classes.
        gamma: of the soft focal loss.
        smoothing: of the soft focal loss.
        optimiser: one of `OPTIMISERS`.
        rate: peak learning rate (published configuration; the paper's text says 1e-5).
        decay: weight decay.
        schedule: one of `SCHEDULES`: halved on a plateau, a cosine to 0, or a linear rise and then that cosine.
        warmup: share of the steps with a rising rate (schedule "warmup").
        batch: windows in a step.
        epochs: at most so many passes.
        patience: epochs without gain before it stops.
        clip: largest norm of the gradient.
        folds: of the cross-validation.
        seed: of initial values, order, dropout and folds.
    """

    hidden: int = 128
    middle: int = 128
    layers: int = 2
    heads: int = 4
    states: int = 4
    kernel: int = 6
    dropout: float = 0.15
    loss: str = "cross_entropy"
    gamma: float = 2.0
    smoothing: float = 0.1
    optimiser: str = "adam"
    rate: float = 1e-4
    decay: float = 0.0
    schedule: str = "plateau"
    warmup: float = 0.1
    batch: int = 64
    epochs: int = 100
    patience: int = 25
    clip: float = 1.0
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("loss", LOSSES), ("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise CerError(f"{name} cannot be this", getattr(self, name), f"choose one of: {', '.join(allowed)}")
        for name in ("hidden", "middle", "layers", "heads", "states", "kernel", "batch", "epochs", "folds"):
            if getattr(self, name) < 1:
                raise CerError(f"{name} must be at least 1", str(getattr(self, name)))
        if self.hidden % self.heads:
            raise CerError("hidden must be a multiple of heads", f"{self.hidden} and {self.heads}")


def published_settings(branch: str) -> TemporalSettings:
    """The settings of a branch: the published configuration where its features are the published ones."""
    if specs.STEP_SIZES[branch] != specs.EMBEDDING:
        return TemporalSettings()
    return TemporalSettings(hidden=512, layers=4 if KINDS[branch] == temporal.MAMBA else 1)


@dataclass(frozen=True)
class FitResult:
    """A trained network and the record of its training.

    Args:
        network: the one of the best epoch.
        epochs: one record an epoch: epoch, loss, score on the validation videos in percent, rate.
    """

    network: TemporalHead
    epochs: list[dict[str, float]]

    @property
    def best(self) -> float:
        """Best score on the validation videos, percent."""
        return max(record["score"] for record in self.epochs)


def sequences(features: NDArray[np.float32], inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a feature table -> values [n, t, inputs] and mask [n, t].

    Args:
        features: [n, t x (inputs + 1)], the flag `seen` last in each step.
        inputs: features of a step.
    """
    steps = torch.from_numpy(np.ascontiguousarray(features)).view(len(features), -1, inputs + 1)
    return steps[:, :, :-1], steps[:, :, -1] > 0.5


def validation_split(data: Windows, rows: Ints, seed: int) -> tuple[Ints, Ints]:
    """Rows -> those to fit, and those for validation: about a fifth of the videos; the former have every class.

    Args:
        data: all windows.
        rows: the training rows.
        seed: of the split.
    """
    groups = [data.groups[i] for i in rows]
    count = min(INNER, len(set(groups)))
    for fold in grouped_folds(data.classes[rows], groups, count, seed, "videos to learn from"):
        if set(data.classes[rows[fold.train]]) == set(data.classes[rows]):
            return rows[fold.train], rows[fold.test]
    raise CerError(
        "no part of the videos can be left for validation without losing a class", f"{count} parts", "add videos"
    )


def fit(
    data: Windows,
    rows: Ints,
    branch: str,
    settings: TemporalSettings,
    state: Path,
    progress: Progress = quiet,
    inputs: int = len(STEP_FEATURES) - 1,
) -> FitResult:
    """Train one network; a run that was stopped goes on from its state.

    Args:
        data: all windows.
        rows: those for fitting and validation.
        branch: key of `KINDS`.
        settings: how.
        state: file that the state is kept in, after every epoch.
        progress: called with the state of the training.
        inputs: features of a step.
    """
    fitted, validated = validation_split(data, np.asarray(rows, np.int64), settings.seed)
    x, mask = sequences(data.features, inputs)
    targets = torch.from_numpy(data.targets)
    torch.manual_seed(settings.seed)
    network = _network(branch, settings, inputs)
    valid = x[fitted][mask[fitted]]
    network.mean.copy_(valid.mean(0))
    network.scale.copy_(valid.std(0).clamp(min=1e-3))  # a constant feature
    weights = losses.class_weights(targets[fitted])
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    per_epoch = -(-len(fitted) // settings.batch)

    def batches(epoch: int) -> list[Ints]:
        network.train()
        return np.array_split(np.random.default_rng([settings.seed, epoch]).permutation(fitted), per_epoch)

    def loss(batch: Ints, _: int) -> torch.Tensor:
        return _loss(network(x[batch], mask[batch])[0], targets[batch], weights, settings)

    records = loop.train(
        dict(network.named_parameters()),
        optimiser,
        Loop(settings.epochs, settings.clip, settings.seed, settings.patience + 1),
        batches,
        loss,
        _schedule(optimiser, settings, per_epoch * settings.epochs),
        lambda: _score(data.classes[validated], logits_of(network, x[validated], mask[validated]).argmax(1)),
        Checkpoint(state, _identity(data, rows, branch, settings)),
        lambda message, done, total: progress(f"{branch} {state.stem}: {message}", done, total),
    )
    return FitResult(network.eval(), records)


def _schedule(optimiser: torch.optim.Optimizer, settings: TemporalSettings, steps: int) -> Schedule | None:
    if settings.schedule == "plateau":
        factor, patience, lowest = PLATEAU
        return ReduceLROnPlateau(optimiser, "max", factor, patience, threshold=0.0, min_lr=lowest, eps=0.0)
    if settings.schedule == "constant":
        return None
    return loop.warmup_cosine(optimiser, steps, settings.warmup if settings.schedule == "warmup" else 0.0)


def _network(branch: str, settings: TemporalSettings, inputs: int) -> TemporalHead:
    names = ("hidden", "middle", "layers", "heads", "states", "kernel", "dropout")
    return TemporalHead(Shape(KINDS[branch], inputs, **{name: getattr(settings, name) for name in names}))


def _identity(data: Windows, rows: Ints, branch: str, settings: TemporalSettings) -> dict[str, Any]:
    """Return what identifies a fit; the state of another fit is not resumed."""
    chosen = hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()
    return {**asdict(settings), "branch": branch, "data": data.digest(), "rows": chosen}


def _loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, s: TemporalSettings) -> torch.Tensor:
    if s.loss == "soft_focal":
        return losses.soft_focal(logits, targets, weights, s.gamma, s.smoothing)
    return losses.balanced_cross_entropy(logits, targets, weights)


def _score(truth: Ints, guess: NDArray[np.int64]) -> float:
    """Mean of macro-F1 and UAR over the classes of the validation windows, percent."""
    matrix, over = metrics.confusion(truth, guess), sorted(set(truth.tolist()))
    return 50 * float(metrics.macro_f1(matrix, over) + metrics.uar(matrix, over))


@torch.inference_mode()
def logits_of(network: TemporalHead, x: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float64]:
    """Logits [n, 8]."""
    network.eval()
    parts = [network(x[i : i + 256], mask[i : i + 256])[0] for i in range(0, len(x), 256)]
    return torch.cat(parts).double().numpy()


def best_temperature(logits: NDArray[np.float64], targets: NDArray[np.float32]) -> float:
    """The temperature at which the targets are likeliest."""
    return min(TEMPERATURES, key=lambda t: -(targets * log_softmax(logits / t, axis=-1)).sum())


def train_temporal(
    data: Windows,
    branch: str,
    out: Path,
    settings: TemporalSettings | None = None,
    trials: int = 0,
    progress: Progress = quiet,
    inputs: int = len(STEP_FEATURES) - 1,
) -> dict[str, Any]:
    """Cross-validate, train and write a temporal head.

    Written when all is done: `BRANCH.predictions.parquet` (corpus, segment_id, video_id, fold, the 8 out-of-fold
    probabilities), `BRANCH.curves.json`, `BRANCH.png`, `BRANCH.scores.json`, `BRANCH.md` and `BRANCH.safetensors`.

    Args:
        data: labelled windows.
        branch: key of `KINDS`.
        out: folder for everything that is written.
        settings: how to train; what a search chooses goes before it.
        trials: trials of the search in each outer fold; 0 for no search.
        progress: called with the state of the training.
        inputs: features of a step.

    Returns:
        What stands in the scores file; scores in percent, [value, low, high].

    Raises:
        CerError: the data cannot be learned from; nothing is written then but states of fits.
    """
    settings = settings or TemporalSettings()
    windows.check(data, ", ".join(data.counts) or branch)
    if data.features.shape[1] % (inputs + 1):
        raise CerError("the features are of another size than the head reads", branch, "run `cer run` again")
    folds = grouped_folds(data.classes, data.groups, settings.folds, settings.seed, ", ".join(data.counts))
    for fold in folds:  # before an hour of training, not after
        validation_split(data, fold.train, settings.seed)
    x, mask = sequences(data.features, inputs)
    curves: dict[str, list[dict[str, float]]] = {}
    used: dict[str, dict[str, Any]] = {}

    def made(rows: Ints, name: str) -> FitResult:
        own = settings
        if trials:
            journal = out / "search" / f"{name}.log"
            own = searched(data, rows, branch, settings, trials, journal, progress, inputs).settings
        used[name] = asdict(own)
        fitted = fit(data, rows, branch, own, out / "fits" / f"{name}.state", progress, inputs)
        curves[name] = fitted.epochs
        return fitted

    def predict(train: Ints, test: Ints) -> NDArray[np.float64]:
        return logits_of(made(train, f"fold_{len(curves)}").network, x[test], mask[test])

    with one_thread():
        logits = out_of_fold(predict, folds)
        final = made(np.arange(len(data)), "all")
    fold_of = np.zeros(len(data), np.int64)
    p = np.zeros_like(logits)
    for k, fold in enumerate(folds):  # each fold at the temperature of the others
        fold_of[fold.test] = k
        at = best_temperature(logits[fold.train], data.targets[fold.train])
        p[fold.test] = np.exp(log_softmax(logits[fold.test] / at, axis=-1))
    scores = {
        "settings": asdict(settings), "chosen": used if trials else {}, "trials": trials, "windows": len(data),
        "videos": len(set(data.groups)), "corpora": data.counts, "digest": data.digest(),
        "temperature": best_temperature(logits, data.targets), "epochs": {k: len(v) for k, v in curves.items()},
        **_scores(p, data),
    }  # fmt: skip
    _write(out, branch, data, p, fold_of, final.network, curves, scores)
    return scores


def searched(
    data: Windows,
    rows: Ints,
    branch: str,
    settings: TemporalSettings,
    trials: int,
    journal: Path,
    progress: Progress = quiet,
    inputs: int = len(STEP_FEATURES) - 1,
) -> search.SearchResult[TemporalSettings]:
    """Search settings within some rows: by folds of these rows, never by any other row.

    Args:
        data: all windows.
        rows: those that may be learned from.
        branch: key of `KINDS`.
        settings: what the search leaves as it is.
        trials: how many.
        journal: file of the study; the states of a trial's fits lie in a folder of the same name until it ends.
        progress: called with the state of the training.
        inputs: features of a step.
    """
    x, mask = sequences(data.features, inputs)
    inner = grouped_folds(data.classes[rows], [data.groups[i] for i in rows], SEARCH_FOLDS, settings.seed, branch)

    def score(chosen: TemporalSettings, number: int) -> float:
        guess = np.zeros(len(rows), np.int64)
        states = [journal.with_suffix("") / f"trial_{number}_{k}.state" for k in range(len(inner))]
        for fold, state in zip(inner, states, strict=True):
            network = fit(data, rows[fold.train], branch, chosen, state, progress, inputs).network
            held = rows[fold.test]
            guess[fold.test] = logits_of(network, x[held], mask[held]).argmax(1)
        for state in states:  # a hundred trials of large networks would fill a disk
            state.unlink()
        return _score(data.classes[rows], guess)

    return search.search(settings, SEARCH_SPACES[branch], score, trials, journal, settings.seed, progress)


def _scores(p: NDArray[np.float64], data: Windows) -> dict[str, Any]:
    """Out-of-fold scores over the classes that occur; intervals resample videos."""
    guess = p.argmax(1)
    return {
        **metrics.card_scores(data.classes, guess, data.groups, {c: BASIC[c] for c in data.vocabulary}),
        "confusion": metrics.confusion(data.classes, guess).tolist(),
        "ece": round(100 * float(metrics.expected_calibration_error(p, data.classes)), 2),
    }


def _write(
    out: Path,
    branch: str,
    data: Windows,
    p: NDArray[np.float64],
    fold: NDArray[np.int64],
    network: TemporalHead,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    scores: Mapping[str, Any],
) -> None:
    """All files of a finished training, the weights last."""
    columns: dict[str, Any] = {"corpus": data.corpora, "segment_id": data.segments, "video_id": data.videos}
    columns |= {"fold": fold, "label": [BASIC[c] for c in data.classes]}
    columns |= {name: p[:, i] for i, name in enumerate(BASIC_COLUMNS)}
    pq.write_table(pa.table(columns), out / f"{branch}.predictions.parquet")
    (out / f"{branch}.curves.json").write_text(json.dumps(curves) + "\n", "utf-8")
    (out / f"{branch}.png").write_bytes(picture(branch, curves))
    (out / f"{branch}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{branch}.md").write_text(card(branch, scores), "utf-8")
    with torch.no_grad():  # the temperature becomes part of the last layer
        network.last.weight /= scores["temperature"]
        network.last.bias /= scores["temperature"]
    tensors, meta = temporal.state(network)
    save_head(out / f"{branch}.safetensors", tensors, {**meta, "branch": branch, "trained_on": scores["digest"]})


def train(request: Request) -> dict[str, Any]:
    """Entry of `cer train BRANCH` of a temporal face branch: any labelled corpora with feature tables.

    Options: `trials` (of a search within each fold, 0 for none), else fields of `TemporalSettings`.
    """
    settings = apply(published_settings(request.branch), request.options, also=("trials",))
    data = windows.read(request.home, request.corpora, request.branch)
    trials = whole(request.options, "trials", 0)
    inputs = specs.STEP_SIZES[request.branch]
    return train_temporal(data, request.branch, request.out, settings, trials, request.progress, inputs)
