"""Scores of the caption branches on a labelled caption split, as `cer reproduce` measures them.

Belongs here: running the two branches over caption files, with a cache below the home folder. Does not belong here: the
cell of a table that a score fills (`paper_tables`), or the graph, by which registered corpora are processed.

The cache holds the vectors of the encoder, which take a few minutes and which a stopped run reuses, and the finished
scores, under the digest of the caption files, the head, the encoder, the settings and the version of this code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.branches.scene.caption_scores import FUSED, predict
from cer_pipeline.corpora.formats.caption_files import CaptionSplit, read_split, splits
from cer_pipeline.evaluation.protocols import SEGMENT, MetricRow, System, Task, annotated_classes, score
from cer_pipeline.labels import BASIC
from cer_pipeline.profiles import EXECUTION, Profile
from cer_pipeline.stage import Weights
from cer_pipeline.store.files import commit_bytes, exclusive
from cer_pipeline.store.fingerprint import digest_json
from cer_pipeline.store.home import Home
from cer_pipeline.zoo.head_file import load_head

HEAD: Final = "head_scene_minilm"
ENCODER: Final = "minilm"
MODELS: Final = (HEAD, ENCODER)
SCENE: Final = "scene_minilm"
LABEL: Final = "scene_label"
CODE_VERSION: Final = "1"  # changed by hand whenever a score would change for the same files
Progress = Callable[[str, int, int], None]


def measure(
    home: Home, folder: Path, split: str, weights: Weights, profile: Profile, progress: Progress
) -> list[MetricRow]:
    """Measure `scene_minilm` (all views, and `scene_minilm VIEW` for each view) and `scene_label` (all views).

    Args:
        home: holds the cache.
        folder: a caption corpus.
        split: a labelled split of it.
        weights: must hold `MODELS`.
        profile: settings of scene_label, and the number of threads.
        progress: gets the step, and how much of it is done.

    Raises:
        CerError: a caption file that cannot be right, or a split without labels.
        ModelUnavailable: a weight is not on this machine.
    """
    cache = home.root / "reproduce"
    key = digest_json([CODE_VERSION, _files(folder, split), [weights.digest(m) for m in MODELS], dict(profile[LABEL])])
    path = cache / f"{folder.name}_{split}_{key}.json"
    with exclusive(cache / "lock"):
        if not path.is_file():
            cells = _measure(cache, read_split(folder, split, labelled=True), weights, profile, progress)
            commit_bytes(path, json.dumps([asdict(cell) for cell in cells]).encode())
    return [MetricRow(**cell) for cell in json.loads(path.read_text("utf-8"))]


def _files(folder: Path, split: str) -> dict[str, str]:
    files = splits(folder).get(split, {}).values()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _measure(
    cache: Path, split: CaptionSplit, weights: Weights, profile: Profile, progress: Progress
) -> list[MetricRow]:
    labels = split.labels
    assert labels is not None  # the split was read as labelled
    videos = np.array(split.videos, object)
    task = Task(split.split, SEGMENT, BASIC, annotated_classes(labels), split.targets, videos)
    threads = int(profile[EXECUTION]["threads"])
    probabilities = _scene(cache, split, weights, threads, progress)
    probabilities[LABEL] = _label(cache, split, weights, profile[LABEL], threads, progress)
    progress("scoring", len(probabilities), len(probabilities))
    return [cell for name, p in probabilities.items() for cell in score(task, System.of(name, p))]


def _scene(
    cache: Path, split: CaptionSplit, weights: Weights, threads: int, progress: Progress
) -> dict[str, NDArray[np.float64]]:
    from cer_pipeline.branches.scene.caption_head import SceneHead, encoder
    from cer_pipeline.training.embedding_cache import EmbeddingCache

    tensors, meta = load_head(weights.path(HEAD))
    folder = weights.path(ENCODER)
    model = digest_json([weights.digest(m) for m in MODELS])
    embed = EmbeddingCache(
        cache / f"{SCENE}.states.safetensors",
        lambda: encoder(tensors, meta, folder, threads),
        model,
        lambda what, done, count: progress(f"{SCENE}: {what}", done, count),
    )
    predicted = predict(SceneHead(tensors, meta), split, embed)
    return {SCENE if view == FUSED else f"{SCENE} {view}": p for view, p in predicted.items()}


def _label(
    cache: Path,
    split: CaptionSplit,
    weights: Weights,
    section: Mapping[str, Any],
    threads: int,
    progress: Progress,
) -> NDArray[np.float64]:
    """Probabilities of each segment as the branch scene_label predicts them: from the centroid of its text vectors."""
    from cer_pipeline.branches.sentences.minilm import MiniLM
    from cer_pipeline.branches.sentences.stages import centroid
    from cer_pipeline.branches.sentences.zero_shot import LabelHead
    from cer_pipeline.training.embedding_cache import EmbeddingCache

    folder = weights.path(ENCODER)
    embed = EmbeddingCache(
        cache / f"{LABEL}.states.safetensors",
        lambda: partial(MiniLM(folder).encode_all, threads=threads),
        str(weights.digest(ENCODER)),
        lambda what, done, count: progress(f"{LABEL}: {what}", done, count),
    )
    head = LabelHead(embed(list(section["labels"])), embed(list(section["content_free"])), section["temperature"])
    rows = list(zip(*split.texts.values(), strict=True))
    texts = [text for row in rows for text in row if text is not None]
    states = dict(zip(texts, embed(texts), strict=True))
    vectors = [centroid(np.stack([states[text] for text in row if text is not None])) for row in rows]
    return np.stack([head.probabilities(vector) for vector in vectors])
