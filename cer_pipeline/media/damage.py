"""Decide which frames of a damaged video are used.

Belongs here: the damage of a frame and of the frames that it is predicted from. Pure: no media library.
Does not belong here: decoding.

A frame is damaged if its packet is, if the decoder says so, or if it was not decoded at all. A frame that is predicted
from a damaged one shows a smear of it. So no frame from a damaged packet to the next key packet is used, unless no
other packet is predicted from the damaged one.
"""

from __future__ import annotations

import bisect
from typing import Final

from cer_pipeline.media.container import TimeLine

LOOK_BACK: Final = 64
"""A decoder may report an error this many packets late (frame threads and reordering)."""


class Damage:
    """The damage of a video, as far as it has been decoded.

    Args:
        line: the packets of the video.
    """

    def __init__(self, line: TimeLine) -> None:
        self._line = line
        self._keys = [i for i, key in enumerate(line.key) if key]
        self._first_damaged: dict[
            int, int
        ] = {}  # index of a key packet (-1: none before) -> first damaged packet after it
        self._errors: list[int] = []
        for packet, corrupt in enumerate(line.corrupt):
            if corrupt:
                self.mark(packet)

    def decoder_error(self, packet: int) -> None:
        """Record that the decoder raised an error at this packet; one up to LOOK_BACK before it may be the cause."""
        self._errors.append(packet)

    def explains(self, packet: int) -> bool:
        """Return whether an error of the decoder explains that the frame of this packet was not decoded."""
        at = bisect.bisect_left(self._errors, packet)
        return at < len(self._errors) and self._errors[at] - packet <= LOOK_BACK

    def mark(self, packet: int) -> None:
        """Record that the frame of this packet is damaged."""
        if self._line.disposable[packet]:
            return
        key = self._key_before(packet)
        self._first_damaged[key] = min(packet, self._first_damaged.get(key, packet))

    def is_predicted_from_damage(self, packet: int) -> bool:
        """Return whether the frame of this packet is predicted from a damaged one."""
        key = self._key_before(packet)
        if self._first_damaged.get(key, packet) < packet:
            return True
        # A frame that is shown before the key frame that precedes it in the file is predicted from both sides of it.
        is_leading = key >= 0 and self._line.times[packet] < self._line.times[key]
        return is_leading and self._key_before(key - 1) in self._first_damaged

    def _key_before(self, packet: int) -> int:
        at = bisect.bisect_right(self._keys, packet)
        return self._keys[at - 1] if at else -1
