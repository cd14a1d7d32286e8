"""Open a media file and read the time line of its packets.

Belongs here: what `probe`, `decode` and `sound` all need of a container. Runs in the child process of `sandbox` only.
Does not belong here: decoding.

Times are microseconds from the start of the container, which is the start of its earliest stream, on the common time
line of picture and sound that `clock` makes.
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

from cer_pipeline.media.clock import Ints, PacketTimes, place
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.formats import FORMATS
from cer_pipeline.media.windows import MICRO
from cer_pipeline.status import Status

OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
"""FFmpeg options of every input, in PyAV and in the ffmpeg binary."""

HEADER_TOLERANCE_S: Final = 0.5
"""An MP4 header's duration is used if it differs by at most this from that of the streams (edit lists, encoder
delay)."""

JUMP_US: Final = 10 * MICRO
"""In formats whose clock may jump (broadcast streams), a longer gap in all streams is a jump; the limit is that of
FFmpeg (dts_delta_threshold)."""

PAUSE_US: Final = 600 * MICRO
"""In all other formats a gap is a pause of the recording, which players show; a longer one is closed, since it would
only make the tables long."""

START_SLACK_US: Final = MICRO // 10
"""The first packet may lie at most this far before the start that the container states: the priming of sound encoders,
which is decoded but not played, is up to this long."""

EVEN_SHARE: Final = 0.1
EVEN_US: Final = 2_000
"""Intervals within 10 % or 2 ms of the median count as even: Matroska rounds time stamps to 1 ms."""

REORDERED: Final = 16
"""Number of pictures that may be shown before one that is decoded first (H.264, HEVC: max_dec_frame_buffering)."""

STDERR: Final = 2
LOG_BYTES: Final = 1 << 20
"""A damaged file can fill a disk with messages: the log is emptied at this size."""

DEFAULT_FPS: Final = 25.0
"""Frame rate of a stream without time stamps and without a stated rate."""


def input_name(path: str | Path) -> str:
    """Return a path in the form that FFmpeg takes for a file, never for an address, an option or another protocol."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100 (resolving links would change the name of the file)


def open_media(path: str) -> InputContainer:
    """Open a file for reading.

    Raises:
        MediaError: the file cannot be read or is not a media file of an accepted format.
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
        raise MediaError(Status.UNDECODABLE, _refusal(path, error)) from None


def _refusal(path: str, error: Exception) -> str:
    header = mp4_header(path)
    if header is not None and not header.has_index:
        return "the file is cut off: its index (moov box) is missing"
    text = getattr(error, "strerror", None) or str(error)
    return f"not a media file of an accepted format ({text})"


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream with a known codec that is not an attached picture, in the order of FFmpeg."""
    streams = (s for s in container.streams.video if not s.disposition & s.disposition.attached_pic)
    return next((s for s in streams if has_codec(s)), None)


def has_codec(stream: Stream) -> bool:
    """Return whether FFmpeg knows the codec of a stream: a damaged header can name one that does not exist."""
    return stream.codec_context is not None


@dataclass(frozen=True)
class Mp4Header:
    """Content of the boxes of an MP4 or QuickTime file.

    Args:
        has_index: whether there is a moov box.
        duration_s: duration in the movie header, s; None if it states none.
    """

    has_index: bool
    duration_s: float | None


def mp4_header(path: str) -> Mp4Header | None:
    """Read the movie header (ISO/IEC 14496-12, 8.2.2); return None if the file is not an MP4 or QuickTime file.

    FFmpeg before version 8 reports this duration, later versions derive it from the streams. It is read here so that
    the windows of a video do not depend on the version.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = next(_boxes(file, 0, min(size, 8)), None)
        if first is None or first[0] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
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
    """Yield kind, start and end of the content of each box between two offsets."""
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
    """The video packets of a file, in the order of the file, which is the decoding order.

    Args:
        times: presentation time of each packet, microseconds from the start of the container.
        key: whether a packet is a key packet, which is decoded without earlier ones.
        corrupt: whether the demuxer flagged a packet as damaged.
        hidden: whether the frame of a packet is decoded but not shown (edit lists).
        disposable: whether no other packet is predicted from a packet.
        after_damage: whether the demuxer reported an error between the packet before and a packet.
        cut: whether the demuxer reported an error after the last packet.
        end_us: end of the last frame shown.
        interval_us: median time between frames.
        until: end of the frame of each packet as the file states it; its start if the file states none.
        repeats: whether some packets are empty, which shows the frame before again (Theora, AVI).
    """

    times: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    corrupt: list[bool] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    disposable: list[bool] = field(default_factory=list)
    after_damage: list[bool] = field(default_factory=list)
    cut: bool = False
    end_us: int = 0
    interval_us: float = 0.0
    until: list[int] = field(default_factory=list)
    repeats: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether the packets alone show that the file is damaged."""
        return self.cut or any(self.corrupt) or any(self.after_damage)

    @property
    def shown(self) -> list[int]:
        """Times of the packets that are shown, ascending."""
        return sorted(t for t, hidden in zip(self.times, self.hidden, strict=True) if not hidden)

    @property
    def mean_fps(self) -> float | None:
        """Mean frame rate, Hz; None for fewer than two frames."""
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
        seams: times of the packets before which the clock jumps.
        end_us: end of the last packet that is played.
    """

    times: list[int] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    end_us: int = 0


@dataclass
class Lines:
    """The packets of a file on one time line.

    Args:
        video: packets of the video stream; empty without one.
        sound: packets of the sound track; empty without one.
        jumps: number of jumps of the clocks of all streams.
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
class _Packets:
    """The packets of one stream as the demuxer gives them; times in ticks of the stream."""

    tick: float  # microseconds
    positions: list[int] = field(default_factory=list)
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)

    def append(self, position: int, packet: Packet) -> None:
        self.positions.append(position)
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.durations.append(packet.duration or 0)
        self.hidden.append(packet.is_discard)


def read_lines(
    container: InputContainer, video: VideoStream | None, audio: AudioStream | None, errors: ErrorLog
) -> Lines:
    """Read all packets of picture and sound without decoding them.

    The time of a packet is its presentation time stamp, otherwise its decoding time stamp. If no packet of the stream
    has either, packets follow each other at the declared rate.

    Args:
        container: an open file.
        video: its video stream; None without one.
        audio: the chosen sound track; None without one.
        errors: the error messages of FFmpeg.
    """
    streams: list[VideoStream | AudioStream] = [s for s in (video, audio) if s is not None]
    packets = {s.index: _Packets(float(s.time_base * MICRO) if s.time_base else 1.0) for s in streams}
    line = TimeLine()
    after_damage = False
    try:
        for position, packet in enumerate(container.demux(*streams)):
            after_damage |= errors.has_grown()
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                continue  # the empty packet that ends a stream
            packets[packet.stream.index].append(position, packet)
            if packet.stream is video:
                line.key.append(packet.is_keyframe)
                line.corrupt.append(packet.is_corrupt)
                line.hidden.append(packet.is_discard)
                line.disposable.append(packet.is_disposable)
                line.after_damage.append(after_damage)
                line.repeats |= packet.size == 0
                after_damage = False
    except (av.error.FFmpegError, OSError):
        line.cut = True  # the packets before the error are used
    line.cut |= after_damage | errors.has_grown()
    by_stream = [_packet_times(packets[s.index], s) for s in streams]
    placed, seams = place(by_stream, _longest_gap(container), _stated_end(container))
    start = _start(container, by_stream, placed)
    lines = Lines(line, SoundLine(), sum(map(len, seams)), start)
    for stream, stamps, presented, jumps in zip(streams, by_stream, placed, seams, strict=True):
        times = (presented - start).tolist()
        if isinstance(stream, VideoStream):
            line.times = times
            has_duration = np.array(packets[stream.index].durations) > 0
            _set_frame_ends(line, np.where(has_duration, stamps.duration, 0).tolist(), _declared_fps(stream))
        else:
            ends = (presented - start + stamps.duration)[~stamps.hidden]
            lines.sound = SoundLine(times, [times[at] for at in jumps], int(ends.max(initial=0)))
    return lines


def _longest_gap(container: InputContainer) -> int:
    return JUMP_US if FormatFlags.ts_discont in FormatFlags(container.format.flags) else PAUSE_US


def _stated_end(container: InputContainer) -> int | None:
    return (container.start_time or 0) + container.duration if container.duration else None


def _start(container: InputContainer, by_stream: list[PacketTimes], placed: list[Ints]) -> int:
    """Return time 0: the start that the container states, unless its packets start earlier or much later."""
    firsts = [int(times[~s.hidden].min()) for s, times in zip(by_stream, placed, strict=True) if not s.hidden.all()]
    stated = container.start_time
    if not firsts:
        return stated or 0
    first = min(firsts)
    is_near = stated is not None and first - _longest_gap(container) <= stated <= first + START_SLACK_US
    return stated if is_near else first


def _packet_times(packets: _Packets, stream: VideoStream | AudioStream) -> PacketTimes:
    """Convert times to microseconds and fill in those that the packets lack."""
    usual = round(MICRO / _declared_fps(stream)) if isinstance(stream, VideoStream) else 0
    durations = np.array([round(ticks * packets.tick) for ticks in packets.durations], np.int64)
    stamps = [pts if pts is not None else dts for pts, dts in zip(packets.pts, packets.dts, strict=True)]
    if isinstance(stream, VideoStream) and not durations.all():
        steps = np.diff(np.sort([stamp for stamp in stamps if stamp is not None]))
        step = round(float(np.median(steps)) * packets.tick) if len(steps) else 0
        durations = np.where(durations > 0, durations, step or usual)
    presentation: list[int] = []
    decoding: list[int] = []
    end = 0
    for stamp, dts, duration in zip(stamps, packets.dts, durations.tolist(), strict=True):
        shown = round(stamp * packets.tick) if stamp is not None else end
        presentation.append(shown)
        decoding.append(round(dts * packets.tick) if dts is not None else _decoding_time(shown, decoding, duration))
        end = shown + (duration or usual)
    return PacketTimes(
        np.array(packets.positions, np.int64),
        np.array(decoding, np.int64),
        np.array(presentation, np.int64),
        durations,
        np.array(packets.hidden, bool),
    )


def _decoding_time(shown: int, before: list[int], duration: int) -> int:
    """Return the decoding time of a packet that states its presentation time only: not before that of the last one."""
    back = before[-1] - shown if before else 0
    return before[-1] if 0 < back <= max(MICRO, REORDERED * duration) else shown


def _set_frame_ends(line: TimeLine, durations: list[int], fps: float) -> None:
    """Set the median interval of the frames, the end of each frame, and the end of the last one.

    Without reordering, and in Matroska also with reordering, a packet states the duration of its frame. In MP4 a packet
    states the time to the next one that is decoded, which is the time between two frames shown up to REORDERED packets
    earlier.

    Args:
        line: packets with their times.
        durations: duration that each packet states, microseconds; 0 if it states none.
        fps: declared frame rate, for a single frame.
    """
    line.until = list(line.times)
    order = sorted((i for i, hidden in enumerate(line.hidden) if not hidden), key=lambda i: (line.times[i], i))
    shown = [line.times[i] for i in order]
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    line.interval_us = float(statistics.median(gaps)) if gaps else MICRO / fps
    if not order:
        return
    visible = [duration for duration, hidden in zip(durations, line.hidden, strict=True) if not hidden]
    padded = np.array(visible + [0] * REORDERED, np.int64)
    longest = np.max([padded[k : k + len(order)] for k in range(REORDERED + 1)], axis=0)
    for packet, duration in zip(order, longest.tolist(), strict=True):
        line.until[packet] += max(duration, durations[packet])
    stated = [duration for duration in (visible[-1], durations[order[-1]]) if duration]
    line.end_us = shown[-1] + (min(stated) if stated else round(line.interval_us))


def _declared_fps(stream: VideoStream) -> float:
    rate = stream.base_rate or stream.average_rate or stream.guessed_rate
    return float(rate) if rate else DEFAULT_FPS


class ErrorLog:
    """FFmpeg's error messages; in the worker, standard error is a file, which FFmpeg writes them to."""

    def __init__(self) -> None:
        av.logging.restore_default_callback()  # a callback into Python can deadlock with decoder threads
        av.logging.set_libav_level(av.logging.ERROR)
        self._size = os.fstat(STDERR).st_size

    def has_grown(self) -> bool:
        """Return whether there has been a message since the last call."""
        size = os.fstat(STDERR).st_size
        grown, self._size = size > self._size, size
        if size > LOG_BYTES:
            os.ftruncate(STDERR, 0)
            self._size = 0
        return grown
