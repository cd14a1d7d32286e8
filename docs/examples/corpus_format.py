"""A corpus format: videos with one label each, listed in `labels.csv`.

    clips/labels.csv    video,label,split
                        a.mp4,Happiness,train
                        b.mp4,Anger,dev
    clips/a.mp4
    clips/b.mp4

In a distribution of its own, a plug-in needs two lines in `pyproject.toml`, and no change to cer-pipeline:

    [project.entry-points."cer_pipeline.formats"]
    listed = "corpus_format:LISTED"

A format of cer-pipeline itself is a module in `cer_pipeline/corpora/formats` and an entry in `registry.FORMATS`.
Both are used in the same way: `cer corpus add clips ./clips --format listed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cer_pipeline.corpora.annotations import Annotation, VideoAnnotations, one_hot
from cer_pipeline.corpora.csv_rows import read_rows
from cer_pipeline.corpora.formats.registry import Format
from cer_pipeline.corpora.names import nfc, stem
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.corpora.splits import split_of
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Return the videos of `labels.csv` with their labels and splits.

    Raises:
        CerError: the file or a column is missing, a video does not exist, or a label is unknown.
    """
    videos = []
    for where, row in read_rows(root / "labels.csv", ("video", "label", "split")):
        path, label = row["video"], row["label"]
        if not (root / path).is_file():
            raise CerError(f"no video {path!r}", where, "add the video, or remove the row")
        if label not in BASIC:
            raise CerError(f"unknown label {label!r}", where, f"use one of: {', '.join(BASIC)}")
        annotations = VideoAnnotations(Annotation(clip=one_hot(label)))
        videos.append(ScannedVideo(path, nfc(stem(path)), split_of(row["split"]), annotations=annotations))
    return Scan(videos)


LISTED = Format(scan, "videos listed in labels.csv with one label each", takes=(), classes=BASIC)
