"""Place the packets of all streams of a file on one time line: where a clock jumps, all streams move together.

Belongs here: arithmetic on the time stamps of packets. Pure: no media library. Does not belong here: reading packets
(`container`).

A file that was joined from several, or whose sender restarted, holds several stretches of time: its time stamps step
back, or ahead by hours. Within a stretch they relate picture and sound. So stretches of different streams at the same
place of the file are one part of the recording. All time stamps of a part are shifted by one amount, so that it starts
where the part before it ends in all streams. A pause within a part keeps its length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.media.windows import MICRO

Ints = NDArray[np.int64]

STEP_BACK_US: Final = MICRO
"""Decoding time stamps that step back by more than this start a new stretch. They never step back within one; 1 s
leaves room for inexact writers."""

SLIGHT_US: Final = MICRO // 10
"""A step back by more than this is a jump if another stream jumps at the same place: the streams of a part end at
different times."""

JUMP_PACKETS: Final = 100
"""Jumps of two streams that are at most so many packets apart are one event: two seconds of interleaved packets."""

STRAY_PACKETS: Final = 3
"""At most so many packets whose time stamps lie apart from those before and after them are strays."""

MOST_JUMPS: Final = 200
"""With more jumps the time stamps of a file are noise, and each stream is continued by itself."""

SHARE: Final = 0.5
"""Two stretches belong together if they share half of the place in the file of the shorter one. Another stream bridges
a gap if it fills half of it."""


@dataclass(frozen=True)
class PacketTimes:
    """The packets of one stream, in the order of the file; times in microseconds on the clock of the file.

    Args:
        position: number of each packet among those of all streams, ascending.
        decoding: decoding times.
        presentation: presentation times.
        duration: duration of each packet.
        hidden: whether a packet is decoded but not presented.
    """

    position: Ints
    decoding: Ints
    presentation: Ints
    duration: Ints
    hidden: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True)
class _Stretch:
    """Packets start..stop-1 of a stream, on one clock; `offset` is added to their times."""

    stream: int
    start: int
    stop: int
    offset: int = 0


def place(
    streams: Sequence[PacketTimes], pause_us: int, stated_end_us: int | None = None
) -> tuple[list[Ints], list[list[int]]]:
    """Return the presentation times of the packets of all streams on one time line.

    Args:
        streams: the streams that are presented together.
        pause_us: a longer gap that no other stream bridges is a jump of the clock.
        stated_end_us: end of the file as the container states it, on its clock; None if it states none.

    Returns:
        For each stream: the presentation times of its packets, and the numbers of the packets before which its clock
        jumps.
    """
    repaired = [_without_strays(streams, s, pause_us, stated_end_us) for s in range(len(streams))]
    cuts = [_cuts(repaired, s, pause_us) for s in range(len(repaired))]
    if sum(map(len, cuts)) > MOST_JUMPS:
        return [_continued(times, at) for times, at in zip(repaired, cuts, strict=True)], cuts
    stretches = _stretches(repaired, cuts)
    placed = [times.presentation.copy() for times in repaired]
    end: int | None = None
    seams = [[t.start for t in stretches if t.stream == s and t.start] for s in range(len(repaired))]
    for part in _parts(repaired, stretches) if any(seams) else [stretches] if stretches else []:
        aligned = _aligned(repaired, part, pause_us)
        shift = 0 if end is None else end - min(_start(repaired, stretch) for stretch in aligned)
        for stretch in aligned:
            placed[stretch.stream][stretch.start : stretch.stop] += stretch.offset + shift
        last = max(_end(repaired, stretch) for stretch in aligned) + shift
        end = last if end is None else max(end, last)
    return placed, seams


def _steps(stamps: PacketTimes) -> Ints:
    """Return the time from the end of each packet to the next, in decoding order."""
    return stamps.decoding[1:] - stamps.decoding[:-1] - stamps.duration[:-1]


def _without_strays(streams: Sequence[PacketTimes], index: int, pause_us: int, end_us: int | None) -> PacketTimes:
    """Place stray packets right after the packet before them; those at the start, right before the packet after them.

    A few packets whose time stamps lie apart from those before and after them are strays.
    """
    stamps = streams[index]
    steps = _steps(stamps)
    jumps = np.flatnonzero(np.abs(steps) > STEP_BACK_US) + 1
    if not len(jumps):
        return stamps
    decoding, presentation = stamps.decoding.copy(), stamps.presentation.copy()
    edges = [0, *jumps.tolist(), len(stamps)]
    for start, stop in itertools.pairwise(edges):
        if stop - start > STRAY_PACKETS or stop - start == len(stamps):
            continue
        if start == 0:
            step = int(steps[stop - 1])
            if -STEP_BACK_US <= step <= pause_us:
                continue
            times = decoding[stop] - np.cumsum(stamps.duration[start:stop][::-1])[::-1]
        else:
            before = int(decoding[start - 1] + stamps.duration[start - 1])  # as repaired so far
            if stop == len(stamps):
                stray = _ends_astray(streams, index, start, int(steps[start - 1]), pause_us, end_us)
            else:
                stray = abs(int(decoding[stop]) - before) <= STEP_BACK_US
            if not stray:
                continue
            times = before + np.concatenate([[0], np.cumsum(stamps.duration[start : stop - 1])])
        decoding[start:stop] = presentation[start:stop] = times
    return replace(stamps, decoding=decoding, presentation=presentation)


def _ends_astray(
    streams: Sequence[PacketTimes], index: int, start: int, step: int, pause_us: int, end_us: int | None
) -> bool:
    """Return whether the few packets from `start` to the end of the stream lie away from all other packets."""
    if step < -STEP_BACK_US or step > pause_us:
        return not _bridged(streams, index, np.array([start]))[0]
    ends = [int((s.decoding + s.duration)[: start if s is streams[index] else None].max(initial=0)) for s in streams]
    is_beyond = int(streams[index].decoding[start]) > max(ends) + STEP_BACK_US
    return is_beyond and end_us is not None and abs(end_us - max(ends)) <= STEP_BACK_US


def _bridged(streams: Sequence[PacketTimes], index: int, jumps: Ints) -> NDArray[np.bool_]:
    """Return for each jump of a stream whether another stream continues through the gap."""
    stream = streams[index]
    start, stop = stream.decoding[jumps - 1] + stream.duration[jumps - 1], stream.decoding[jumps]
    bridged = np.zeros(len(jumps), bool)
    for other, stamps in enumerate(streams):
        if other != index:
            order = np.argsort(stamps.decoding, kind="stable")
            filled = np.concatenate([[0], np.cumsum(stamps.duration[order])])
            first, last = (np.searchsorted(stamps.decoding[order], edge) for edge in (start, stop))
            bridged |= (start < stop) & (filled[np.maximum(first, last)] - filled[first] >= SHARE * (stop - start))
    return bridged


def _continued(stamps: PacketTimes, cuts: Sequence[int]) -> Ints:
    """Return the presentation times of a stream in which each jump is closed: packets follow those before them."""
    shifts = np.zeros(len(stamps), np.int64)
    at = np.array(cuts, np.int64)
    shifts[at] = -_steps(stamps)[at - 1]
    return stamps.presentation + np.cumsum(shifts)


def _stretches(streams: Sequence[PacketTimes], cuts: Sequence[Sequence[int]]) -> list[_Stretch]:
    positions = [[int(streams[s].position[at]) for at in cuts[s]] for s in range(len(streams))]
    stretches = []
    for s, stamps in enumerate(streams):
        others = list(itertools.chain.from_iterable(positions[:s] + positions[s + 1 :]))
        edges = [0, *sorted({*cuts[s], *_slight(stamps, cuts[s], others)}), len(stamps)]
        stretches += [_Stretch(s, start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
    return stretches


def _cuts(streams: Sequence[PacketTimes], index: int, pause_us: int) -> list[int]:
    """Return the packets of a stream before which its clock jumps."""
    steps = _steps(streams[index])
    jumps = np.flatnonzero((steps < -STEP_BACK_US) | (steps > pause_us)) + 1
    return jumps[~_bridged(streams, index, jumps)].tolist()


def _slight(stamps: PacketTimes, cuts: Sequence[int], others: Sequence[int]) -> list[int]:
    """Return the packets before which the clock steps back a little where the clock of another stream jumps.

    Args:
        stamps: the stream.
        cuts: packets before which its clock jumps.
        others: positions of the jumps of the other streams. Each goes with one jump or step of this stream.
    """
    back = np.flatnonzero(_steps(stamps) < -SLIGHT_US) + 1
    gap = np.abs(stamps.position[back][:, None] - np.array(others, np.int64)[None]).min(
        axis=1, initial=JUMP_PACKETS + 1
    )
    slight = {int(stamps.position[at]): at for at in back[gap <= JUMP_PACKETS].tolist() if at not in cuts}
    candidates = [int(stamps.position[at]) for at in cuts] + list(slight)
    pairs = sorted((abs(position - other), other, position) for other in others for position in candidates)
    matches: dict[int, int] = {}  # position of a jump of another stream -> position in this stream
    for distance, other, position in pairs:
        if distance <= JUMP_PACKETS and other not in matches and position not in matches.values():
            matches[other] = position
    return [slight[position] for position in matches.values() if position in slight]


def _parts(streams: Sequence[PacketTimes], stretches: Sequence[_Stretch]) -> list[list[_Stretch]]:
    """Group the stretches that lie at the same place of the file, in the order of the file."""
    parts: list[list[_Stretch]] = []
    for stretch in stretches:
        linked = [part for part in parts if any(_share_place(streams, stretch, other) for other in part)]
        parts = [part for part in parts if part not in linked]
        parts.append([other for part in linked for other in part] + [stretch])
    return sorted(parts, key=lambda part: min(_span(streams, stretch)[0] for stretch in part))


def _span(streams: Sequence[PacketTimes], stretch: _Stretch) -> tuple[int, int]:
    position = streams[stretch.stream].position
    return int(position[stretch.start]), int(position[stretch.stop - 1]) + 1


def _shared(streams: Sequence[PacketTimes], one: _Stretch, other: _Stretch) -> int:
    (a, b), (c, d) = _span(streams, one), _span(streams, other)
    return min(b, d) - max(a, c)


def _share_place(streams: Sequence[PacketTimes], one: _Stretch, other: _Stretch) -> bool:
    if one.stream == other.stream:
        return False
    shorter = min(stop - start for start, stop in (_span(streams, one), _span(streams, other)))
    return _shared(streams, one, other) >= SHARE * shorter


def _aligned(streams: Sequence[PacketTimes], part: list[_Stretch], pause_us: int) -> list[_Stretch]:
    """Put the stretches of a part on one clock.

    If one stream jumps and the others do not, its new time stamps are kept if they agree with those of the others at
    that place of the file; otherwise its stretch continues at the end of the one before.
    """
    by_stream = {s: [t for t in part if t.stream == s] for s in sorted({t.stream for t in part})}
    reference_stream = min(by_stream, key=lambda s: len(by_stream[s]))
    reference: list[_Stretch] = []
    for stretch in by_stream.pop(reference_stream):
        reference.append(_after(streams, reference[-1], stretch) if reference else stretch)
    aligned = list(reference)
    for stretches in by_stream.values():
        placed: list[_Stretch] = []
        for stretch in stretches:
            nearest = max(reference, key=lambda other: _shared(streams, stretch, other))
            as_stamped = replace(stretch, offset=nearest.offset)
            if placed:
                choices = [as_stamped, _after(streams, placed[-1], stretch)]
                placed.append(min(choices, key=lambda choice: _distance(streams, choice, nearest)))
            elif _meet(streams, as_stamped, nearest, pause_us):
                placed.append(as_stamped)
            else:
                placed.append(replace(stretch, offset=_start(streams, nearest) - _start(streams, stretch)))
        aligned += placed
    return aligned


def _after(streams: Sequence[PacketTimes], before: _Stretch, stretch: _Stretch) -> _Stretch:
    """Return a stretch that starts where another stretch of its stream ends."""
    return replace(stretch, offset=_end(streams, before) - _start(streams, replace(stretch, offset=0)))


def _distance(streams: Sequence[PacketTimes], stretch: _Stretch, other: _Stretch) -> int:
    """Return how far the start of a stretch lies from the clock of the other at that place of the file."""
    stream, other_stream = streams[stretch.stream], streams[other.stream]
    at = int(np.searchsorted(other_stream.position, stream.position[stretch.start]))
    at = min(max(at, other.start), other.stop - 1)
    return abs(int(stream.decoding[stretch.start] + stretch.offset - other_stream.decoding[at] - other.offset))


def _meet(streams: Sequence[PacketTimes], one: _Stretch, other: _Stretch, slack_us: int) -> bool:
    """Return whether the times of two stretches overlap, or lie at most `slack_us` apart."""
    (a, b), (c, d) = ((_start(streams, t), _end(streams, t)) for t in (one, other))
    return min(b, d) - max(a, c) >= -slack_us


def _start(streams: Sequence[PacketTimes], stretch: _Stretch) -> int:
    return int(_presented(streams, stretch, at_end=False).min()) + stretch.offset


def _end(streams: Sequence[PacketTimes], stretch: _Stretch) -> int:
    return int(_presented(streams, stretch, at_end=True).max()) + stretch.offset


def _presented(streams: Sequence[PacketTimes], stretch: _Stretch, *, at_end: bool) -> Ints:
    """Return when packets start (or end) to be presented: those that are shown, or all if none is."""
    stamps, span = streams[stretch.stream], slice(stretch.start, stretch.stop)
    times = stamps.presentation[span] + (stamps.duration[span] if at_end else 0)
    shown = times[~stamps.hidden[span]]
    return shown if len(shown) else times
