"""Which sound track of a file is heard.

Belongs here: choosing a track. Runs in the child process of `sandbox` only. Does not belong here: the sound (`sound`).

Tracks are numbered from 1 in the order of the file, as players list them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from cer_pipeline.media.container import has_codec, open_media
from cer_pipeline.media.sound import decoded, levels

SILENCE: Final = 1e-4
"""Peak of digital silence, -80 dB of full scale: coders of sound make less than this of nothing, no
microphone does."""

LISTEN_S: Final = 600.0
"""A track that is silent for so long counts as silent: a longer look costs time for every file."""


@dataclass(frozen=True)
class Track:
    """The sound track that is heard.

    Args:
        number: 1-based; None where there is none to hear.
        count: number of sound tracks of the file.
        reason: why it is this one; None without tracks.
    """

    number: int | None
    count: int
    reason: str | None


def sound_track(container: InputContainer, number: int | None) -> AudioStream | None:
    """A sound track by its number; None where it is None.

    Raises:
        IndexError: there is no such track.
    """
    return None if number is None else container.streams.audio[number - 1]


def count(request: dict[str, Any], _emit: Callable[[Any], None]) -> dict[str, Any]:
    """The number of sound tracks of one file, as `tracks`.

    Args:
        request: path.

    Raises:
        MediaError: the file cannot be opened.
    """
    with open_media(request["path"]) as container:
        return {"tracks": len(container.streams.audio)}


def choose(path: str, wanted: int | None = None) -> Track:
    """The track that is asked for; else the one flagged as default; else the first. One of a known codec.

    A default that is silent throughout gives way to the next one with sound: recorders write tracks for microphones
    that are not plugged in.

    Args:
        path: of the file.
        wanted: number of the track that is asked for.

    Raises:
        MediaError: the file cannot be opened.
    """
    with open_media(path) as container:
        tracks = list(container.streams.audio)
        known = [n for n, track in enumerate(tracks, 1) if has_codec(track)]
        default = [n for n in known if tracks[n - 1].disposition & tracks[n - 1].disposition.default]
    if wanted is not None:
        return _wanted(wanted, known, len(tracks))
    if not known:
        return Track(None, len(tracks), "no sound track is of a known codec" if tracks else None)
    first = default[0] if default else known[0]
    kind = "the default track" if default else "the first track"
    if len(tracks) == 1:
        return Track(first, 1, "the only track")
    if len(known) > 1 and is_silent(path, first):
        for other in (n for n in known if n != first):
            if not is_silent(path, other):
                return Track(other, len(tracks), f"track {first}, {kind}, is silent")
    return Track(first, len(tracks), kind)


def _wanted(wanted: int, known: list[int], tracks: int) -> Track:
    if wanted > tracks:
        has = f"the file has {tracks or 'no'} sound track{'' if tracks == 1 else 's'}"
        return Track(None, tracks, f"{has}, track {wanted} was asked for")
    if wanted not in known:
        return Track(None, tracks, f"sound track {wanted}, which was asked for, is of an unknown codec")
    return Track(wanted, tracks, f"track {wanted} was asked for")


def is_silent(path: str, number: int) -> bool:
    """Whether a track holds digital silence throughout, or for LISTEN_S.

    Args:
        path: of the file.
        number: of the track, 1-based.
    """
    heard = 0.0
    with open_media(path) as container:
        for frame in decoded(container, container.streams.audio[number - 1]):
            if float(np.abs(levels(frame)).max(initial=0.0)) > SILENCE:
                return False
            heard += frame.samples / (frame.sample_rate or 1)
            if heard > LISTEN_S:
                break
    return True
