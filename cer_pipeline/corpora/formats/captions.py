"""The corpus format `captions`: captions of segments in CSV files, without any video.

Belongs here: turning caption files into videos with windows, captions and labels, and attaching caption files to a
corpus that has media. Does not belong here: reading one file (`caption_files`).

The content of a video without media is the digest of its rows in all files, so that a changed row changes one video.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cer_pipeline.corpora.annotations import Annotation, Caption, VideoAnnotations
from cer_pipeline.corpora.formats.caption_files import CaptionSplit, read_as_is, splits
from cer_pipeline.corpora.lookup import Lookup
from cer_pipeline.corpora.names import escaped, nfc, to_text
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.corpora.splits import SPLITS, split_of
from cer_pipeline.errors import CerError


def scan(root: Path, options: Mapping[str, Any]) -> Scan:  # noqa: ARG001
    """Find the videos that the caption files of a folder name.

    Raises:
        CerError: no folder or file, an unknown split, or a row that is not valid.
    """
    return Scan([video for split in _read(root) for video in _videos(split)])


def attach(videos: Sequence[ScannedVideo], folder: Path) -> Scan:
    """Add the captions of a folder of caption files, and their labels, to videos that have none.

    A caption belongs to the video whose id is the name in the file, else to the one whose file has this name; where
    several splits have such a file, to the one of the split of the caption.

    Raises:
        CerError: a row that is not valid, or no caption belongs to any of the videos.
    """
    by_name = Lookup(videos)
    captioned, unknown, found = list(videos), 0, 0
    # Held-out splits first: captions of a clip in two splits belong to the one that is held out.
    for split in sorted(_read(folder), key=lambda s: -SPLITS.index(split_of(s.split) or SPLITS[0])):
        for source in _videos(split):
            places = by_name.find(source.video_id)
            same_id = [i for i in places if videos[i].video_id == source.video_id]
            same_split = [i for i in places if videos[i].split == source.split]
            place = next((c[0] for c in (same_id, same_split, places) if len(c) == 1), None)
            if place is None or captioned[place].annotations.captions:
                unknown += 1
                continue
            found += 1
            captioned[place] = _joined(captioned[place], source)
    if not found:
        raise CerError("no caption belongs to a video of the corpus", str(folder), "name captions as VIDEO___0000.mp4")
    return Scan(captioned, [f"{unknown} x video of the captions that the corpus lacks"] if unknown else [])


def _joined(video: ScannedVideo, source: ScannedVideo) -> ScannedVideo:
    annotations = VideoAnnotations(video.annotations.labels or source.annotations.labels, source.annotations.captions)
    return replace(video, split=video.split or source.split, annotations=annotations)


def _read(folder: Path) -> list[CaptionSplit]:
    read = []
    for word in splits(folder):
        if split_of(word) is None:
            raise CerError(f"unknown split {word!r} in the name of a file", str(folder), f"use {', '.join(SPLITS)}")
        read.append(read_as_is(folder, word))
    return read


def _videos(split: CaptionSplit) -> list[ScannedVideo]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for i, segment in enumerate(split.segments):
        rows[segment.video_id].append(i)
    return [_video(split, video, of_video) for video, of_video in sorted(rows.items())]


def _video(split: CaptionSplit, video: str, rows: Sequence[int]) -> ScannedVideo:
    captions = sorted(
        Caption(split.segments[i].segment, view, texts[i]) for view, texts in split.texts.items() for i in rows
    )
    windows = tuple(sorted(split.segments[i].segment for i in rows))
    labels = None
    if split.labels is not None:
        labels = Annotation(windows={split.segments[i].segment: tuple(split.labels[i].tolist()) for i in rows})
    annotations = VideoAnnotations(labels, tuple(captions))
    content = json.dumps([windows, annotations.labels_json, annotations.captions_json]).encode()
    return ScannedVideo(
        path=to_text(min(split.digests)),
        video_id=nfc(escaped(video)),
        split=split_of(split.split),
        annotations=annotations,
        windows=windows,
        content=(hashlib.sha256(content).hexdigest(), sum(len((c.text or "").encode()) for c in captions)),
    )
