"""The corpus format `affwild2`: videos, and one text file a video with a class for every frame.

Belongs here: the annotation files of the expression challenge of ABAW. They are below `Train_Set` and `Validation_Set`,
with a header of the eight classes, then one integer a frame, in order of presentation; -1 is a frame without a class.
`NAME.txt` annotates the person in the video NAME, `NAME_left.txt` and `NAME_right.txt` another person in it.

Does not belong here: the label of a window (`corpora.labels.stages`) or walking folders (`folder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cer_pipeline.corpora.annotations import NOT_ANNOTATED, Annotation, VideoAnnotations
from cer_pipeline.corpora.csv_rows import read_cells
from cer_pipeline.corpora.formats.folder import find_files
from cer_pipeline.corpora.formats.registry import LABELS
from cer_pipeline.corpora.names import NameIndex, distinguishable, nfc, stem, to_text
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.corpora.splits import innermost_split
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

PERSON_SUFFIXES: Final = ("_left", "_right")
"""Endings of the names of annotations of a second or third person in the same video."""


@dataclass(frozen=True)
class _AnnotationFile:
    """One annotation file."""

    path: Path
    name: str
    split: str
    frames: tuple[int, ...]


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the videos, and the annotation files below the same folder or the one that `--labels` names.

    Videos without an annotation, such as the test set, are kept without labels and split.

    Raises:
        CerError: no folder, video or annotation, an annotation without a video or a split folder, two videos of one
            name, or a line that is no class.
    """
    found = find_files(root)
    by_name = NameIndex((PurePosixPath(stem(video.path)).name, video) for video in found.videos)
    folder = Path(options.get(LABELS) or root)
    videos: list[ScannedVideo] = []
    annotated: set[str] = set()
    for annotation in _annotations(folder):
        video = _video(annotation, by_name)
        annotated.add(video.path)
        labels = VideoAnnotations(Annotation(frames=annotation.frames))
        videos.append(ScannedVideo(video.path, nfc(annotation.name), annotation.split, _name(video), labels))
    unannotated = [video for video in found.videos if video.path not in annotated]
    taken = {video.video_id for video in videos}
    videos += [
        ScannedVideo(video.path, video.video_id if _name(video) in taken else _name(video), source=_name(video))
        for video in unannotated
    ]
    kept = [f"{len(unannotated)} x video without annotation (kept, unlabelled)"] if unannotated else []
    return replace(found, videos=videos, ignored=[*found.ignored, *kept])


def _name(video: ScannedVideo) -> str:
    return nfc(PurePosixPath(stem(video.path)).name)


def _annotations(folder: Path) -> list[_AnnotationFile]:
    if not folder.is_dir():
        raise CerError("the annotation folder does not exist", str(folder), "check the path of --labels")
    out = []
    for path in sorted(folder.rglob("*.txt")):
        split = innermost_split(path.relative_to(folder).parts[:-1])
        if split is None:
            continue  # a list or a read-me file
        out.append(_AnnotationFile(path, to_text(path.stem), split, read_frames(path)))
    if not out:
        then = "expected Train_Set and Validation_Set; name their folder with --labels"
        raise CerError("no annotation file below a split folder", str(folder), then)
    return out


def read_frames(path: Path) -> tuple[int, ...]:
    """Return the class of every frame of an annotation file, or `NOT_ANNOTATED`.

    Raises:
        CerError: not UTF-8, another header, no frame, or a line that is no class; the error names it.
    """
    file = read_cells(path)
    if file.header != BASIC:
        unknown = next((name for name in file.header if name not in BASIC), None)
        what = f"unknown class {unknown!r} in the header" if unknown else "the header is not the 8 classes in order"
        raise CerError(f"{what} ({file.how_read})", str(path), f"the first line is {','.join(BASIC)}")
    classes = []
    for expected, (number, cells) in enumerate(file.rows, file.header_row + 1):
        # A blank line would shift the class of every later frame.
        text = file.delimiter.join(cells).strip() if number == expected else ""
        if text not in _VALUES:
            raise CerError(f"{text!r} is no class", f"line {expected} of {path}", f"use 0 to {len(BASIC) - 1}, or -1")
        classes.append(_VALUES[text])
    if not classes:
        raise CerError("the annotation has no frame", str(path), "remove the file, or annotate it")
    return tuple(classes)


_VALUES: Final = {str(i): i for i in (NOT_ANNOTATED, *range(len(BASIC)))}


def _video(annotation: _AnnotationFile, by_name: NameIndex[ScannedVideo]) -> ScannedVideo:
    name = annotation.name
    videos = by_name.find(name)
    for suffix in PERSON_SUFFIXES:
        if not videos and name.endswith(suffix):
            videos = by_name.find(name.removesuffix(suffix))
    if not videos:
        raise CerError(f"no video of the name {name}", str(annotation.path), "add the video, or remove the annotation")
    if len(videos) > 1:
        where = " and ".join(distinguishable(video.path for video in videos[:2]))
        raise CerError(f"two videos have the name {name}", where, "keep one of them")
    return videos[0]
