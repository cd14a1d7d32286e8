"""What can be trained: for each branch and fusion the function that trains it, and what that function reads.

Belongs here: the list, looking corpora up, and the key that tells one training from another. Light at import. Does not
belong here: any training (a module of this package or of `fusion` each), publishing (`zoo.trained`), or talking to
people (`cli.train`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.leaks.find import check_training
from cer_pipeline.errors import CerError
from cer_pipeline.stage import Weights
from cer_pipeline.store.fingerprint import digest_json
from cer_pipeline.store.home import Home

Progress = Callable[[str, int, int], None]
"""Told while training: what is going on, steps done, steps in all."""


@dataclass(frozen=True)
class Request:
    """What a training is given.

    Args:
        branch: which of `TRAINERS` is trained; one function may serve several.
        home: where the tables of the corpora lie.
        corpora: what it learns from, in the order that the user named them.
        weights: verified weights of the models that its entry names.
        out: folder for everything that it writes; kept, so that a stopped training goes on.
        options: what the user set: name -> text.
        progress: told what is going on.
    """

    branch: str
    home: Home
    corpora: tuple[Corpus, ...]
    weights: Weights
    out: Path
    options: Mapping[str, str]
    progress: Progress


@dataclass(frozen=True)
class Trainer:
    """One thing that can be trained.

    Args:
        branch: name of the branch or fusion; the head becomes `head_<branch>`.
        function: import path of `train(request: Request) -> scores`. It leaves `<branch>.safetensors`, `<branch>.md`
            and `<branch>.scores.json` in the request's folder, all of them or, where it raises, no new ones.
        formats: corpus formats that it reads; empty for any corpus with labels and tables.
        models: zoo ids that it needs.
        reads: tables that it reads, for the graph; empty where it reads the corpus itself.
        about: one sentence for people.
    """

    branch: str
    function: str
    formats: tuple[str, ...]
    models: tuple[str, ...]
    reads: tuple[str, ...]
    about: str


_TEMPORAL: Final = "cer_pipeline.branches.face.train:train"
_AUDIO: Final = "cer_pipeline.branches.audio.train:train"

TRAINERS: Final[Mapping[str, Trainer]] = {
    trainer.branch: trainer
    for trainer in (
        Trainer(
            "face_emo_transformer",
            _TEMPORAL,
            (),
            (),
            ("labels", "features/face_emo_transformer"),
            "Transformer over the face's features in time.",
        ),
        Trainer(
            "face_emo_mamba",
            _TEMPORAL,
            (),
            (),
            ("labels", "features/face_emo_mamba"),
            "Mamba over the face's features in time.",
        ),
        Trainer(
            "scene_minilm",
            "cer_pipeline.branches.scene.train:train",
            ("captions", "utterances"),
            ("minilm",),
            (),
            "Balanced ridge on words and sentence vectors of captions.",
        ),
        Trainer(
            "scene_signs",
            "cer_pipeline.branches.scene.train_au:train",
            ("captions",),
            ("minilm",),
            (),
            "Logistic regression on the signs that captions tell, for the describer's texts.",
        ),
        Trainer(
            "audio_bilstm",
            _AUDIO,
            ("ravdess",),
            ("whisper_tiny_en",),
            (),
            "Residual BiLSTM over states of the Whisper encoder.",
        ),
        Trainer(
            "audio_uncertainty",
            _AUDIO,
            ("ravdess",),
            ("whisper_tiny_en",),
            (),
            "Attention within thirds, with class-wise variances, over states of the Whisper encoder.",
        ),
        Trainer(
            "text_minilm",
            "cer_pipeline.branches.text.train:train",
            ("utterances",),
            ("minilm",),
            (),
            "MiniLM with low-rank changes on sentences.",
        ),
        Trainer(
            "mhpf",
            "cer_pipeline.fusion.train.mhpf:train",
            (),
            (),
            ("labels",),
            "Multi-Head Probability Fusion on probabilities of branches that did not see the segment.",
        ),
        Trainer(
            "feature_fusion",
            "cer_pipeline.fusion.train.feature_level:train",
            (),
            (),
            ("labels",),
            "A query over the features of the branches; an alternative to mhpf whose values do not split into parts.",
        ),
    )
}


def trainer(branch: str) -> Trainer:
    """The entry of a branch.

    Raises:
        CerError: it cannot be trained.
    """
    if branch not in TRAINERS:
        raise CerError("nothing of this name can be trained", branch, f"choose one of: {', '.join(TRAINERS)}")
    return TRAINERS[branch]


def chosen(home: Home, what: Trainer, names: Sequence[str]) -> tuple[Corpus, ...]:
    """The corpora of a training.

    Raises:
        CerError: none is named, one is named twice or not registered, or its format does not serve.
    """
    formats = ", ".join(what.formats)
    if not names:
        then = f"add one with `cer corpus add NAME PATH --format {what.formats[0]}`" if what.formats else ""
        raise CerError("no corpus is named to train on", what.branch, then or "name labelled corpora with --corpora")
    if len(set(names)) != len(names):
        raise CerError("a corpus is named twice", ", ".join(names), "name each once")
    corpora = tuple(registry.load(home.root, name) for name in names)
    for corpus in corpora:
        if what.formats and corpus.format not in what.formats:
            where = f"{corpus.name} for {what.branch}"
            raise CerError(f"a corpus of the format {corpus.format} cannot train it", where, f"it reads: {formats}")
    return corpora


def key_of(corpora: Sequence[Corpus], options: Mapping[str, str]) -> str:
    """What tells one training of a branch from another: names and contents of its corpora, and the options.

    A training that was stopped goes on below the folder of its key; one on other data starts anew.
    """
    contents = [
        [c.name, c.format, sorted([f.video_id, f.sha256, f.split or "", f.labels, f.captions] for f in c.files)]
        + ([] if c.files else [str(c.root), c.options.get("content", "")])
        for c in corpora
    ]
    return digest_json([contents, dict(sorted(options.items()))])[:12]


def run(request: Request) -> dict[str, Any]:
    """Train; see `Trainer.function`.

    Returns:
        What stands in `<branch>.scores.json`.

    Raises:
        CerError: a mistake in the data or the options, or a training video is held out; nothing is published then.
    """
    check_training(
        registry.training_members(request.home.root, request.corpora), lambda: registry.members(request.home.root)
    )
    module, _, name = trainer(request.branch).function.partition(":")
    function = cast("Callable[[Request], dict[str, Any]]", getattr(importlib.import_module(module), name))
    request.out.mkdir(parents=True, exist_ok=True)
    return function(request)
