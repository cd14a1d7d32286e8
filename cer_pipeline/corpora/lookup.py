"""Finding the video that an annotation names.

Belongs here: which names a video answers to. Does not belong here: what an ambiguous or unknown name means to a format.
"""

from __future__ import annotations

from collections.abc import Sequence

from cer_pipeline.corpora.formats.names import NameIndex, stem
from cer_pipeline.corpora.formats.registry import Found


class Lookup:
    """Videos by the names that people write: the id or the path without its ending, with all folders or without any.

    A name with all folders is looked for first; an exact spelling comes before another Unicode form of the name.

    Args:
        files: the videos.
    """

    def __init__(self, files: Sequence[Found]) -> None:
        whole = [(name, i) for i, file in enumerate(files) for name in (file.video_id, stem(file.path))]
        self._whole = NameIndex(whole)
        self._last = NameIndex([(name.rpartition("/")[2], i) for name, i in whole])

    def find(self, name: str) -> list[int]:
        """Positions of all videos that answer to a name; empty where none does."""
        return self._whole.find(name) or self._last.find(name)
