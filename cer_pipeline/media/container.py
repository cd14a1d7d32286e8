"""Opening a media file, and its time line as its packets tell it.

Belongs here: what `probe` and `decode` both need of a container. Runs in the child process of `sandbox` only.
Does not belong here: decoding.

Times are microseconds from the start of the container, which is the start of its earliest stream.
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
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.formats import FORMATS
from cer_pipeline.media.windows import MICRO
from cer_pipeline.status import Status

OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
"""FFmpeg options of every input, in PyAV and in the ffmpeg binary."""

HEADER_TOLERANCE_S: Final = 0.5
"""How far an MP4 header's duration may lie from that of its streams (edit lists, encoder delay) to be believed."""

STEP_BACK_US: Final = MICRO
"""Decoding time stamps that step back by more than this start a new stretch of the same video."""

EVEN_SHARE: Final = 0.1
EVEN_US: Final = 2_000
"""Intervals within 10 % or 2 ms of the median count as even: Matroska rounds time stamps to 1 ms."""

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


def start_us(container: InputContainer) -> int:
    """Start of the container on FFmpeg's clock, microseconds."""
    return container.start_time or 0


def read_time_line(container: InputContainer, stream: VideoStream, complaints: Complaints) -> TimeLine:
    """Read all packets of the video stream, decoding nothing.

    Presentation time stamps count; where a packet has none its decoding time stamp does, and where no packet of the
    stream has either, frames follow each other at the declared rate.
    """
    line, stamps = TimeLine(), []
    tick = stream.time_base * MICRO if stream.time_base else 1
    durations: dict[int, int] = {}
    shift, before = 0, None
    try:
        for packet in container.demux(stream):
            torn = complaints.new()
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                line.cut |= torn
                continue  # the empty packet that ends a stream
            if before is not None and packet.dts is not None and (packet.dts - before) * tick < -STEP_BACK_US:
                shift += before - packet.dts + (packet.duration or 0)
            before = packet.dts if packet.dts is not None else before
            stamp = packet.pts if packet.pts is not None else packet.dts
            stamps.append(None if stamp is None else stamp + shift)
            durations[len(stamps) - 1] = packet.duration or 0
            line.key.append(packet.is_keyframe)
            line.bad.append(packet.is_corrupt)
            line.discard.append(packet.is_discard)
            line.disposable.append(packet.is_disposable)
            line.torn.append(torn)
    except (av.error.FFmpegError, OSError):
        line.cut = True  # what came before the fault counts
    line.cut |= complaints.new()
    start = start_us(container)
    line.times = _times(stamps, stream, lambda stamp: round(stamp * tick) - start)
    shown = line.shown
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    line.interval_us = float(statistics.median(gaps)) if gaps else MICRO / _declared_fps(stream)
    if shown:
        final = max(range(len(line.times)), key=lambda i: (not line.discard[i], line.times[i]))
        line.end_us = line.times[final] + (round(durations[final] * tick) or round(line.interval_us))
    return line


def _times(stamps: list[int | None], stream: VideoStream, place: Any) -> list[int]:
    if all(stamp is None for stamp in stamps):
        return [round(i * MICRO / _declared_fps(stream)) for i in range(len(stamps))]
    times: list[int] = []
    for stamp in stamps:
        step = round(MICRO / _declared_fps(stream))
        times.append(place(stamp) if stamp is not None else (times[-1] + step if times else 0))
    return times


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
