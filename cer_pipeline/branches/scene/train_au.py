"""Training of the action-unit caption head: clauses of captions that name no emotion, and sentences of the literature.

Belongs here: the choice of the clauses, fitting, scores. Does not belong here: the head (`branches.scene.au_head`) or
the phrases of the rule-based captioner (`branches.scene.au_phrases`).

A caption by a vision-language model describes what a face does *and* names an emotion. A head that is trained on both
relies on the name, and is wrong about a text that has none. So every clause with a word for an emotion is left out, and
of the other clauses those are kept that are about the face or the voice. The sentences of the profile are added: they
describe the action units that the literature lists for each emotion, in the phrases of captions
(`branches.scene.au_phrases`).

Protocol: grouped folds by source clip on the train split; dev is scored once. The sentences of the literature are
scored by a head that was trained without them. Their weight and the strength of the regularisation were chosen by the
folds and by these scores alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline import metrics
from cer_pipeline.branches.scene.au_head import KIND, AUHead
from cer_pipeline.branches.scene.au_phrases import caption_phrases
from cer_pipeline.branches.scene.splits import read_labelled_splits
from cer_pipeline.branches.sentences.minilm import ZOO_ID, MiniLM
from cer_pipeline.branches.sentences.zero_shot import sentences_of
from cer_pipeline.corpora.formats.caption_files import CaptionSplit
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.markdown import paragraph
from cer_pipeline.profiles import load_profile
from cer_pipeline.training.embedding_cache import EmbeddingCache
from cer_pipeline.training.folds import FOLDS, grouped_folds
from cer_pipeline.training.model_card import model_card, score_table
from cer_pipeline.training.options import apply
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import save_head

NAME: Final = "scene_signs"
Ints = NDArray[np.int64]

# Stems of words for emotions and moods. "Smile", "frown" and "tears" are actions of a face and are kept.
_EMOTION: Final = re.compile(
    r"\b\w*(?:neutral|calm|compos|stoic|impassive|anger|angr|furious|rage|irritat|annoy|frustrat|aggress|hostil|disgust"
    r"|revuls|revolt|repuls|contempt|disdain|distaste|fear|afraid|scared|scary|terror|terrif|fright|anxi|worr|nervous"
    r"|apprehens|panic|horror|happ|joy|delight|cheer|amus|content|pleas|glad|excit|sadness|sad\b|sorrow|grief|griev"
    r"|melanchol|despair|distress|gloom|somber|sombre|depress|surpris|shock|astonish|amaze|startl|disbelief|emotion"
    r"|feeling|mood|express|tense|tension|concern|serious|intens|confus|upset|pain|warm|friendly|engaged)\w*",
    re.IGNORECASE,
)
_FACE_OR_VOICE: Final = re.compile(
    r"\b(?:eyes?|eyebrows?|brows?|mouth|lips?|jaw|teeth|nose|cheeks?|chin|forehead|gaze|head|smil\w*|frown\w*"
    r"|eyelids?|grin\w*|tears?|cry\w*|laugh\w*|shout\w*|voice|tone|speak\w*)\b",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+|\n+")
_CLAUSE: Final = re.compile(r",\s*|\band\b|\bsuggest\w*|\bindicat\w*|\bconvey\w*|\breflect\w*")


@dataclass(frozen=True)
class AUHeadSettings:
    """Settings of the training.

    Args:
        strength: inverse strength C of the regularisation.
        repeats: number of rows that one sentence of the literature counts as.
        seed: of the folds.
    """

    strength: float = 0.003
    repeats: int = 20
    seed: int = 0


def action_clauses(text: str) -> str:
    """Return the clauses of a caption on the face or the voice that name no emotion; "" for none."""
    clauses = [c for sentence in _SENTENCE.split(text) for c in _CLAUSE.split(sentence)]
    kept = [c.strip(" .,*-:;") for c in clauses if _FACE_OR_VOICE.search(c) and not _EMOTION.search(c)]
    return " ".join(f"{c[0].upper()}{c[1:]}." for c in kept if c)


def fit(
    vectors: NDArray[Any], targets: Ints, weights: NDArray[np.float64], strength: float
) -> dict[str, NDArray[np.float32]]:
    """Fit a multinomial logistic regression, every class with the same weight; return the tensors of an `AUHead`.

    Args:
        vectors: [n, 384].
        targets: class of each row, an index into `BASIC`.
        weights: number of rows that each row counts as [n].
        strength: inverse strength C of the regularisation.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.asarray(vectors, np.float64)
    mean, spread = np.average(rows, 0, weights), np.sqrt(np.average((rows - rows.mean(0)) ** 2, 0, weights))
    spread[spread < 1e-6 * spread.max()] = 1.0
    counts = np.bincount(targets, weights, minlength=len(BASIC))
    balanced = weights * weights.sum() / (len(TRAINED_CLASSES) * counts[targets])
    model = LogisticRegression(C=strength, max_iter=500).fit((rows - mean) / spread, targets, balanced)
    values = {"mean": mean, "spread": spread, "weight": model.coef_, "bias": model.intercept_}
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


@dataclass(frozen=True)
class _Rows:
    vectors: NDArray[np.float32]
    targets: Ints
    videos: tuple[str, ...]
    segments: tuple[str, ...]


def train(request: Request) -> dict[str, Any]:
    """Train on the train split of a caption corpus (`cer train scene_signs`).

    Raises:
        CerError: more than one corpus, a row that cannot be right, a class without texts, or too few videos.
    """
    if len(request.corpora) != 1:
        raise CerError(f"{len(request.corpora)} corpora", NAME, "name the one caption corpus to train on")
    settings, folder = apply(AUHeadSettings(), request.options), request.corpora[0].root
    splits = read_labelled_splits(folder)
    minilm = request.weights.path(ZOO_ID)
    digest = request.weights.digest(ZOO_ID) or ""
    states = request.out / f"{NAME}.states.safetensors"
    embed = EmbeddingCache(states, lambda: MiniLM(minilm).encode_all, digest, request.progress)
    rows, held = _rows(splits.train, embed), _rows(splits.dev, embed)
    by_class = sentences_of(load_profile()["scene_minilm"])
    sentences = embed([caption_phrases(sentence) for group in by_class for sentence in group])
    labels = np.repeat(np.arange(len(by_class)), [len(group) for group in by_class])

    def head(of: Ints, with_sentences: bool) -> AUHead:
        vectors = np.concatenate([rows.vectors[of], sentences]) if with_sentences else rows.vectors[of]
        targets = np.concatenate([rows.targets[of], labels]) if with_sentences else rows.targets[of]
        weights = np.ones(len(targets))
        weights[len(of) :] = settings.repeats
        return AUHead(fit(vectors, targets, weights, settings.strength), {"kind": KIND})

    every = np.arange(len(rows.targets))
    folded = np.empty((len(every), len(BASIC)))
    for fold in grouped_folds(rows.targets, rows.videos, FOLDS, settings.seed, f"{splits.train.corpus} train"):
        folded[fold.test] = head(fold.train, with_sentences=True).probabilities(rows.vectors[fold.test])
    predicted = head(every, with_sentences=False).probabilities(sentences).argmax(1)
    final = head(every, with_sentences=True)
    scores = {
        "settings": asdict(settings),
        "texts": {"train": len(every), "dev": len(held.targets), "sentences": len(labels)},
        "left_out": splits.left_out,
        "folds": _scores(folded, rows),
        "dev": _scores(final.probabilities(held.vectors), held),
        "sentences": {
            "right": int((predicted == labels).sum()),
            "of": len(labels),
            "right_by_class": {BASIC[c]: int((predicted[labels == c] == c).sum()) for c in TRAINED_CLASSES},
        },
        "data": {**splits.train.digests, **splits.dev.digests},
    }
    tensors = {"mean": final.mean, "spread": final.spread, "weight": final.weight, "bias": final.bias}
    meta = {"kind": KIND, "branch": NAME, "encoder": ZOO_ID, "settings": asdict(settings), "data": splits.train.digests}
    path = request.out / f"{NAME}.safetensors"
    save_head(path, {name: value.astype(np.float32) for name, value in tensors.items()}, meta)
    scores["head_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (request.out / f"{NAME}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (request.out / f"{NAME}.md").write_text(card(scores), "utf-8")
    return scores


def _rows(split: CaptionSplit, embed: EmbeddingCache) -> _Rows:
    """The clauses on face and voice of every text of a split; texts without any are left out."""
    texts, of = [], []
    for view in split.texts.values():
        for i, text in enumerate(view):
            if text and (clauses := action_clauses(text)):
                texts.append(clauses)
                of.append(i)
    if not texts:
        raise CerError("no text describes a face or a voice without naming an emotion", f"{split.corpus} {split.split}")
    return _Rows(
        embed(texts),
        split.targets[np.asarray(of, np.int64)].astype(np.int64),
        tuple(split.videos[i] for i in of),
        tuple(split.segments[i].segment_id for i in of),
    )


def _scores(p: NDArray[np.float64], rows: _Rows) -> dict[str, Any]:
    """Scores of single texts, and of segments by the mean over their texts; intervals resample videos."""
    ids, first, of = np.unique(rows.segments, return_index=True, return_inverse=True)
    total = np.zeros((len(ids), p.shape[1]))
    np.add.at(total, of, p)
    systems = {
        "text": (p.argmax(1), rows.targets, rows.videos),
        "segment": (total.argmax(1), rows.targets[first], [rows.videos[i] for i in first]),
    }
    return {name: _macro(*values) for name, values in systems.items()}


def _macro(guess: Ints, truth: Ints, videos: Sequence[str]) -> dict[str, list[float]]:
    wanted = {"macro_f1": (metrics.macro_f1, TRAINED_CLASSES), "uar": (metrics.uar, TRAINED_CLASSES)}
    return {name: score.percent for name, score in metrics.bootstraps(wanted, truth, guess, videos).items()}


def card(scores: dict[str, Any]) -> str:
    """Return the model card of the action-unit caption head."""
    texts, sentences = scores["texts"], scores["sentences"]
    classes = ", ".join(f"{name} {n}" for name, n in sentences["right_by_class"].items())
    return model_card(
        f"{NAME}: what a face and a voice do -> 8 basic emotions",
        """Logistic regression on MiniLM vectors of texts that describe facial actions and the voice (a furrowed
        brow, a broad smile, a flat voice) and name no emotion. It classifies the texts of the rule-based captioner,
        after `cer_pipeline/branches/scene/au_phrases.py` has replaced its phrases by those that captions use.
        "Other" is never trained and gets probability 0.""",
        data=[
            f"""{texts["train"]} texts: the clauses on face and voice, without those that name an emotion, of
            captions of AFEW train by Qwen2.5-VL (MIT repository of the paper's authors; AFEW itself needs a signed
            agreement with its owners: check whether your use is covered).""",
            f"""{texts["sentences"]} sentences of `profiles/embedded.toml` [scene_minilm], action units by emotion
            after EMFACS, each as {scores["settings"]["repeats"]} rows.""",
            "all-MiniLM-L6-v2: Apache-2.0, not contained.",
        ],
        digests=dict(sorted(scores["data"].items())) | {f"{NAME}.safetensors": scores["head_sha256"]},
        settings=scores["settings"],
        protocol=[
            f"""{FOLDS} folds of the train split, grouped by source clip, chose the settings. Dev was scored by the
            finished head. 95 % intervals over resampled source clips.""",
        ],
        scores=[
            score_table(
                ["split, unit", "macro-F1", "UAR"],
                (
                    (f"{split}, {unit}", values["macro_f1"], values["uar"])
                    for split in ("folds", "dev")
                    for unit, values in scores[split].items()
                ),
            ),
            paragraph(
                f"""A head that was trained without the sentences of the literature classifies {sentences["right"]}
                of {sentences["of"]} of them right ({classes}); chance is a seventh. Captions without the clauses
                that name an emotion are much harder: compare scene_minilm."""
            ),
        ],
        limits="""No labelled text of the rule-based captioner exists: how well the head classifies those is known
        from single clips only. Facial actions that captions seldom describe (a pushed-up chin, a wrinkled nose)
        have small weights. Film actors, English.""",
    )
