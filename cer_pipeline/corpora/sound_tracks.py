"""Messages about files with several sound tracks, and the check of `--audio-track`.

Belongs here: what the command prints about tracks. Does not belong here: choosing the track of a file (`media.tracks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora.formats.registry import format_of, scan
from cer_pipeline.corpora.names import from_text
from cer_pipeline.errors import CerError
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.sandbox import Limits, Sandbox
from cer_pipeline.profiles import Profile

NAMES_SHOWN: Final = 3


def check(format_: str, root: Path, options: Mapping[str, Any], number: int, profile: Profile) -> None:
    """Refuse a track that no video of a folder has. Files that cannot be opened are ignored; the run reports them.

    Args:
        format_: name of the format.
        root: the folder.
        options: of the format.
        number: of the track, from 1.
        profile: settings, for the limits of the child process that opens the files.

    Raises:
        CerError: the format has no media, or no video has that many tracks.
    """
    if not format_of(format_).media:
        raise CerError(f"the format {format_} has no sound", f"--audio-track {number}")
    most = 0
    with Sandbox(Limits.of(profile)) as sandbox:
        for video in scan(format_, root, options).videos:
            try:
                most = max(most, sandbox.run("tracks", root / from_text(video.path))["tracks"])
            except MediaError:
                continue
            if most >= number:
                return
    has = f"no video has more than {most}" if most else "no video has sound"
    raise CerError("there is no such sound track", f"--audio-track {number} ({has})", "tracks are counted from 1")


def messages(videos: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Return the messages about the sound tracks of a corpus.

    Args:
        videos: rows of `videos` with video_id, audio_tracks, audio_track and audio_track_reason; older tables lack the
            last three columns.
        name: of the corpus.
    """
    several = [video for video in videos if (video.get("audio_tracks") or 0) > 1]
    lacking = [video for video in videos if video.get("audio_tracks") and video["audio_track"] is None]
    lines = []
    if several:
        used = sorted({str(video["audio_track_reason"]) for video in several})
        lines.append(
            f"{_count(several)} more than one sound track ({_some(several)}); in use: {', '.join(used)} - "
            f"`cer corpus add {name} PATH --audio-track N` chooses another"
        )
    if lacking:
        lines.append(f"{_count(lacking)} no usable sound track ({_some(lacking)}): see videos.audio_track_reason")
    return lines


def _count(videos: Sequence[Any]) -> str:
    return "1 video has" if len(videos) == 1 else f"{len(videos)} videos have"


def _some(videos: Sequence[Mapping[str, Any]]) -> str:
    names = [str(video["video_id"]) for video in videos[:NAMES_SHOWN]]
    return ", ".join(names + ["…"] * (len(videos) > NAMES_SHOWN))
