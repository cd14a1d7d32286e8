"""Decode a video in one pass: the frame shown at every sample of the grid, as JPEG, and the time stamps of all frames.

Belongs here: decoding, scaling, turning, encoding of pictures. Runs in the child process of `sandbox` only.
Does not belong here: which frame a sample shows (`sampler`), which frames are damaged (`damage`).

Every frame is decoded once; only those that a sample shows are converted to RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import av.error
import cv2
import numpy as np
import pyarrow as pa
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from cer_pipeline.media.container import ErrorLog, Lines, TimeLine, open_media, read_lines, video_stream
from cer_pipeline.media.damage import Damage
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.orientation import Orientation
from cer_pipeline.media.probe import square_pixels
from cer_pipeline.media.sampler import End, Sample, Sampler, Shown
from cer_pipeline.media.tracks import sound_track
from cer_pipeline.media.windows import MICRO, micros
from cer_pipeline.status import Status
from cer_pipeline.tables import FRAMES

THREADS: Final = 4
"""Threads of the decoder for a file with undamaged packets. The number is fixed, since the frames of a damaged file
depend on it. A file whose packets show damage is decoded by one thread, since several threads lose the frames before an
error at the end."""

BATCH_BYTES: Final = 8 << 20
BATCH_ROWS: Final = 512
CUT_TOLERANCE_US: Final = MICRO // 2
"""A stream that ends more than this before its declared end is cut off."""

UNSPECIFIED: Final = 2  # AVCOL_SPC_UNSPECIFIED
BEFORE_ALL: Final = -(1 << 62)  # a time before that of every frame
HD_HEIGHT: Final = 720
"""A video without a stated colour space is BT.709 from this height on, otherwise BT.601 (the convention of players)."""

SCALING: Final = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""Area averaging avoids aliasing when shrinking. Bit-exact scaling gives the same bytes on every processor."""


def frames(request: dict[str, Any], emit: Callable[[pa.RecordBatch], None]) -> dict[str, Any]:
    """Decode one video and emit its rows of `frames` in batches.

    Args:
        request: path, video_id, audio_track (number of the chosen sound track, which is on the same time line, or
            null), samples, rate_hz, long_side, jpeg_quality, hold_s.
        emit: called with each batch of rows.

    Returns:
        The number of decoded frames, as `frames`.

    Raises:
        MediaError: the file cannot be opened or has no video stream.
    """
    errors = ErrorLog()
    with open_media(request["path"]) as container:
        stream = _stream(container)
        lines = read_lines(container, stream, sound_track(container, request.get("audio_track")), errors)
        missing_until = _missing_until(container, stream, lines)
    line = lines.video
    sampler = Sampler(request["samples"], request["rate_hz"], line.interval_us, micros(request["hold_s"]))
    count = 0
    with open_media(request["path"]) as container:
        stream = _stream(container)
        pictures = Pictures(stream.sample_aspect_ratio, request["long_side"], request["jpeg_quality"])
        writer = _Writer(request, pictures, emit)
        for shown in _shown(container, stream, lines):
            count += shown.number is not None
            for sample in sampler.frame(shown):
                writer.write(sample)
    for sample in sampler.finish(End(line.end_us, missing_until)):
        writer.write(sample)
    writer.flush()
    return {"frames": count}


def _stream(container: InputContainer) -> VideoStream:
    stream = video_stream(container)
    if stream is None:
        raise MediaError(Status.NO_VIDEO, "the file has no video stream")
    return stream


def _missing_until(container: InputContainer, stream: VideoStream, lines: Lines) -> int:
    """Return up to when the header states frames that the file does not hold, microseconds; 0 if it holds all."""
    if lines.jumps:
        return 0  # the stated duration is on a clock that jumps
    if stream.duration is not None and stream.time_base is not None:
        end = round((stream.start_time or 0) * stream.time_base * MICRO) - lines.start_us
        end += round(stream.duration * stream.time_base * MICRO)
    else:
        end = container.duration or 0
        if not lines.video.cut:
            return 0  # the container's duration may be that of a longer sound
    return end if end - lines.video.end_us > CUT_TOLERANCE_US else 0


def _shown(container: InputContainer, stream: VideoStream, lines: Lines) -> Iterator[Shown]:
    """Yield all frames in order of presentation, also damaged and missing ones; times never step back."""
    line = lines.video
    damage = Damage(line)
    order = sorted((i for i, hidden in enumerate(line.hidden) if not hidden), key=lambda i: (line.times[i], i))
    rank = {packet: r for r, packet in enumerate(order)}
    next_rank, time = 0, BEFORE_ALL

    def missing(until: int) -> Iterator[Shown]:
        for packet in order[next_rank:until]:
            if line.corrupt[packet] or damage.explains(packet):
                damage.mark(packet)
                at = max(time, line.times[packet])
                yield Shown(at, None, reason="the frame is damaged", until_us=line.until[packet])

    decoded = _decoded(container, stream, damage, line)
    for number, (packet, frame) in enumerate(decoded):
        if packet is None or packet not in rank:
            stamp, after_damage, usable = _frame_time(frame, time, lines), False, not frame.is_corrupt
            until = stamp
        else:
            if rank[packet] >= next_rank:
                yield from missing(rank[packet])
                next_rank = rank[packet] + 1
            corrupt = frame.is_corrupt or line.corrupt[packet]
            if corrupt:
                damage.mark(packet)
            stamp, after_damage, until = line.times[packet], line.after_damage[packet], line.until[packet]
            usable = not corrupt and not damage.is_predicted_from_damage(packet)
        time = max(time, stamp)
        yield Shown(time, number, frame if usable else None, "the frame is damaged", after_damage, until)
    yield from missing(len(order))


def _frame_time(frame: VideoFrame, before: int, lines: Lines) -> int:
    if frame.pts is not None and frame.time_base is not None and not lines.jumps:
        return round(frame.pts * frame.time_base * MICRO) - lines.start_us
    return before + round(lines.video.interval_us) if before > BEFORE_ALL else 0


def _decoded(
    container: InputContainer, stream: VideoStream, damage: Damage, line: TimeLine
) -> Iterator[tuple[int | None, VideoFrame]]:
    """Yield every decoded frame with the number of its packet."""
    context = stream.codec_context
    context.thread_type = "AUTO"
    context.thread_count = 1 if line.is_damaged or line.repeats else THREADS
    context.copy_opaque = True  # so that a frame carries the number of its packet
    context.flags |= 1 << 3  # AV_CODEC_FLAG_OUTPUT_CORRUPT: damaged frames are given too, flagged
    at, last = 0, None
    try:
        for packet in container.demux(stream):
            if packet.size or packet.pts is not None or packet.dts is not None:
                packet.opaque = at
                at += 1
                if not packet.size:  # the decoder would take it for the end of the stream
                    if last is not None:
                        yield at - 1, last
                    continue
            try:
                decoded = packet.decode()
            except MemoryError:
                raise
            except (av.error.FFmpegError, OSError):
                damage.decoder_error(min(at, len(line.times)) - 1)
                continue
            for last in decoded:
                yield last.opaque if isinstance(last.opaque, int) else None, last
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError):
        return  # the demuxer stopped; the time line shows which frames are missing


class _Writer:
    """Convert samples to rows, and rows to batches of bounded size."""

    def __init__(self, request: dict[str, Any], pictures: Pictures, emit: Callable[[pa.RecordBatch], None]) -> None:
        self._request = request
        self._pictures = pictures
        self._emit = emit
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._number: int | None = None  # number of the frame in `_picture`
        self._picture: dict[str, Any] = {}

    def write(self, sample: Sample) -> None:
        row: dict[str, Any] = {
            "video_id": self._request["video_id"],
            "sample": sample.index,
            "time_s": sample.index / self._request["rate_hz"],
            "frame_times": sample.frame_times,
            "status": str(sample.status),
            "reason": sample.reason,
        }
        if sample.shown is not None:
            if self._number != sample.shown.number:
                self._number = sample.shown.number
                self._picture = self._pictures.encode(sample.shown.picture)
            row |= self._picture
            row |= {"source_frame": sample.shown.number, "source_time_s": sample.shown.time_us / MICRO}
            self._bytes += len(self._picture["jpeg"])
        self._rows.append(row)
        if self._bytes >= BATCH_BYTES or len(self._rows) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._emit(pa.RecordBatch.from_pylist(self._rows, schema=FRAMES.schema))
        self._rows, self._bytes = [], 0


class Pictures:
    """Encode the frames of one video as JPEG.

    Args:
        aspect: aspect ratio of the pixels; None for square ones.
        long_side: largest length of a side of a picture, pixels.
        quality: quality of the JPEG, 0..100.
    """

    def __init__(self, aspect: Any, long_side: int, quality: int) -> None:
        self._aspect = aspect
        self._long_side = long_side
        self._quality = quality
        self._scaler = VideoReformatter()  # reuses its tables from frame to frame

    def encode(self, frame: VideoFrame) -> dict[str, Any]:
        """Return the columns width, height and jpeg of a frame as displayed: square pixels, upright, scaled."""
        picture = Orientation.of_frame(frame).apply(self.to_bgr(frame))
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture), [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        if not done:
            raise MediaError(Status.FAILED, "a frame could not be encoded as JPEG")
        return {"width": picture.shape[1], "height": picture.shape[0], "jpeg": data.tobytes()}

    def to_bgr(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame as uint8 [height, width, 3] in the order blue, green, red, scaled but not turned."""
        width, height = square_pixels(frame.width, frame.height, self._aspect)
        shrink = min(1.0, self._long_side / max(width, height))
        guess = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
        scaled = self._scaler.reformat(
            frame,
            format="bgr24",
            width=max(1, round(width * shrink)),
            height=max(1, round(height * shrink)),
            interpolation=SCALING,
            src_colorspace=guess if frame.colorspace == UNSPECIFIED else None,
            threads=1,
        )
        return scaled.to_ndarray()
