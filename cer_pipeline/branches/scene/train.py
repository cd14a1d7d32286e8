"""Training of the caption head on labelled captions: a balanced ridge on two feature vectors, sharpened out of fold.

Belongs here: fitting, out-of-fold scores, the choice of the sharpening, and writing the head with its card. Does not
belong here: the scores of a text (`branches.scene.caption_head`), the captions (`branches.scene.splits`) or the metrics
(`metrics`).

Protocol: rows that share a source clip or a text with dev leave the training split first. Everything is chosen on folds
of the training split, grouped by source clip; dev is scored once, by the finished head. All views train one map, so
that it serves any single caption; a segment with six texts is six rows.

The map is a ridge regression of centred one-hot targets, rows weighted so that every class has the same weight, solved
in its dual form (Saunders et al. 1998, "Ridge regression learning algorithm in dual variables"):
W = F' (F F' + l D^-1)^-1 Y with the features F [rows, columns], the weights D and the ridge l. The solution does not
depend on random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.branches.scene.adapter import train_adapter
from cer_pipeline.branches.scene.caption_head import (
    ADAPTER,
    SENTENCES,
    Bag,
    Embed,
    SceneHead,
    encoder,
    grams,
    sharpness,
    standard,
)
from cer_pipeline.branches.scene.caption_scores import FUSED, predict, predictions_table, score
from cer_pipeline.branches.scene.card import card
from cer_pipeline.branches.scene.splits import read_labelled_splits
from cer_pipeline.compound.prototypes import train_prototypes
from cer_pipeline.corpora.formats.caption_files import CaptionSplit
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.training.embedding_cache import EmbeddingCache
from cer_pipeline.training.folds import FOLDS, check_classes, grouped_folds, out_of_fold
from cer_pipeline.training.options import apply
from cer_pipeline.training.progress import Progress, quiet
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import load_head, save_head

NAME: Final = "scene_minilm"
HEAD: Final = "head_scene_minilm"
THREADS: Final = 2  # texts that are encoded at a time; the states do not depend on it
MAX_BYTES: Final = 2_000_000  # a shipped head is smaller
NOISE: Final = 0.01  # share of labels taken as random when sharpening: keeps s finite where every fold row is right
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SceneSettings:
    """Settings of the training; all chosen on grouped folds of the AFEW training captions.

    Over ten seeds of five folds and all views, macro-F1 and UAR were highest with states of sentences at share 0.3
    and changes that were trained on all of GoEmotions; docs/methods.md has the table of what was tried.

    Args:
        least: number of texts that must contain a gram for it to have a column.
        share: share of the states of the encoder in the features, 0..1; the rest is the bag of words.
        ridge: strength l of the ridge.
        sentences: whether the states are means over the sentences of a text, rather than those of the whole text.
        folds: folds of the cross-validation.
        seeds: one cross-validation a seed; the sharpening is chosen over all of them.
    """

    least: int = 5
    share: float = 0.3
    ridge: float = 3.0
    folds: int = FOLDS
    seeds: tuple[int, ...] = (0, 1, 2)
    sentences: bool = True


def fit(
    texts: Sequence[str], states: NDArray[Any], targets: Ints, settings: SceneSettings
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Fit the map.

    Args:
        texts: captions [n].
        states: states of the adapted encoder [n, 384].
        targets: class of each row, an index into `BASIC` out of `TRAINED_CLASSES`.
        settings: how to fit.

    Returns:
        Tensors and metadata of a `SceneHead`, as they are shipped, with neutral sharpening and without the adapter.

    Raises:
        CerError: a class has no row.
    """
    from scipy import linalg

    check_classes(targets, TRAINED_CLASSES, "captions")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(grams(text)))
    vocabulary = sorted(g for g, n in counts.items() if n >= settings.least)
    frequency = np.array([counts[g] for g in vocabulary], np.float64)
    idf = _idf(frequency, len(texts)).astype(
        np.float16
    )  # rounded before the fit, so that the fit uses the shipped values
    unknown = float(_idf(np.array([settings.least]), len(texts))[0])
    bag = _matrix(Bag({g: i for i, g in enumerate(vocabulary)}, idf.astype(np.float64), unknown), texts)
    rows = np.asarray(states, np.float64)
    mean, spread = rows.mean(0).astype(np.float32), rows.std(0).astype(np.float32)
    spread[spread < 1e-6 * spread.max()] = 1  # one state of MiniLM is constant
    dense = standard(rows, mean.astype(np.float64), spread.astype(np.float64))

    position = np.searchsorted(TRAINED_CLASSES, targets)
    weight = len(targets) / (len(TRAINED_CLASSES) * np.bincount(position, minlength=len(TRAINED_CLASSES)))[position]
    centred = np.eye(len(TRAINED_CLASSES))[position] - 1 / len(TRAINED_CLASSES)
    kernel = (1 - settings.share) * (bag @ bag.T).toarray() + settings.share * (dense @ dense.T)
    kernel[np.diag_indices_from(kernel)] += settings.ridge / weight
    dual = linalg.solve(kernel, centred, assume_a="pos", overwrite_a=True)
    tensors: dict[str, NDArray[Any]] = {
        "grams": np.frombuffer("\n".join(vocabulary).encode("utf-8"), np.uint8),
        "idf": idf,
        "bag": ((1 - settings.share) * (bag.T @ dual)).astype(np.float16),
        "mean": mean,
        "spread": spread,
        "state": (settings.share * (dense.T @ dual)).astype(np.float32),
    }
    return tensors, {"unknown": unknown, "scale": 1.0, "repeat": 1.0}


def out_of_fold_scores(
    texts: Sequence[Sequence[str | None]],
    states: Sequence[NDArray[Any]],
    targets: Ints,
    videos: Sequence[str],
    settings: SceneSettings,
    seed: int,
) -> Floats:
    """Return scores [n, views, 7] by heads that were fitted without the video of the segment; nan without a text.

    Args:
        texts: for each view one text a segment.
        states: for each view the states of the adapted encoder [n, 384]; a row without a text is not read.
        targets: class of each segment [n].
        videos: source clip of each segment [n].
        settings: how to fit.
        seed: of the folds.
    """

    def fold(train: Ints, test: Ints) -> Floats:
        head = SceneHead(*_fit_views(texts, states, targets, train, settings))
        values = np.full((len(test), len(texts), len(TRAINED_CLASSES)), np.nan)
        for v, view in enumerate(texts):
            present = [k for k, i in enumerate(test) if view[i] is not None]
            chosen = test[present]
            values[present, v] = head.scores([t for i in chosen if (t := view[i]) is not None], states[v][chosen])
        return values

    return out_of_fold(fold, grouped_folds(targets, videos, settings.folds, seed, "captions"))


def choose_sharpness(scores: Sequence[Floats], targets: Ints) -> tuple[float, float]:
    """Return the scale s and repeat r of least mean cross-entropy, over one view up to all of them.

    Args:
        scores: out-of-fold scores [n, views, 7], one array a seed.
        targets: class of each segment [n].

    Returns:
        s > 0, and r in 0..1 (1 where there is one view).
    """
    from scipy.optimize import minimize

    views = scores[0].shape[1]
    position = np.searchsorted(TRAINED_CLASSES, targets)
    means: list[tuple[Floats, Ints, Ints]] = []
    for values in scores:
        for count in range(1, views + 1):
            # Contiguous sets of the views in cyclic order: every view is in as many sets, and the sets are few.
            for first in range(views if count < views else 1):
                part = values[:, [(first + k) % views for k in range(count)]]
                number = np.isfinite(part).all(-1).sum(1)
                rows = number > 0
                means.append((np.nanmean(part[rows], 1), number[rows], position[rows]))

    def loss(parameters: Floats) -> float:
        scale, repeat = np.exp(parameters[0]), 1 / (1 + np.exp(-parameters[1]))
        losses = []
        for mean, number, truth in means:
            p = softmax(mean * sharpness(number, scale, repeat)[:, None], axis=-1)
            logs = np.log(np.maximum(p, 1e-300))
            losses.append(-((1 - NOISE) * logs[np.arange(len(truth)), truth] + NOISE * logs.mean(1)).mean())
        return float(np.mean(losses))

    best = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    return float(np.exp(best.x[0])), float(1 / (1 + np.exp(-best.x[1]))) if views > 1 else 1.0


def train(request: Request) -> dict[str, Any]:
    """Train on one corpus of captions (`cer train scene_minilm`).

    With GoEmotions as a second corpus the encoder is adapted anew; without, the low-rank changes of the head in use are
    taken.

    Raises:
        CerError: not exactly one caption corpus, more than one of sentences, sentences that are not GoEmotions, an
            unknown option, or what `train_scene_minilm` raises.
    """
    options = dict(request.options)
    seeds = options.pop("seeds", None)
    settings = apply(SceneSettings(), options)
    if seeds is not None:
        settings = replace(settings, seeds=_seeds(seeds))
    captions = [c for c in request.corpora if c.format == "captions"]
    sentences = [c for c in request.corpora if c.format != "captions"]
    for corpora, what, least in ((captions, "captions", 1), (sentences, "sentences", 0)):
        if not least <= len(corpora) <= 1:
            named = ", ".join(c.name for c in corpora) or "none"
            raise CerError(f"scene_minilm is trained on {'one' if least else 'at most one'} corpus of {what}", named)
    minilm = request.weights.path("minilm")
    adapter = request.out / f"{NAME}.adapter.safetensors"
    if not sentences:
        adapter = request.weights.path(HEAD)
    elif not adapter.is_file():
        train_adapter(sentences[0].root, minilm, adapter, request.progress)
    return train_scene_minilm(captions[0].root, minilm, adapter, request.out, settings, request.progress)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise CerError("seeds are whole numbers with commas between them", text, "such as 0,1,2") from None


def train_scene_minilm(
    captions: Path,
    minilm: Path,
    adapter: Path,
    out: Path,
    settings: SceneSettings | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Train the caption head on the train split of a caption corpus, score it on dev, and write it with its card.

    Written below `out`: `scene_minilm.safetensors`, `.md`, `.scores.json`, `.out_of_fold.parquet` (every training
    segment by every view and by all together, one set a seed; fusion is trained on it), `.dev.parquet`, and
    `.states.safetensors`, with which a repeated run does not encode again.

    Args:
        captions: folder with the train and dev files of every view.
        minilm: folder of MiniLM.
        adapter: head whose low-rank changes are used: a trained text head, or an earlier scene head.
        out: folder for everything that is written.
        settings: how to train.
        progress: gets the step, and how much of it is done.

    Returns:
        The content of the scores file.

    Raises:
        CerError: a file, row or label that cannot be right, a class without rows, or a head above `MAX_BYTES`.
    """
    settings = settings or SceneSettings()
    splits = read_labelled_splits(captions)
    train, dev = splits.train, splits.dev
    low_rank, low_rank_meta, model = read_adapter(adapter)
    encoder_meta = {"adapter": low_rank_meta, SENTENCES: settings.sentences}
    out.mkdir(parents=True, exist_ok=True)
    model += " by sentences" if settings.sentences else ""
    embed = EmbeddingCache(
        out / f"{NAME}.states.safetensors", lambda: encoder(low_rank, encoder_meta, minilm, THREADS), model, progress
    )
    texts, states = list(train.texts.values()), [_states(view, embed) for view in train.texts.values()]

    folded = []
    for done, seed in enumerate(settings.seeds):
        progress("cross-validation", done, len(settings.seeds))
        folded.append(out_of_fold_scores(texts, states, train.targets, train.videos, settings, seed))
    scale, repeat = choose_sharpness(folded, train.targets)
    progress("fitting", 0, 1)
    tensors, meta = _fit_views(texts, states, train.targets, np.arange(len(train)), settings)
    guess = _folded(SceneHead(tensors, meta), folded[0], train)[FUSED].argmax(1)
    features = SceneHead(tensors, meta).features(texts, embed)
    folds = grouped_folds(train.targets, train.videos, settings.folds, settings.seeds[0], f"{train.corpus} train")
    prototypes, temperature = train_prototypes(features, train.targets, guess, folds)
    tensors["prototypes"] = prototypes.astype(np.float32)
    meta |= {
        "pfsa_temperature": temperature,
        "branch": NAME, "encoder": "minilm", "scale": round(scale, 4), "repeat": round(repeat, 4),
        **encoder_meta, "settings": json.loads(json.dumps(asdict(settings))),
        "classes": [BASIC[c] for c in TRAINED_CLASSES], "data": {**train.digests},
    }  # fmt: skip
    path = out / f"{NAME}.safetensors"
    unfinished = out / f"{NAME}.unfinished"  # renamed when everything beside it is known
    save_head(unfinished, tensors | low_rank, meta)
    if (size := unfinished.stat().st_size) > MAX_BYTES:
        unfinished.unlink()
        raise CerError(f"the head would have {size} bytes, at most {MAX_BYTES} may be shipped", str(path))

    head = SceneHead.load(unfinished)
    inner = [_folded(head, values, train) for values in folded]
    pq.write_table(
        pa.concat_tables(
            [predictions_table(train, p, seed=str(s)) for s, p in zip(settings.seeds, inner, strict=True)]
        ),
        out / f"{NAME}.out_of_fold.parquet",
    )
    progress("scoring dev", 0, 1)
    final = predict(head, dev, embed)
    pq.write_table(predictions_table(dev, final), out / f"{NAME}.dev.parquet")
    scores = {
        "head_sha256": hashlib.sha256(unfinished.read_bytes()).hexdigest(),
        "bytes": size,
        "settings": meta["settings"],
        "sharpening": {"scale": meta["scale"], "repeat": meta["repeat"]},
        "rows": {"train": len(train), "dropped": splits.left_out, "dev": len(dev)},
        "shared_source_clips": list(splits.shared.videos),
        "out_of_fold": {
            system: _mean([score(p[system], train.targets, train.videos) for p in inner]) for system in inner[0]
        },
        "dev": {system: score(p, dev.targets, dev.videos) for system, p in final.items()},
        "data": {**train.digests, **dev.digests},
    }
    unfinished.replace(path)
    (out / f"{NAME}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{NAME}.md").write_text(card(scores, low_rank_meta, splits.shared), "utf-8")
    return scores


def read_adapter(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any], str]:
    """Read the low-rank changes in a text head or a caption head.

    Returns:
        Tensors as a caption head names them, metadata, and a digest of both.

    Raises:
        CerError: the file is missing, damaged, or holds no low-rank changes.
    """
    tensors, meta = load_head(path)
    if any(name.startswith(ADAPTER) for name in tensors):
        tensors = {name.removeprefix(ADAPTER): value for name, value in tensors.items() if name.startswith(ADAPTER)}
        meta = meta["adapter"]
    if "linear.weight" not in tensors or not {"rank", "alpha", "layers"} <= set(meta):
        raise CerError("the head holds no low-rank changes of the encoder", str(path), "name a trained text head")
    used = {key: meta[key] for key in ("rank", "alpha", "layers", "temperature", "trained_on") if key in meta}
    named = {ADAPTER + name: value.astype(np.float16) for name, value in sorted(tensors.items())}
    digest = hashlib.sha256(json.dumps(used, sort_keys=True).encode())
    for name, value in named.items():
        digest.update(name.encode() + value.tobytes())
    return named, used, digest.hexdigest()


def _idf(frequency: NDArray[Any], texts: int) -> Floats:
    return np.log((1 + texts) / (1 + np.asarray(frequency, np.float64))) + 1


def _matrix(bag: Bag, texts: Sequence[str]) -> Any:
    """Bag-of-words vectors as a sparse matrix [texts, columns]."""
    from scipy import sparse

    vectors = [bag.vector(text) for text in texts]
    starts = np.cumsum([0, *(len(columns) for columns, _ in vectors)])
    columns = np.array([c for indices, _ in vectors for c in indices], np.int64)
    values = np.concatenate([values for _, values in vectors]) if vectors else np.empty(0)
    return sparse.csr_matrix((values, columns, starts), shape=(len(texts), len(bag.columns)))


def _states(texts: Sequence[str | None], embed: Embed) -> NDArray[np.float32]:
    """States of a view [n, 384]; rows without a text are 0 and never read."""
    rows = [i for i, text in enumerate(texts) if text is not None]
    states = embed([text for text in texts if text is not None])
    full = np.zeros((len(texts), states.shape[1]), np.float32)
    full[rows] = states
    return full


def _fit_views(
    texts: Sequence[Sequence[str | None]],
    states: Sequence[NDArray[Any]],
    targets: Ints,
    rows: Ints,
    settings: SceneSettings,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Fit on the given segments; every text of every view is one row."""
    pairs = [(v, int(i), text) for v, view in enumerate(texts) for i in rows if (text := view[i]) is not None]
    stacked = np.stack([states[v][i] for v, i, _ in pairs])
    return fit([text for _, _, text in pairs], stacked, targets[[i for _, i, _ in pairs]], settings)


def _folded(head: SceneHead, values: Floats, train: CaptionSplit) -> dict[str, Floats]:
    """Out-of-fold scores [n, views, 7] as probabilities, by view and by all together."""
    present: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(-1))
    by_view = {
        view: np.where(present[:, [v]], head.sharpen(values[:, v], np.ones(len(values), np.int64)), np.nan)
        for v, view in enumerate(train.texts)
    }
    return by_view | {FUSED: head.sharpen(np.nanmean(values, 1), present.sum(1))}


def _mean(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the scores."""
    flat = [
        {"macro_f1": s["macro_f1"][0], "uar": s["uar"][0], "ece": s["ece"], "log_loss": s["log_loss"]} for s in scores
    ]
    return {name: round(float(np.mean([s[name] for s in flat])), 4) for name in flat[0]}
