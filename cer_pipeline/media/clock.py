"""One time line for all streams of a file: where a clock jumps, all streams move together.

Belongs here: arithmetic on the time stamps of packets. Pure: no media library. Does not belong here: reading packets
(`container`).

A recording that was joined from several, or whose sender started anew, holds several stretches of time: its stamps step
back, or ahead by hours. Within a stretch they tell how picture and sound belong together. So stretches of different
streams at the same place of the file are one part of the recording; its time stamps are shifted by one amount, to where
the part before it ends in all streams. A pause within a part stays as long as it is.
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
leaves room for writers that are not exact."""

SLIGHT_US: Final = MICRO // 10
"""A step back by more than this is a jump where another stream jumps beside it: the streams of a part
end at different times."""

BESIDE: Final = 100
"""So many packets lie between the jumps of two streams at most: those of two seconds, as writers interleave."""

LONE: Final = 3
"""So few packets whose time stamps lie apart from those before and after are strays: they follow the packet before."""

MOST_JUMPS: Final = 200
"""With more jumps the time stamps of a file are noise: each stream is counted on by itself."""

SHARE: Final = 0.5
"""Two stretches belong together where they share half of the shorter one's place in the file; another stream bridges
a gap that it half fills."""


@dataclass(frozen=True)
class Stamps:
    """The packets of one stream, in the order of the file; times in microseconds on the clock of the file.

    Args:
        place: number of each packet among those of all streams, ascending.
        decode: decoding times.
        show: presentation times.
        lasts: how long each packet lasts.
        hidden: whether it is decoded but not presented.
    """

    place: Ints
    decode: Ints
    show: Ints
    lasts: Ints
    hidden: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.place)


@dataclass(frozen=True)
class _Stretch:
    """Packets start..stop-1 of a stream, on one clock; `offset` is added to their times."""

    stream: int
    start: int
    stop: int
    offset: int = 0


def place(
    streams: Sequence[Stamps], pause_us: int, claimed_us: int | None = None
) -> tuple[list[Ints], list[list[int]]]:
    """Presentation times of the packets of all streams on one time line.

    Args:
        streams: the streams that are presented together.
        pause_us: a gap that is longer, and that no other stream bridges, is a jump of the clock.
        claimed_us: where the container says that the file ends, on its clock; None where it does not.

    Returns:
        Of each stream: the presentation times of its packets, and the numbers of those before which its clock jumps.
    """
    clean = [_without_strays(streams, s, pause_us, claimed_us) for s in range(len(streams))]
    cuts = [_cuts(clean, s, pause_us) for s in range(len(clean))]
    if sum(map(len, cuts)) > MOST_JUMPS:
        return [_counted_on(stamps, own) for stamps, own in zip(clean, cuts, strict=True)], cuts
    stretches = _stretches(clean, cuts)
    shown = [stamps.show.copy() for stamps in clean]
    end: int | None = None
    seams = [[t.start for t in stretches if t.stream == s and t.start] for s in range(len(clean))]
    for part in _parts(clean, stretches) if any(seams) else [stretches] if stretches else []:
        aligned = _aligned(clean, part, pause_us)
        shift = 0 if end is None else end - min(_start(clean, stretch) for stretch in aligned)
        for stretch in aligned:
            shown[stretch.stream][stretch.start : stretch.stop] += stretch.offset + shift
        last = max(_end(clean, stretch) for stretch in aligned) + shift
        end = last if end is None else max(end, last)
    return shown, seams


def _steps(stamps: Stamps) -> Ints:
    """From the end of each packet to the next, in decoding order."""
    return stamps.decode[1:] - stamps.decode[:-1] - stamps.lasts[:-1]


def _without_strays(streams: Sequence[Stamps], index: int, pause_us: int, claimed_us: int | None) -> Stamps:
    """A stream whose stray packets follow the packet before them (the first ones: precede the one after)."""
    stamps = streams[index]
    steps = _steps(stamps)
    jumps = np.flatnonzero(np.abs(steps) > STEP_BACK_US) + 1
    if not len(jumps):
        return stamps
    decode, show = stamps.decode.copy(), stamps.show.copy()
    edges = [0, *jumps.tolist(), len(stamps)]
    for start, stop in itertools.pairwise(edges):
        if stop - start > LONE or stop - start == len(stamps):
            continue
        if start == 0:
            step = int(steps[stop - 1])
            if -STEP_BACK_US <= step <= pause_us:
                continue
            times = decode[stop] - np.cumsum(stamps.lasts[start:stop][::-1])[::-1]
        else:
            before = int(decode[start - 1] + stamps.lasts[start - 1])  # after its own repair
            if stop == len(stamps):
                stray = _ends_astray(streams, index, start, int(steps[start - 1]), pause_us, claimed_us)
            else:
                stray = abs(int(decode[stop]) - before) <= STEP_BACK_US
            if not stray:
                continue
            times = before + np.concatenate([[0], np.cumsum(stamps.lasts[start : stop - 1])])
        decode[start:stop] = show[start:stop] = times
    return replace(stamps, decode=decode, show=show)


def _ends_astray(
    streams: Sequence[Stamps], index: int, start: int, step: int, pause_us: int, claimed_us: int | None
) -> bool:
    """Whether the few packets from `start` to the end of the stream lie where nothing else of the file is."""
    if step < -STEP_BACK_US or step > pause_us:
        return not _bridged(streams, index, np.array([start]))[0]
    rest = [int((s.decode + s.lasts)[: start if s is streams[index] else None].max(initial=0)) for s in streams]
    beyond = int(streams[index].decode[start]) > max(rest) + STEP_BACK_US
    return beyond and claimed_us is not None and abs(claimed_us - max(rest)) <= STEP_BACK_US


def _bridged(streams: Sequence[Stamps], index: int, jumps: Ints) -> NDArray[np.bool_]:
    """Before which of some packets another stream goes on through the gap."""
    mine = streams[index]
    start, stop = mine.decode[jumps - 1] + mine.lasts[jumps - 1], mine.decode[jumps]
    out = np.zeros(len(jumps), bool)
    for other, stamps in enumerate(streams):
        if other != index:
            order = np.argsort(stamps.decode, kind="stable")
            filled = np.concatenate([[0], np.cumsum(stamps.lasts[order])])
            first, last = (np.searchsorted(stamps.decode[order], edge) for edge in (start, stop))
            out |= (start < stop) & (filled[np.maximum(first, last)] - filled[first] >= SHARE * (stop - start))
    return out


def _counted_on(stamps: Stamps, cuts: Sequence[int]) -> Ints:
    """Presentation times of a stream that goes on at its own end wherever it jumps."""
    moved = np.zeros(len(stamps), np.int64)
    at = np.array(cuts, np.int64)
    moved[at] = -_steps(stamps)[at - 1]
    return stamps.show + np.cumsum(moved)


def _stretches(streams: Sequence[Stamps], cuts: Sequence[Sequence[int]]) -> list[_Stretch]:
    places = [[int(streams[s].place[at]) for at in own] for s, own in enumerate(cuts)]
    out = []
    for s, stamps in enumerate(streams):
        others = [place_ for other, own in enumerate(places) if other != s for place_ in own]
        edges = [0, *sorted({*cuts[s], *_slight(stamps, cuts[s], others)}), len(stamps)]
        out += [_Stretch(s, start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
    return out


def _cuts(streams: Sequence[Stamps], index: int, pause_us: int) -> list[int]:
    """Packets of a stream before which its clock jumps."""
    steps = _steps(streams[index])
    jumps = np.flatnonzero((steps < -STEP_BACK_US) | (steps > pause_us)) + 1
    return jumps[~_bridged(streams, index, jumps)].tolist()


def _slight(stamps: Stamps, cuts: Sequence[int], places: Sequence[int]) -> list[int]:
    """Packets before which the clock steps back a little only, where that of another stream jumps: one event."""
    back = np.flatnonzero(_steps(stamps) < -SLIGHT_US) + 1
    apart = np.abs(stamps.place[back][:, None] - np.array(places, np.int64)[None]).min(axis=1, initial=BESIDE + 1)
    slight = {int(stamps.place[at]): at for at in back[apart <= BESIDE].tolist() if at not in cuts}
    free = [int(stamps.place[at]) for at in cuts] + list(slight)
    pairs = sorted((abs(mine - theirs), theirs, mine) for theirs in places for mine in free)
    found: dict[int, int] = {}  # jump of another stream -> the one of this stream that goes with it
    for away, theirs, mine in pairs:
        if away <= BESIDE and theirs not in found and mine not in found.values():
            found[theirs] = mine
    return [slight[mine] for mine in found.values() if mine in slight]


def _parts(streams: Sequence[Stamps], stretches: Sequence[_Stretch]) -> list[list[_Stretch]]:
    """Stretches that lie at the same place of the file, in its order."""
    parts: list[list[_Stretch]] = []
    for stretch in stretches:
        linked = [part for part in parts if any(_share_place(streams, stretch, other) for other in part)]
        parts = [part for part in parts if part not in linked]
        parts.append([other for part in linked for other in part] + [stretch])
    return sorted(parts, key=lambda part: min(_span(streams, stretch)[0] for stretch in part))


def _span(streams: Sequence[Stamps], stretch: _Stretch) -> tuple[int, int]:
    places = streams[stretch.stream].place
    return int(places[stretch.start]), int(places[stretch.stop - 1]) + 1


def _shared(streams: Sequence[Stamps], one: _Stretch, other: _Stretch) -> int:
    (a, b), (c, d) = _span(streams, one), _span(streams, other)
    return min(b, d) - max(a, c)


def _share_place(streams: Sequence[Stamps], one: _Stretch, other: _Stretch) -> bool:
    if one.stream == other.stream:
        return False
    shorter = min(stop - start for start, stop in (_span(streams, one), _span(streams, other)))
    return _shared(streams, one, other) >= SHARE * shorter


def _aligned(streams: Sequence[Stamps], part: list[_Stretch], pause_us: int) -> list[_Stretch]:
    """The stretches of a part on one clock.

    Where one stream jumps and the others do not, its new time stamps hold if they agree with the others at that place
    of the file; else it goes on at its own end.
    """
    by_stream = {s: [t for t in part if t.stream == s] for s in sorted({t.stream for t in part})}
    leader = min(by_stream, key=lambda s: len(by_stream[s]))
    led: list[_Stretch] = []
    for stretch in by_stream.pop(leader):
        led.append(_after(streams, led[-1], stretch) if led else stretch)
    out = list(led)
    for own in by_stream.values():
        placed: list[_Stretch] = []
        for stretch in own:
            beside = max(led, key=lambda other: _shared(streams, stretch, other))
            as_told = replace(stretch, offset=beside.offset)
            if placed:
                choices = [as_told, _after(streams, placed[-1], stretch)]
                placed.append(min(choices, key=lambda choice: _apart(streams, choice, beside)))
            elif _meet(streams, as_told, beside, pause_us):
                placed.append(as_told)
            else:
                placed.append(replace(stretch, offset=_start(streams, beside) - _start(streams, stretch)))
        out += placed
    return out


def _after(streams: Sequence[Stamps], before: _Stretch, stretch: _Stretch) -> _Stretch:
    """A stretch that goes on where another of its stream ends."""
    return replace(stretch, offset=_end(streams, before) - _start(streams, replace(stretch, offset=0)))


def _apart(streams: Sequence[Stamps], stretch: _Stretch, other: _Stretch) -> int:
    """How far the start of a stretch lies from the other's clock at that place of the file."""
    mine, theirs = streams[stretch.stream], streams[other.stream]
    at = int(np.searchsorted(theirs.place, mine.place[stretch.start]))
    at = min(max(at, other.start), other.stop - 1)
    return abs(int(mine.decode[stretch.start] + stretch.offset - theirs.decode[at] - other.offset))


def _meet(streams: Sequence[Stamps], one: _Stretch, other: _Stretch, slack_us: int) -> bool:
    """Whether the times of two stretches meet, but for some slack."""
    (a, b), (c, d) = ((_start(streams, t), _end(streams, t)) for t in (one, other))
    return min(b, d) - max(a, c) >= -slack_us


def _start(streams: Sequence[Stamps], stretch: _Stretch) -> int:
    return int(_presented(streams, stretch, lasting=False).min()) + stretch.offset


def _end(streams: Sequence[Stamps], stretch: _Stretch) -> int:
    return int(_presented(streams, stretch, lasting=True).max()) + stretch.offset


def _presented(streams: Sequence[Stamps], stretch: _Stretch, *, lasting: bool) -> Ints:
    stamps, span = streams[stretch.stream], slice(stretch.start, stretch.stop)
    times = stamps.show[span] + (stamps.lasts[span] if lasting else 0)
    shown = times[~stamps.hidden[span]]
    return shown if len(shown) else times
