"""The corpus format `captions`: texts of segments in CSV files, without any video.

Belongs here: turning the files of `captions` into videos with windows, texts and labels, and attaching such files to a
corpus that has media. Does not belong here: reading one file (`captions`).

The file behind such a video is its rows: its content is the digest of that video's rows over all files, so that one
changed row touches one video.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cer_pipeline.corpora.annotations import Annotation, Caption, Notes
from cer_pipeline.corpora.formats.caption_files import CaptionSplit, read_as_is, splits
from cer_pipeline.corpora.formats.names import escaped, nfc, to_text
from cer_pipeline.corpora.formats.registry import Found, Scan
from cer_pipeline.corpora.lookup import Lookup
from cer_pipeline.corpora.splits import SPLITS, split_of
from cer_pipeline.errors import CerError


def scan(root: Path, options: Mapping[str, Any]) -> Scan:  # noqa: ARG001
    """Find the videos that the caption files of a folder tell of.

    Raises:
        CerError: no folder or file, an unknown split, or a row that cannot be right.
    """
    return Scan([file for split in _read(root) for file in _videos(split)])


def attach(files: Sequence[Found], folder: Path) -> Scan:
    """Give videos the texts, and where there are any the labels, of a folder of caption files.

    A caption's video is the one whose id is the name in the file, else the one whose file has this name; where several
    splits have such a file, the one of the caption's split.

    Raises:
        CerError: a row that cannot be right, or no caption belongs to any of the videos.
    """
    by_name = Lookup(files)
    out, strangers, found = list(files), 0, 0
    # Held-out splits first: a clip that is told of in two splits belongs to the one that is held out.
    for split in sorted(_read(folder), key=lambda s: -SPLITS.index(split_of(s.split) or SPLITS[0])):
        for told in _videos(split):
            places = by_name.find(told.video_id)
            exact = [i for i in places if files[i].video_id == told.video_id]
            same = [i for i in places if files[i].split == told.split]
            chosen = next((c for c in (exact, same, places) if len(c) == 1), None)
            if chosen is None or out[chosen[0]].notes.captions:
                strangers += 1
                continue
            found += 1
            out[chosen[0]] = _joined(out[chosen[0]], told)
    if not found:
        raise CerError("no caption belongs to a video of the corpus", str(folder), "name captions as VIDEO___0000.mp4")
    return Scan(out, [f"{strangers} x video of the captions that the corpus lacks"] if strangers else [])


def _joined(file: Found, told: Found) -> Found:
    labels = file.notes.labels or told.notes.labels
    return replace(file, split=file.split or told.split, notes=Notes(labels, told.notes.captions))


def _read(folder: Path) -> list[CaptionSplit]:
    out = []
    for word in splits(folder):
        if split_of(word) is None:
            raise CerError(f"unknown split {word!r} in the name of a file", str(folder), f"use {', '.join(SPLITS)}")
        out.append(read_as_is(folder, word))
    return out


def _videos(split: CaptionSplit) -> list[Found]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for i, segment in enumerate(split.segments):
        rows[segment.video_id].append(i)
    return [_video(split, video, mine) for video, mine in sorted(rows.items())]


def _video(split: CaptionSplit, video: str, rows: Sequence[int]) -> Found:
    captions = sorted(
        Caption(split.segments[i].segment, view, texts[i]) for view, texts in split.texts.items() for i in rows
    )
    windows = tuple(sorted(split.segments[i].segment for i in rows))
    labels = None
    if split.labels is not None:
        labels = Annotation(windows={split.segments[i].segment: tuple(split.labels[i].tolist()) for i in rows})
    notes = Notes(labels, tuple(captions))
    content = json.dumps([windows, notes.labels_text, notes.captions_text]).encode()
    return Found(
        path=to_text(min(split.digests)),
        video_id=nfc(escaped(video)),
        split=split_of(split.split),
        notes=notes,
        windows=windows,
        content=(hashlib.sha256(content).hexdigest(), sum(len((c.text or "").encode()) for c in captions)),
    )
