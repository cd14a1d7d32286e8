"""What a corpus format returns: `ScannedVideo` and `Scan`.

Belongs here: these two types. Does not belong here: the formats (`formats`), or what a registration keeps of a scan
(`corpus`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cer_pipeline.corpora.annotations import VideoAnnotations


@dataclass(frozen=True)
class ScannedVideo:
    """One video that a format found.

    Args:
        path: POSIX path of its file below the root, as text (`names.to_text`).
        video_id: its id in every table; see `names.video_ids`.
        split: train, dev or test, where the format knows one.
        source: the clip that it was cut from or shows, which may not be in two splits. The video_id by default.
        annotations: labels and captions.
        windows: window indices of a video without a media file.
        content: SHA-256 and size in bytes of what replaces the file of such a video.
    """

    path: str
    video_id: str
    split: str | None = None
    source: str = ""
    annotations: VideoAnnotations = field(default_factory=VideoAnnotations)
    windows: tuple[int, ...] = ()
    content: tuple[str, int] | None = None


@dataclass(frozen=True)
class Scan:
    """What a format found below a root.

    Args:
        videos: the videos.
        ignored: one line for each kind of file that was left out.
        messages: one line for each other fact that a user may want to know.
        content: digest of a corpus without videos.
    """

    videos: list[ScannedVideo]
    ignored: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    content: str = ""
