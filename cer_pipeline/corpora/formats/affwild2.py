"""The corpus format `affwild2`: videos, and one text file a video with a class for every frame.

Belongs here: the annotation files of the expression challenge of ABAW. Below `Train_Set` and `Validation_Set` each has
a header of the eight classes, then one integer a frame: line n is frame n, -1 a frame without a class. `NAME.txt` tells
of the person of the video NAME, `NAME_left.txt` and `NAME_right.txt` of another person in the same video.

Does not belong here: what a window's label is (`corpora.labels.stages`) or walking folders (`folder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cer_pipeline.corpora.annotations import NOT_ANNOTATED, Annotation, Notes
from cer_pipeline.corpora.formats.csv_rows import read_cells
from cer_pipeline.corpora.formats.folder import find
from cer_pipeline.corpora.formats.names import NameIndex, nfc, shown, stem, to_text
from cer_pipeline.corpora.formats.registry import LABELS, Found, Scan
from cer_pipeline.corpora.splits import split_of
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

PEOPLE: Final = ("_left", "_right")
"""Endings of annotations of a second or third person in the same video."""


@dataclass(frozen=True)
class _Told:
    """One annotation file."""

    path: Path
    name: str
    split: str
    frames: tuple[int, ...]


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the videos, and the annotation files below the same folder or the one that `--labels` names.

    Videos without an annotation stay, unlabelled and in no split: the test set has none.

    Raises:
        CerError: no folder, video or annotation, an annotation without a video or a split folder, two videos of one
            name, or a line that is no class.
    """
    walked = find(root)
    by_name = NameIndex((PurePosixPath(stem(file.path)).name, file) for file in walked.files)
    folder = Path(options.get(LABELS) or root)
    files: list[Found] = []
    annotated: set[str] = set()
    for told in _annotations(folder):
        video = _video(told, by_name)
        annotated.add(video.path)
        source = nfc(PurePosixPath(stem(video.path)).name)
        files.append(Found(video.path, nfc(told.name), told.split, source, Notes(Annotation(frames=told.frames))))
    bare = [file for file in walked.files if file.path not in annotated]
    names = {file.video_id for file in files}
    files += [
        Found(file.path, file.video_id if name in names else name, source=name)
        for file in bare
        for name in [nfc(PurePosixPath(stem(file.path)).name)]
    ]
    ignored = [*walked.ignored, *([f"{len(bare)} x video without annotation (kept, unlabelled)"] if bare else [])]
    return replace(walked, files=files, ignored=ignored)


def _annotations(folder: Path) -> list[_Told]:
    if not folder.is_dir():
        raise CerError("the annotation folder does not exist", str(folder), "check the path of --labels")
    out = []
    for path in sorted(folder.rglob("*.txt")):
        below = path.relative_to(folder).parts[:-1]
        split = next((found for part in reversed(below) if (found := split_of(part))), None)
        if split is None:
            continue  # lists and read-me files lie about
        out.append(_Told(path, to_text(path.stem), split, read_frames(path)))
    if not out:
        then = "they lie in Train_Set and Validation_Set; name their folder with --labels"
        raise CerError("no annotation file below a split folder", str(folder), then)
    return out


def read_frames(path: Path) -> tuple[int, ...]:
    """The class of every frame of an annotation file, or `NOT_ANNOTATED`.

    Raises:
        CerError: not UTF-8, another header, no frame, or a line that is no class; the line says which.
    """
    sheet = read_cells(path)
    if sheet.header != BASIC:
        odd = next((name for name in sheet.header if name not in BASIC), None)
        what = f"unknown class {odd!r} in the header" if odd else "the header does not name the 8 classes in order"
        raise CerError(f"{what} ({sheet.seen})", str(path), f"the first line is {','.join(BASIC)}")
    first = sheet.header_row + 1
    out = []
    for expected, (number, cells) in enumerate(sheet.rows, first):
        # A blank line would shift all frames behind it.
        text = sheet.delimiter.join(cells).strip() if number == expected else ""
        if text not in _VALUES:
            raise CerError(f"{text!r} is no class", f"line {expected} of {path}", f"use 0 to {len(BASIC) - 1}, or -1")
        out.append(_VALUES[text])
    if not out:
        raise CerError("the annotation has no frame", str(path), "remove the file, or annotate it")
    return tuple(out)


_VALUES: Final = {str(i): i for i in (NOT_ANNOTATED, *range(len(BASIC)))}


def _video(told: _Told, by_name: NameIndex[Found]) -> Found:
    found = by_name.find(told.name)
    for ending in PEOPLE:
        if not found and told.name.endswith(ending):
            found = by_name.find(told.name.removesuffix(ending))
    if not found:
        raise CerError(f"no video of the name {told.name}", str(told.path), "add the video, or remove the annotation")
    if len(found) > 1:
        where = " and ".join(shown(file.path for file in found[:2]))
        raise CerError(f"two videos have the name {told.name}", where, "keep one of them")
    return found[0]
