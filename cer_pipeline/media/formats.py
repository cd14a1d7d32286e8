"""The container formats that are let near a media file, and the endings that their files have.

Belongs here: one list for who finds files (`corpora.formats.folder`) and who opens them (`container`). Light: it loads
no media library. Does not belong here: opening.
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
"""FFmpeg's demuxers for moving pictures, and the endings that cameras, phones and editors give such files.

An ending that mostly means something else (.ps, .dat, .ogg) is left out. The demuxer m4v is a bare MPEG-4 stream.
"""

SOUND: Final = ("wav", "w64", "aiff", "mp3", "flac", "aac")
"""Demuxers for sound alone."""

FORMATS: Final = ",".join((*VIDEO, *SOUND))
"""Demuxers that are let near a file: containers that hold their own media. Playlists, concatenations, image sequences,
device and network formats open further files, so a file that is one of them is refused, whatever its ending says."""

ENDINGS: Final = frozenset(ending for endings in VIDEO.values() for ending in endings)
"""Endings of video files, in lower case."""
