"""The video that an annotation names.

Belongs here: the names of a video, and the error for a name that does not identify one. Does not belong here: reading
annotations (the formats).
"""

from __future__ import annotations

from collections.abc import Sequence

from cer_pipeline.corpora.names import NameIndex, stem
from cer_pipeline.corpora.scan import ScannedVideo
from cer_pipeline.errors import CerError


class Lookup:
    """Index of videos by name: the video_id or the path without its ending, with all folders or without any.

    A name with all folders is searched first; the exact spelling precedes another Unicode form of the name.

    Args:
        videos: the videos.
    """

    def __init__(self, videos: Sequence[ScannedVideo]) -> None:
        whole = [(name, i) for i, video in enumerate(videos) for name in (video.video_id, stem(video.path))]
        self._videos = videos
        self._whole = NameIndex(whole)
        self._last = NameIndex([(name.rpartition("/")[2], i) for name, i in whole])

    def find(self, name: str) -> list[int]:
        """Return the positions of all videos with a name; empty where there is none."""
        return self._whole.find(name) or self._last.find(name)

    def find_one(self, name: str, where: str) -> ScannedVideo:
        """Return the video with a name.

        Args:
            name: the name as an annotation spells it.
            where: place of the annotation, for the error.

        Raises:
            CerError: no video or several have the name.
        """
        places = self.find(name)
        if len(places) == 1:
            return self._videos[places[0]]
        what = "several videos have the name" if places else "the corpus has no video"
        raise CerError(f"{what} {name!r}", where, "give the path of the video below the folder, without its ending")
