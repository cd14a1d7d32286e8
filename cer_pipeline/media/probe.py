"""Read the duration, frame rate, size and streams of a media file without decoding it.

Belongs here: the columns of the table `videos`. Runs in the child process of `sandbox` only.
Does not belong here: decoding. Only the first frame is decoded, for its display matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cer_pipeline.media.container import (
    HEADER_TOLERANCE_S,
    ErrorLog,
    Lines,
    has_codec,
    mp4_header,
    open_media,
    read_lines,
    video_stream,
)
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.orientation import Orientation
from cer_pipeline.media.tracks import choose, sound_track
from cer_pipeline.media.windows import MICRO
from cer_pipeline.status import Status

PACKETS_FOR_FIRST_FRAME: Final = 64
PADDING_S: Final = 0.1
"""The last packet may end this long after the sound: packets of MP3, AAC and Opus last up to 0.064 s."""

MAX_ASPECT: Final = 4.0
"""A larger aspect ratio of the pixels, or a smaller one than its inverse, is an error of the header."""


def probe(request: dict[str, Any], _emit: Callable[[Any], None]) -> dict[str, Any]:
    """Return the row of `videos` of one file, without the columns that the corpus gives.

    Args:
        request: path; max_duration_s, above which a duration is damage; audio_track, the 1-based number of the
            requested sound track, or null.

    Returns:
        Columns of `tables.VIDEOS` by name, with status and reason.

    Raises:
        MediaError: the file gives no row.
    """
    path, limit = request["path"], request["max_duration_s"]
    errors = ErrorLog()
    track = choose(path, request.get("audio_track"))
    with open_media(path) as container:
        row: dict[str, Any] = {"container": container.format.name, "status": str(Status.OK), "reason": None}
        audio = sound_track(container, track.number)
        row |= {"audio_tracks": track.count, "audio_track": track.number, "audio_track_reason": track.reason}
        row |= _sound(audio)
        stream = video_stream(container)
        if stream is None and not track.count:
            raise MediaError(Status.UNDECODABLE, "the file holds neither video nor sound")
        if stream is None and audio is None:
            raise MediaError(Status.NO_VIDEO, f"the file has no video stream, and {track.reason}")
        lines = read_lines(container, stream, audio, errors)
        if stream is None and not all(map(has_codec, container.streams.video)):
            row |= {"status": str(Status.UNDECODABLE), "reason": "the video stream is of an unknown codec"}
        elif stream is None:
            pictures = "only an attached picture" if container.streams.video else "no video stream"
            row |= {"status": str(Status.NO_VIDEO), "reason": f"the file has {pictures}"}
        else:
            line = lines.video
            row |= {
                "video_codec": stream.codec_context.name,
                "frames": len(line.shown),
                "fps": line.mean_fps,
                "nominal_fps": float(stream.base_rate) if stream.base_rate else None,
                "variable_frame_rate": not line.is_even,
            }
            if not line.shown:
                row |= {"status": str(Status.UNDECODABLE), "reason": "the video stream holds no frame"}
        duration = _duration(path, container, lines, limit)
    if stream is not None:
        row |= _picture(path)
    if duration is None:
        raise MediaError(Status.UNDECODABLE, "the file has no duration")
    if duration > limit:
        raise MediaError(Status.UNDECODABLE, f"the file states a duration of {duration:.0f} s, above {limit:.0f} s")
    return row | {"duration_s": duration}


def _duration(path: str, container: InputContainer, lines: Lines, limit_s: float) -> float | None:
    """Return the duration D, s: the stated one if the packets agree or the file is cut off, else that of the packets.

    Containers state their duration to the sample; the end of the last packet includes the padding of the encoder.
    """
    end, stated = lines.end_us / MICRO, _stated(path, container)
    if stated is None or lines.jumps:
        return round(end, 6) if lines.end_us > 0 or stated is not None else None
    last_frame = max(lines.video.shown, default=0) / MICRO
    agrees = max(last_frame, lines.sound.end_us / MICRO - PADDING_S, end - HEADER_TOLERANCE_S) < stated
    agrees &= stated <= end + HEADER_TOLERANCE_S
    is_cut = lines.video.cut and end < stated <= limit_s
    return round(stated if agrees or is_cut or not lines.end_us else end, 6)


def _stated(path: str, container: InputContainer) -> float | None:
    """Return the duration that the container states, s; None if it states none."""
    stated = container.duration / MICRO if container.duration is not None and container.duration >= 0 else None
    header = mp4_header(path)
    declared = header.duration_s if header is not None else None
    if stated is not None and declared is not None and abs(declared - stated) <= HEADER_TOLERANCE_S:
        return declared
    return stated


def _sound(stream: AudioStream | None) -> dict[str, Any]:
    if stream is None:
        return {"audio_codec": None, "audio_rate": None, "audio_channels": None}
    context = stream.codec_context
    return {
        "audio_codec": context.name,
        "audio_rate": context.sample_rate or None,
        "audio_channels": context.channels or None,
    }


def _picture(path: str) -> dict[str, Any]:
    with open_media(path) as container:
        stream = video_stream(container)
        assert stream is not None
        frame = _first_frame(container, stream)
        orientation = Orientation.of_frame(frame) if frame is not None else Orientation()
        source = frame if frame is not None else stream.codec_context
        width, height = square_pixels(source.width, source.height, stream.sample_aspect_ratio)
    if not width or not height:
        return {}
    width, height = orientation.size(width, height)
    return {"width": width, "height": height, "rotation": orientation.degrees}


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    stream.thread_type = "SLICE"
    for count, packet in enumerate(container.demux(stream)):
        try:
            for frame in packet.decode():
                return frame
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError):
            continue
        if count == PACKETS_FOR_FIRST_FRAME:
            break
    return None


def square_pixels(width: int, height: int, aspect: Any) -> tuple[int, int]:
    """Return the size of a picture with square pixels: the width is multiplied by the aspect ratio of the pixels."""
    ratio = float(aspect) if aspect else 1.0
    if not (math.isfinite(ratio) and 1 / MAX_ASPECT <= ratio <= MAX_ASPECT):
        ratio = 1.0
    return round(width * ratio), height
