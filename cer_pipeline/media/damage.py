"""Which frames of a damaged video can be trusted.

Belongs here: judging a frame by what happened to it and to the frames that it is predicted from. Pure.
Does not belong here: decoding.

A frame is damaged where its packet is, where the decoder says so, or where it did not come out at all. A frame that is
predicted from a damaged one shows a smear of it: so nothing is trusted from a damaged packet to the next one that
starts anew, unless the damaged packet is one that no other needs.
"""

from __future__ import annotations

import bisect
from typing import Final

from cer_pipeline.media.container import TimeLine

LOOK_BACK: Final = 64
"""A decoder may tell of an error this many packets late (frame threads and reordering)."""


class Damage:
    """What is known of the damage so far, while a video is decoded."""

    def __init__(self, line: TimeLine) -> None:
        self._line = line
        self._keys = [i for i, key in enumerate(line.key) if key]
        self._first_bad: dict[int, int] = {}  # index of a key packet (-1: none before) -> first bad one after it
        self._faults: list[int] = []
        for packet, bad in enumerate(line.bad):
            if bad:
                self.spoil(packet)

    def fault(self, packet: int) -> None:
        """The decoder raised an error when this packet, or one up to LOOK_BACK before it, was decoded."""
        self._faults.append(packet)

    def explains(self, packet: int) -> bool:
        """Whether an error of the decoder explains that the frame of this packet did not come out."""
        at = bisect.bisect_left(self._faults, packet)
        return at < len(self._faults) and self._faults[at] - packet <= LOOK_BACK

    def spoil(self, packet: int) -> None:
        """The frame of this packet is damaged."""
        if self._line.disposable[packet]:
            return
        key = self._key_before(packet)
        self._first_bad[key] = min(packet, self._first_bad.get(key, packet))

    def is_spoilt(self, packet: int) -> bool:
        """Whether the frame of this packet is predicted from a damaged one."""
        key = self._key_before(packet)
        if self._first_bad.get(key, packet) < packet:
            return True
        # A frame that is shown before the key frame that precedes it in the file is predicted from both sides.
        leads = key >= 0 and self._line.times[packet] < self._line.times[key]
        return leads and self._key_before(key - 1) in self._first_bad

    def _key_before(self, packet: int) -> int:
        at = bisect.bisect_right(self._keys, packet)
        return self._keys[at - 1] if at else -1
