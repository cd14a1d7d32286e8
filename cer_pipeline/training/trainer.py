"""One thing that can be trained, and one training of it.

Belongs here: what a branch or a fusion declares about its training, what a training is given, and the key that tells
one training from another. Light at import. Does not belong here: any training (`train` in the folder of a branch or of
the fusion), the list of all that can be trained (`cer_pipeline.trainers`), or publishing (`zoo.trained`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.leaks import check_training
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import nearest
from cer_pipeline.stage import Weights
from cer_pipeline.store.fingerprint import digest_json
from cer_pipeline.store.home import Home
from cer_pipeline.training.progress import Progress


@dataclass(frozen=True)
class Request:
    """What a training is given.

    Args:
        branch: name of the trainer; one function may serve several.
        home: where the tables of the corpora lie.
        corpora: corpora to learn from, in the order that the user named them.
        weights: verified weights of the models that the trainer names.
        out: folder for everything that the training writes; kept, so that a stopped training goes on.
        options: values of options that the user set: name -> text.
        progress: called with the state of the training.
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
    """How one head is trained.

    Args:
        name: name of the branch or fusion; the head becomes `head_<name>`.
        function: import path of `train(request: Request) -> scores`. It leaves `<name>.safetensors`, `<name>.md` and
            `<name>.scores.json` in the request's folder, all of them or, where it raises, no new ones.
        about: one sentence for the Dagster UI.
        formats: corpus formats that it reads; empty for any corpus with labels and tables.
        models: zoo ids that it needs.
        reads: tables that it reads, for the graph; empty where it reads the files of the corpus.
        options: names of the options that it takes, mostly fields of the dataclass of its settings. They are repeated
            here because that dataclass lies in a module that imports torch.
    """

    name: str
    function: str
    about: str
    formats: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def check_options(self, names: Iterable[str]) -> None:
        """Refuse an option that the training does not take.

        Raises:
            CerError: with the nearest option that it takes.
        """
        if unknown := [name for name in names if name not in self.options]:
            then = nearest(unknown[0], self.options) if self.options else "it takes none"
            raise CerError(f"no such option of the training of {self.name}", unknown[0], then)


def training_corpora(home: Home, trainer: Trainer, names: Sequence[str]) -> tuple[Corpus, ...]:
    """The corpora of a training.

    Raises:
        CerError: none is named, one is named twice or not registered, or the trainer does not read its format.
    """
    formats = ", ".join(trainer.formats)
    if not names:
        then = "name labelled corpora with --corpora"
        if trainer.formats:
            then = f"add one with `cer corpus add NAME PATH --format {trainer.formats[0]}`"
        raise CerError("no corpus is named to train on", trainer.name, then)
    if len(set(names)) != len(names):
        raise CerError("a corpus is named twice", ", ".join(names), "name each once")
    corpora = tuple(registry.load(home.root, name) for name in names)
    for corpus in corpora:
        if trainer.formats and corpus.format not in trainer.formats:
            where = f"{corpus.name} for {trainer.name}"
            raise CerError(f"a corpus of the format {corpus.format} cannot train it", where, f"it reads: {formats}")
    return corpora


def training_key(corpora: Sequence[Corpus], options: Mapping[str, str]) -> str:
    """Digest of the names and contents of the corpora and of the options.

    A stopped training goes on below the folder of its key; a training on other data starts anew.
    """
    contents = [
        [c.name, c.format, sorted([f.video_id, f.sha256, f.split or "", f.labels, f.captions] for f in c.files)]
        + ([] if c.files else [str(c.root), c.options.get("content", "")])
        for c in corpora
    ]
    return digest_json([contents, dict(sorted(options.items()))])[:12]


def run_training(trainer: Trainer, request: Request) -> dict[str, Any]:
    """Train; see `Trainer.function`.

    Returns:
        The content of `<name>.scores.json`.

    Raises:
        CerError: a mistake in the data or the options, or a training video is held out; nothing is published then.
    """
    check_training(
        registry.training_members(request.home.root, request.corpora), lambda: registry.members(request.home.root)
    )
    module, _, name = trainer.function.partition(":")
    function = cast("Callable[[Request], dict[str, Any]]", getattr(importlib.import_module(module), name))
    request.out.mkdir(parents=True, exist_ok=True)
    return function(request)
