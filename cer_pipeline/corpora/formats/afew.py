"""The corpus format `afew`: class folders below split folders, one emotion a clip.

Belongs here: the layout of AFEW as its owners hand it out:

    Train_AFEW/Angry/000046280.avi
    Val_AFEW/Happy/000149120.avi

Does not belong here: walking folders (`folder`) or what may stand in two splits (`corpora.leaks.find`).

The class folder's word is the label, so it is no part of the video_id: `Train_AFEW/000046280`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cer_pipeline.corpora.annotations import Annotation, Distribution, Notes
from cer_pipeline.corpora.formats.caption_files import FOLDERS
from cer_pipeline.corpora.formats.folder import find
from cer_pipeline.corpora.formats.names import nfc, stem
from cer_pipeline.corpora.formats.registry import SPLIT, Found, Scan
from cer_pipeline.corpora.leaks.find import check_name
from cer_pipeline.corpora.splits import SPLITS, split_of
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

_CLASSES = {folder.lower(): label for folder, label in FOLDERS.items()}


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the clips below class folders, with their labels and splits.

    Raises:
        CerError: no folder or clip, a folder that is no class, a clip without a split, or a name that spells a label.
    """
    walked = find(root)
    files = [_clip(file.path, needs_split=not options.get(SPLIT)) for file in walked.files]
    return replace(walked, files=files)


def _clip(path: str, *, needs_split: bool) -> Found:
    parts = PurePosixPath(path).parts
    folder = parts[-2] if len(parts) > 1 else ""
    label = _CLASSES.get(folder.lower())
    if label is None:
        known = ", ".join(FOLDERS)
        raise CerError(f"unknown class folder {folder!r}", path, f"clips lie in one of: {known}")
    above = parts[:-2]
    split = next((found for part in reversed(above) if (found := split_of(part))), None)
    if split is None and needs_split:
        then = f"name a folder above the classes {', '.join(SPLITS)}, or give --split"
        raise CerError("a clip lies below no split folder", path, then)
    name = nfc(PurePosixPath(stem(path)).name)
    video_id = nfc("/".join((*above, name)))
    check_name(video_id, path)
    return Found(path, video_id, split, source=name, notes=Notes(Annotation(clip=one_hot(label))))


def one_hot(label: str) -> Distribution:
    """The distribution that holds one basic emotion."""
    return tuple(1.0 if name == label else 0.0 for name in BASIC)
