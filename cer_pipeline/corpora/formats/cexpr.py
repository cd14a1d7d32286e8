"""The corpus format `cexpr`: the videos of C-EXPR-DB, which come without labels.

Belongs here: the default split. Does not belong here: annotation tables of time spans (`span_tables`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cer_pipeline.corpora.formats.folder import find_files
from cer_pipeline.corpora.formats.registry import SPLIT
from cer_pipeline.corpora.scan import Scan
from cer_pipeline.corpora.splits import TEST


def scan(root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the videos. C-EXPR-DB is a test set, so without `--split` all of them are in the split test.

    Raises:
        CerError: no folder or video.
    """
    found = find_files(root)
    if options.get(SPLIT):
        return found
    return replace(found, videos=[replace(video, split=TEST) for video in found.videos])
