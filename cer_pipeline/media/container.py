"""Opening a media file, and its time line as its packets tell it.

Belongs here: what `probe` and `decode` both need of a container. Runs in the child process of `sandbox` only.
Does not belong here: decoding.

Times are microseconds from the start of the container, which is the start of its earliest stream, on the one line that
`clock` makes for picture and sound.
"""

from __future__ import annotations

import itertools
import os
import statistics
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import av.error
import av.logging
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from cer_pipeline.media.clock import Stamps, place
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.formats import FORMATS
from cer_pipeline.media.windows import MICRO
from cer_pipeline.status import Status

OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
"""FFmpeg options of every input, in PyAV and in the ffmpeg binary."""

HEADER_TOLERANCE_S: Final = 0.5
"""How far an MP4 header's duration may lie from that of its streams (edit lists, encoder delay) to be believed."""

JUMP_US: Final = 10 * MICRO
"""In formats whose clock may jump (broadcast streams), a longer gap in all streams is a jump: FFmpeg's own limit
(dts_delta_threshold)."""

PAUSE_US: Final = 600 * MICRO
"""In all other formats a gap is a pause of the recording, which players show; a longer one would only make the tables
long."""

START_SLACK_US: Final = MICRO // 10
"""How far the first packet may lie before the start that the container states: the priming of sound encoders, which is
decoded but not heard, takes up to this."""

EVEN_SHARE: Final = 0.1
EVEN_US: Final = 2_000
"""Intervals within 10 % or 2 ms of the median count as even: Matroska rounds time stamps to 1 ms."""

REORDERED: Final = 16
"""Pictures that a codec may show before one that is decoded first (H.264, HEVC: max_dec_frame_buffering)."""

STDERR: Final = 2
LOG_BYTES: Final = 1 << 20
"""A damaged file can fill a disk with messages: the log starts again at this size."""

DEFAULT_FPS: Final = 25.0
"""Where neither time stamps nor a frame rate are given."""


def input_name(path: str | Path) -> str:
    """A path as FFmpeg takes it: never an address, an option or another protocol, whatever its characters."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100 (resolving links would change what the user named)


def open_media(path: str) -> InputContainer:
    """Open a file for reading.

    Raises:
        MediaError: it cannot be read or is no media file of an accepted format.
    """
    try:
        size = Path(path).stat().st_size
    except FileNotFoundError:
        raise MediaError(Status.FAILED, "the file is no longer there") from None
    except OSError as error:
        raise MediaError(Status.FAILED, f"the file cannot be read ({error.strerror})") from None
    if size == 0:
        raise MediaError(Status.UNDECODABLE, "the file is empty (0 bytes)")
    try:
        return av.open(input_name(path), options=dict(OPTIONS))
    except MemoryError:
        raise
    except (PermissionError, IsADirectoryError) as error:
        raise MediaError(Status.FAILED, f"the file cannot be read ({error.strerror})") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(Status.UNDECODABLE, _why_not(path, error)) from None


def _why_not(path: str, error: Exception) -> str:
    header = mp4_header(path)
    if header is not None and not header.has_index:
        return "the file is cut off: its index (moov box) is missing"
    text = getattr(error, "strerror", None) or str(error)
    return f"not a media file of an accepted format ({text})"


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream of a known codec that is no attached picture; FFmpeg's own order of streams."""
    streams = (s for s in container.streams.video if not s.disposition & s.disposition.attached_pic)
    return next((s for s in streams if has_codec(s)), None)


def has_codec(stream: Stream) -> bool:
    """Whether FFmpeg knows the stream's codec: a damaged header can name one that does not exist."""
    return stream.codec_context is not None


@dataclass(frozen=True)
class Mp4Header:
    """What the boxes of an MP4 or QuickTime file say.

    Args:
        has_index: whether there is a moov box.
        duration_s: duration of the movie header; None where it states none.
    """

    has_index: bool
    duration_s: float | None


def mp4_header(path: str) -> Mp4Header | None:
    """Read the movie header (ISO/IEC 14496-12, 8.2.2); None where the file is no MP4 or QuickTime file.

    FFmpeg before version 8 reported this duration, later ones derive it from the streams: read here, the windows of a
    video do not change with the version.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not any(
            kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free") for kind, _, _ in _boxes(file, 0, min(size, 8))
        ):
            return None
        for kind, start, end in _boxes(file, 0, size):
            if kind == b"moov":
                return Mp4Header(True, _movie_duration(file, start, end))
    return Mp4Header(False, None)


def _movie_duration(file: Any, start: int, end: int) -> float | None:
    for kind, inner, _ in _boxes(file, start, end):
        if kind == b"mvhd":
            file.seek(inner)
            box = file.read(32)
            if len(box) < 32:
                return None
            scale, duration = struct.unpack_from(">IQ", box, 20) if box[0] == 1 else struct.unpack_from(">II", box, 12)
            known = scale and duration not in (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
            return duration / scale if known else None
    return None


def _boxes(file: Any, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        if len(header) < 8:
            return
        size, kind = struct.unpack_from(">I4s", header)
        inner = start + 8
        if size == 1 and len(header) == 16:
            size, inner = struct.unpack_from(">Q", header, 8)[0], start + 16
        elif size == 0:
            size = end - start
        if size < inner - start:
            return
        yield kind, inner, start + size
        start += size


@dataclass
class TimeLine:
    """The video packets of a file, in the order of the file (decoding order).

    Args:
        times: presentation time of each packet, microseconds from the start of the container.
        key: whether it starts anew, needing no earlier packet.
        bad: whether the demuxer flagged it as damaged.
        discard: whether it is decoded but not shown (edit lists).
        disposable: whether no other packet needs it.
        torn: whether the demuxer complained between the packet before and this one.
        cut: whether the demuxer complained after the last packet.
        end_us: end of the last frame shown.
        interval_us: median time between frames.
        until: up to when each packet's frame is shown, as far as the file says so.
        repeats: whether some packets are empty: the frame before is shown again (Theora, AVI).
    """

    times: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    bad: list[bool] = field(default_factory=list)
    discard: list[bool] = field(default_factory=list)
    disposable: list[bool] = field(default_factory=list)
    torn: list[bool] = field(default_factory=list)
    cut: bool = False
    end_us: int = 0
    interval_us: float = 0.0
    until: list[int] = field(default_factory=list)
    repeats: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether the packets alone tell of damage."""
        return self.cut or any(self.bad) or any(self.torn)

    @property
    def shown(self) -> list[int]:
        """Times of the packets that are shown, ascending."""
        return sorted(t for t, hidden in zip(self.times, self.discard, strict=True) if not hidden)

    @property
    def mean_fps(self) -> float | None:
        """Mean frame rate; None for fewer than two frames."""
        shown = self.shown
        span = shown[-1] - shown[0] if shown else 0
        return (len(shown) - 1) * MICRO / span if span > 0 else None

    @property
    def is_even(self) -> bool:
        """Whether all frames are evenly spaced."""
        slack = max(EVEN_US, EVEN_SHARE * self.interval_us)
        shown = self.shown
        return all(abs(b - a - self.interval_us) <= slack for a, b in itertools.pairwise(shown))


@dataclass
class SoundLine:
    """The packets of a sound track, in the order of the file.

    Args:
        times: time of each packet, microseconds from the start of the container.
        seams: times of those before which the clock jumps.
        end_us: end of the last packet that is heard.
    """

    times: list[int] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    end_us: int = 0


@dataclass
class Lines:
    """The packets of a file on one time line.

    Args:
        video: of the video stream; empty without one.
        sound: of the sound track; empty without one.
        jumps: how often the clock of a stream jumps.
        start_us: time 0 on the clock of the file, microseconds.
    """

    video: TimeLine
    sound: SoundLine
    jumps: int
    start_us: int

    @property
    def end_us(self) -> int:
        """End of the last packet of picture or sound."""
        return max(self.video.end_us, self.sound.end_us)


@dataclass
class _Read:
    """What was read of the packets of one stream; times in its own ticks."""

    tick: float  # microseconds
    place: list[int] = field(default_factory=list)
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)

    def take(self, place: int, packet: Packet) -> None:
        self.place.append(place)
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.lasts.append(packet.duration or 0)
        self.hidden.append(packet.is_discard)


def read_lines(
    container: InputContainer, video: VideoStream | None, audio: AudioStream | None, complaints: Complaints
) -> Lines:
    """Read all packets of picture and sound, decoding nothing.

    Presentation time stamps count; where a packet has none its decoding time stamp does, and where no packet of the
    stream has either, packets follow each other at the declared rate.

    Args:
        container: an open file.
        video: its video stream; None without one.
        audio: the sound track that is heard; None without one.
        complaints: what FFmpeg says of the file.
    """
    streams: list[VideoStream | AudioStream] = [s for s in (video, audio) if s is not None]
    read = {s.index: _Read(float(s.time_base * MICRO) if s.time_base else 1.0) for s in streams}
    line = TimeLine()
    torn = False
    try:
        for place_, packet in enumerate(container.demux(*streams)):
            torn |= complaints.new()
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                continue  # the empty packet that ends a stream
            read[packet.stream.index].take(place_, packet)
            if packet.stream is video:
                line.key.append(packet.is_keyframe)
                line.bad.append(packet.is_corrupt)
                line.discard.append(packet.is_discard)
                line.disposable.append(packet.is_disposable)
                line.torn.append(torn)
                line.repeats |= packet.size == 0
                torn = False
    except (av.error.FFmpegError, OSError):
        line.cut = True  # what came before the fault counts
    line.cut |= torn | complaints.new()
    stamps = [_stamps(read[s.index], s) for s in streams]
    shown, seams = place(stamps, _longest_gap(container), _claimed_end(container))
    start = _start(container, stamps, shown)
    lines = Lines(line, SoundLine(), sum(map(len, seams)), start)
    for stream, own, times, jumps in zip(streams, stamps, shown, seams, strict=True):
        if isinstance(stream, VideoStream):
            line.times = (times - start).tolist()
            _tell_frames(line, own.lasts, _declared_fps(stream), np.array(read[stream.index].lasts) > 0)
        else:
            heard = (times - start + own.lasts)[~own.hidden]
            placed = (times - start).tolist()
            lines.sound = SoundLine(placed, [placed[at] for at in jumps], int(heard.max(initial=0)))
    return lines


def _longest_gap(container: InputContainer) -> int:
    return JUMP_US if FormatFlags.ts_discont in FormatFlags(container.format.flags) else PAUSE_US


def _claimed_end(container: InputContainer) -> int | None:
    return (container.start_time or 0) + container.duration if container.duration else None


def _start(container: InputContainer, stamps: list[Stamps], shown: list[Any]) -> int:
    """Time 0: the start that the container states, unless its packets start earlier or much later."""
    firsts = [int(times[~s.hidden].min()) for s, times in zip(stamps, shown, strict=True) if not s.hidden.all()]
    stated = container.start_time
    if not firsts:
        return stated or 0
    first = min(firsts)
    is_near = stated is not None and first - _longest_gap(container) <= stated <= first + START_SLACK_US
    return stated if is_near else first


def _stamps(read: _Read, stream: VideoStream | AudioStream) -> Stamps:
    """Times in microseconds, with those that the packets lack."""
    usual = round(MICRO / _declared_fps(stream)) if isinstance(stream, VideoStream) else 0
    lasts = np.array([round(ticks * read.tick) for ticks in read.lasts], np.int64)
    known = [pts if pts is not None else dts for pts, dts in zip(read.pts, read.dts, strict=True)]
    if isinstance(stream, VideoStream) and not lasts.all():
        ordered = np.diff(np.sort([stamp for stamp in known if stamp is not None]))
        step = round(float(np.median(ordered)) * read.tick) if len(ordered) else 0
        lasts = np.where(lasts > 0, lasts, step or usual)
    show: list[int] = []
    decode: list[int] = []
    follows = 0
    for i, (stamp, dts) in enumerate(zip(known, read.dts, strict=True)):
        show.append(round(stamp * read.tick) if stamp is not None else follows)
        decode.append(round(dts * read.tick) if dts is not None else _decoding_time(show[-1], decode, int(lasts[i])))
        follows = show[-1] + (int(lasts[i]) or usual)
    return Stamps(
        np.array(read.place, np.int64),
        np.array(decode, np.int64),
        np.array(show, np.int64),
        lasts,
        np.array(read.hidden, bool),
    )


def _decoding_time(shown: int, before: list[int], lasts: int) -> int:
    """The decoding time of a packet that tells only when it is shown: not before that of the packet before it."""
    back = before[-1] - shown if before else 0
    return before[-1] if 0 < back <= max(MICRO, REORDERED * lasts) else shown


def _tell_frames(line: TimeLine, lasts: Any, fps: float, is_told: Any) -> None:
    """Say how frames follow each other: their usual interval, the end of each and of all.

    Without reordering a packet tells how long its own frame lasts, with reordering too in Matroska. In MP4 it tells the
    time to the next one that is decoded, which is that between two frames shown up to REORDERED packets earlier.
    """
    line.until = list(line.times)
    order = sorted((i for i, hidden in enumerate(line.discard) if not hidden), key=lambda i: (line.times[i], i))
    shown = [line.times[i] for i in order]
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    line.interval_us = float(statistics.median(gaps)) if gaps else MICRO / fps
    if not order:
        return
    told = [int(lasts[i]) if is_told[i] else 0 for i in range(len(line.times))]
    by_rank = [last for last, hidden in zip(told, line.discard, strict=True) if not hidden]
    padded = np.array(by_rank + [0] * REORDERED, np.int64)
    longest = np.max([padded[k : k + len(order)] for k in range(REORDERED + 1)], axis=0)
    for packet, last in zip(order, longest.tolist(), strict=True):
        line.until[packet] += max(last, told[packet])
    ends = [last for last in (by_rank[-1], told[order[-1]]) if last]
    line.end_us = shown[-1] + (min(ends) if ends else round(line.interval_us))


def _declared_fps(stream: VideoStream) -> float:
    rate = stream.base_rate or stream.average_rate or stream.guessed_rate
    return float(rate) if rate else DEFAULT_FPS


class Complaints:
    """FFmpeg's error messages, which the worker lets it write to a file in place of standard error."""

    def __init__(self) -> None:
        av.logging.restore_default_callback()  # a callback into Python can deadlock with decoder threads
        av.logging.set_libav_level(av.logging.ERROR)
        self._seen = os.fstat(STDERR).st_size

    def new(self) -> bool:
        """Whether there has been a message since the last call."""
        size = os.fstat(STDERR).st_size
        grown, self._seen = size > self._seen, size
        if size > LOG_BYTES:
            os.ftruncate(STDERR, 0)
            self._seen = 0
        return grown
