"""Choose the sound track of a file.

Belongs here: the choice of the track. Runs in the child process of `sandbox` only. Does not belong here: decoding the
sound into a row (`sound`).

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
"""Peak of digital silence, -80 dB of full scale: sound encoders add less than this to silence, and every microphone has
more noise."""

LONGEST_SILENCE_S: Final = 600.0
"""A track that starts with this much silence counts as silent, since decoding more of it costs time for every file."""


@dataclass(frozen=True)
class Track:
    """The chosen sound track.

    Args:
        number: 1-based number; None if no track can be decoded.
        count: number of sound tracks of the file.
        reason: why it was chosen; None without tracks.
    """

    number: int | None
    count: int
    reason: str | None


def sound_track(container: InputContainer, number: int | None) -> AudioStream | None:
    """Return a sound track by its number; None for the number None.

    Raises:
        IndexError: there is no such track.
    """
    return None if number is None else container.streams.audio[number - 1]


def count(request: dict[str, Any], _emit: Callable[[Any], None]) -> dict[str, Any]:
    """Return the number of sound tracks of one file, as `tracks`.

    Args:
        request: path.

    Raises:
        MediaError: the file cannot be opened.
    """
    with open_media(request["path"]) as container:
        return {"tracks": len(container.streams.audio)}


def choose(path: str, requested: int | None = None) -> Track:
    """Choose the requested track, otherwise the one flagged as default, otherwise the first with a known codec.

    If a default track is silent, the next track with sound is chosen: recorders write tracks for microphones that are
    not plugged in.

    Args:
        path: path of the file.
        requested: number of the requested track; None for the default.

    Raises:
        MediaError: the file cannot be opened.
    """
    with open_media(path) as container:
        tracks = list(container.streams.audio)
        known = [n for n, track in enumerate(tracks, 1) if has_codec(track)]
        default = [n for n in known if tracks[n - 1].disposition & tracks[n - 1].disposition.default]
    if requested is not None:
        return _requested(requested, known, len(tracks))
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


def _requested(number: int, known: list[int], tracks: int) -> Track:
    if number > tracks:
        has = f"the file has {tracks or 'no'} sound track{'' if tracks == 1 else 's'}"
        return Track(None, tracks, f"{has}, track {number} was asked for")
    if number not in known:
        return Track(None, tracks, f"sound track {number}, which was asked for, is of an unknown codec")
    return Track(number, tracks, f"track {number} was asked for")


def is_silent(path: str, number: int) -> bool:
    """Return whether a track is digital silence, throughout or for its first LONGEST_SILENCE_S.

    Args:
        path: path of the file.
        number: number of the track, 1-based.
    """
    decoded_s = 0.0
    with open_media(path) as container:
        for frame in decoded(container, container.streams.audio[number - 1]):
            if float(np.abs(levels(frame)).max(initial=0.0)) > SILENCE:
                return False
            decoded_s += frame.samples / (frame.sample_rate or 1)
            if decoded_s > LONGEST_SILENCE_S:
                break
    return True
