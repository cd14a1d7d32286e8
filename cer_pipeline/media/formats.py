"""The accepted container formats and the endings of their files.

Belongs here: the one list for finding files (`corpora.formats.folder`) and opening them (`container`). Light: it loads
no media library. Does not belong here: opening files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VIDEO: Final[Mapping[str, tuple[str, ...]]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (
        *(".mp4", ".mov", ".m4v", ".qt", ".3gp", ".3gpp", ".3g2", ".3gp2", ".mj2", ".f4v", ".mp4v"),
    ),
    "matroska,webm": (".mkv", ".webm", ".mk3d"),
    "avi": (".avi", ".divx"),
    "mpeg": (".mpg", ".mpeg", ".mpe", ".vob", ".mod", ".m2p"),
    "mpegts": (".ts", ".mts", ".m2ts", ".m2t", ".tod", ".trp"),
    "mpegvideo": (".m1v", ".m2v"),
    "m4v": (".m4v",),
    "h264": (".h264", ".264", ".avc"),
    "hevc": (".h265", ".265", ".hevc"),
    "flv": (".flv",),
    "asf": (".wmv", ".asf"),
    "ogg": (".ogv", ".ogm"),
}
"""FFmpeg's demuxers for video, and the endings that cameras, phones and editors give such files.

Endings that mostly stand for other files (.ps, .dat, .ogg) are left out. The demuxer m4v reads bare MPEG-4 streams.
"""

SOUND: Final = ("wav", "w64", "aiff", "mp3", "flac", "aac")
"""FFmpeg's demuxers for sound without video."""

FORMATS: Final = ",".join((*VIDEO, *SOUND))
"""The accepted demuxers: containers that hold their own media. Playlists, concatenations, image sequences, and device
and network formats open further files, so such a file is refused whatever its ending."""

ENDINGS: Final = frozenset(ending for endings in VIDEO.values() for ending in endings)
"""Endings of video files in lower case."""
