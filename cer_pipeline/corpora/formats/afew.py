"""The corpus format `afew`: class folders below split folders, one emotion a clip.

Belongs here: the layout in which the owners of AFEW distribute it:

    Train_AFEW/Angry/000046280.avi
    Val_AFEW/Happy/000149120.avi

Does not belong here: walking folders (`folder`) or videos in two splits (`corpora.leaks`).

The name of a class folder is the label, so the video_id leaves it out: `Train_AFEW/000046280`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cer_pipeline.corpora.annotations import Annotation, VideoAnnotations, one_hot
from cer_pipeline.corpora.formats.caption_files import FOLDERS
from cer_pipeline.corpora.formats.folder import find_files
from cer_pipeline.corpora.formats.registry import SPLIT
from cer_pipeline.corpora.leaks import check_name
from cer_pipeline.corpora.names import nfc, stem
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.corpora.splits import SPLITS, innermost_split
from cer_pipeline.errors import CerError

_CLASSES = {folder.lower(): label for folder, label in FOLDERS.items()}


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the clips below class folders, with their labels and splits.

    Raises:
        CerError: no folder or clip, a folder that is no class, a clip without a split, or a name that spells a label.
    """
    found = find_files(root)
    clips = [_clip(video.path, needs_split=not options.get(SPLIT)) for video in found.videos]
    return replace(found, videos=clips)


def _clip(path: str, *, needs_split: bool) -> ScannedVideo:
    parts = PurePosixPath(path).parts
    folder = parts[-2] if len(parts) > 1 else ""
    label = _CLASSES.get(folder.lower())
    if label is None:
        known = ", ".join(FOLDERS)
        raise CerError(f"unknown class folder {folder!r}", path, f"the class folders are: {known}")
    above = parts[:-2]
    split = innermost_split(above)
    if split is None and needs_split:
        then = f"name a folder above the classes {', '.join(SPLITS)}, or give --split"
        raise CerError("a clip is below no split folder", path, then)
    name = nfc(PurePosixPath(stem(path)).name)
    video_id = nfc("/".join((*above, name)))
    check_name(video_id, path)
    return ScannedVideo(
        path, video_id, split, source=name, annotations=VideoAnnotations(Annotation(clip=one_hot(label)))
    )
