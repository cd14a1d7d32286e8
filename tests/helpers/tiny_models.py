"""Tiny random weights of every model of the profile paper, in one folder, and a zoo that pins them.

Each `tiny_*.py` beside this file writes the files of one or more models under the names of their zoo entries. This
module finds these functions by name, so that a model whose helper is absent is reported and not assumed.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cer_pipeline.zoo import Entry, Zoo, load_entries
from cer_pipeline.zoo.entries import head_entry

HELPERS: Final = Path(__file__).parent
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "yolo_face": ("tiny_yolo",),
    "emoaffectnet": ("random_emoaffectnet", "tiny_emoaffectnet"),
    "clip_vit_b32": ("tiny_clip_vit_b32", "tiny_clip"),
    "emotion_distilroberta": ("tiny_emotion_distilroberta",),
    "jina_v3": ("tiny_jina_v3",),
    "wavlm_base_plus_sd": ("tiny_wavlm",),
    "parakeet_tdt_06b": ("tiny_parakeet",),
    "qwen25_vl_7b": ("tiny_qwen",),
    "qwen25_vl_32b": ("tiny_qwen_32b",),
}
"""Zoo id -> functions `f(folder)` that write its files, the first that exists is taken."""

HEADS: Final[dict[str, tuple[str, ...]]] = {
    "face_": ("tiny_temporal_head",),
    "audio_": ("tiny_wavlm_head",),
    "scene_": ("tiny_linear_head",),
    "text_": ("tiny_linear_head",),
}
"""Prefix of a branch -> functions `f(path, branch)` that write its head."""


def helpers() -> dict[str, Callable[..., Any]]:
    """The functions of all `tiny_*.py` beside this file, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for path in sorted(HELPERS.glob("tiny_*.py")):
        if path.stem != "tiny_models":
            module = importlib.import_module(f"tests.helpers.{path.stem}")
            found |= {name: value for name, value in vars(module).items() if callable(value)}
    return found


def tiny_zoo(folder: Path, models: Iterable[str], real: Zoo) -> tuple[Zoo, list[str]]:
    """Write tiny weights and heads, and return a zoo of them over the real weights of the embedded profile.

    Args:
        folder: gets one folder a model.
        models: zoo ids of a profile's stages.
        real: the zoo of this machine, whose verified files serve where they are present.

    Returns:
        The zoo, and the ids of models without a helper.
    """
    functions, entries, absent = helpers(), dict(load_entries()), []
    for model in dict.fromkeys(models):
        if real.digest(model) is not None:
            (folder / model).parent.mkdir(parents=True, exist_ok=True)
            _link(real, model, folder / model)
            continue
        names = NAMES.get(model) or next((f for p, f in HEADS.items() if model.startswith(f"head_{p}")), ())
        write = next((functions[name] for name in names if name in functions), None)
        if write is None:
            absent.append(model)
            continue
        target = folder / model
        target.mkdir(parents=True)
        if model.startswith("head_"):
            branch = model.removeprefix("head_")
            path = target / f"{branch}.safetensors"
            write(path, branch)
            entries[model] = head_entry(branch, path, hashlib.sha256(path.read_bytes()).hexdigest(), "tiny")
        else:
            write(target)
            for path in (target / model).glob("*"):  # of helpers that make the model's folder themselves
                path.rename(target / path.name)
            entries[model] = pinned(entries[model], target)
    return Zoo(folder / "cache", entries, folder), absent


def _link(real: Zoo, model: str, target: Path) -> None:
    source = real.path(model)
    if source.is_dir():
        target.symlink_to(source, target_is_directory=True)
    else:
        target.mkdir()
        (target / real.entry(model).files[0].name).symlink_to(source)


def pinned(entry: Entry, folder: Path) -> Entry:
    """The entry with sizes and digests of the files in a folder in place of the published ones."""
    files = []
    for file in entry.files:
        content = (folder / file.name).read_bytes()
        files.append(replace(file, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    return replace(entry, files=tuple(files))
