"""Scores of the caption branches on a labelled caption split: what `cer reproduce` measures by itself.

Belongs here: running the two branches over caption files, with everything slow kept below the home folder. Does not
belong here: which cell of which table a score fills (`paper_tables`), or the graph, which registered corpora go
through.

Kept are the encoder's vectors, a few minutes of work that a killed run goes on with, and the finished scores, under the
digest of the caption files, the head, the encoder, the settings and this code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
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
    """The cells of `scene_minilm` (all views, and `scene_minilm VIEW` for each) and `scene_label` (all views).

    Args:
        home: where vectors and scores are kept.
        folder: a caption corpus.
        split: a labelled split of it.
        weights: must hold `MODELS`.
        profile: settings of scene_label, and threads.
        progress: told what is going on.

    Raises:
        CerError: a caption file that cannot be right, or a split without labels.
        ModelUnavailable: a weight is not on this machine.
    """
    kept = home.root / "reproduce"
    key = digest_json([CODE_VERSION, _files(folder, split), [weights.digest(m) for m in MODELS], dict(profile[LABEL])])
    path = kept / f"{folder.name}_{split}_{key}.json"
    with exclusive(kept / "lock"):
        if not path.is_file():
            cells = _measure(kept, read_split(folder, split, labelled=True), weights, profile, progress)
            commit_bytes(path, json.dumps([asdict(cell) for cell in cells]).encode())
    return [MetricRow(**cell) for cell in json.loads(path.read_text("utf-8"))]


def _files(folder: Path, split: str) -> dict[str, str]:
    files = splits(folder).get(split, {}).values()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _measure(
    kept: Path, split: CaptionSplit, weights: Weights, profile: Profile, progress: Progress
) -> list[MetricRow]:
    labels = split.labels
    assert labels is not None  # it was read as labelled
    videos = np.array(split.videos, object)
    task = Task(split.split, SEGMENT, BASIC, annotated_classes(labels), split.targets, videos)
    threads = int(profile[EXECUTION]["threads"])
    found = _scene(kept, split, weights, threads, progress)
    found[LABEL] = _label(kept, split, weights, profile[LABEL], threads, progress)
    progress("scoring", len(found), len(found))
    return [cell for name, p in found.items() for cell in score(task, System.of(name, p))]


def _scene(
    kept: Path, split: CaptionSplit, weights: Weights, threads: int, progress: Progress
) -> dict[str, NDArray[np.float64]]:
    from cer_pipeline.branches.scene.caption_head import SceneHead, encoder
    from cer_pipeline.training.embedding_cache import EmbeddingCache

    tensors, meta = load_head(weights.path(HEAD))
    folder = weights.path(ENCODER)
    model = digest_json([weights.digest(m) for m in MODELS])
    embed = EmbeddingCache(
        kept / f"{SCENE}.states.safetensors",
        lambda: encoder(tensors, meta, folder, threads),
        model,
        lambda what, done, count: progress(f"{SCENE}: {what}", done, count),
    )
    predicted = predict(SceneHead(tensors, meta), split, embed)
    return {SCENE if view == FUSED else f"{SCENE} {view}": p for view, p in predicted.items()}


def _label(
    kept: Path,
    split: CaptionSplit,
    weights: Weights,
    section: Mapping[str, Any],
    threads: int,
    progress: Progress,
) -> NDArray[np.float64]:
    """As the branch scene_label judges a segment with several texts: from the centroid of their vectors."""
    from cer_pipeline.branches.sentences.minilm import MiniLM
    from cer_pipeline.branches.sentences.stages import centroid
    from cer_pipeline.branches.sentences.zero_shot import LabelHead
    from cer_pipeline.training.embedding_cache import EmbeddingCache

    folder = weights.path(ENCODER)

    def make() -> Callable[[Any], NDArray[Any]]:
        model = MiniLM(folder)
        return lambda texts: model.encode_all(texts, threads)

    embed = EmbeddingCache(
        kept / f"{LABEL}.states.safetensors",
        make,
        str(weights.digest(ENCODER)),
        lambda what, done, count: progress(f"{LABEL}: {what}", done, count),
    )
    head = LabelHead(embed(list(section["labels"])), embed(list(section["content_free"])), section["temperature"])
    rows = list(zip(*split.texts.values(), strict=True))
    texts = [text for row in rows for text in row if text is not None]
    known = dict(zip(texts, embed(texts), strict=True))
    vectors = [centroid(np.stack([known[text] for text in row if text is not None])) for row in rows]
    return np.stack([head.probabilities(vector) for vector in vectors])
