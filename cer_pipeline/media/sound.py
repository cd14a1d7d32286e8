"""Decode the sound of a file on the time line of its packets and mix it to one channel: a row of `audio`.

Belongs here: decoding, placing, resampling and encoding of sound. Runs in the child process of `sandbox` only.
Does not belong here: the mix of the channels (`mix`), the choice of the track (`tracks`).

Sound is decoded twice: first to choose the mix, then to apply it. Only about one second lies in memory at a time,
whatever the length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import av
import av.error
import numpy as np
import pyarrow as pa
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer

from cer_pipeline.media.container import ErrorLog, SoundLine, open_media, read_lines, video_stream
from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.mix import NAMELESS, Floats, Mix, MixAnalysis
from cer_pipeline.media.windows import MICRO, micros
from cer_pipeline.sound_file import SAMPLE_RATE_HZ
from cer_pipeline.status import Status
from cer_pipeline.tables import AUDIO

SLACK_US: Final = 40_000
"""Sound continues without a seam while its time stamps differ by at most this: containers round them, and clocks drift.
Otherwise it is placed anew, since viewers notice sound 45 ms ahead of its picture (ITU-R BT.1359-1)."""

ROUNDED_US: Final = 2_000
"""Tolerance for time stamps, which some containers round to 1 ms (Matroska, FLV)."""

FULL_SCALE: Final = 32_768  # of 16-bit samples

BIT_EXACT: Final = {"fflags": "+bitexact"}
"""Keeps the version of the encoder out of the file, so that the same sound gives the same bytes."""


@dataclass(frozen=True)
class Part:
    """A part of a sound at 16 kHz.

    Args:
        start: position of its first sample, counted from time 0.
        sound: float32 [channels, samples].
        names: FFmpeg's names of the channels.
    """

    start: int
    sound: Floats
    names: tuple[str, ...]


def extract(request: dict[str, Any], emit: Callable[[Any], None]) -> dict[str, Any]:
    """Decode the sound of one file and emit its row of `audio`.

    Sample 0 is time 0 of the container. Gaps and packets that cannot be decoded are silent; overlaps are cut.

    Args:
        request: path, video_id, audio_track (number of the track, 1-based), duration_s (end of the sound), folder (for
            a temporary file).
        emit: called with each batch of rows.

    Returns:
        An empty mapping.

    Raises:
        MediaError: no sound could be decoded.
    """
    path, number = request["path"], request["audio_track"]
    limit = round(micros(request["duration_s"]) * SAMPLE_RATE_HZ / MICRO)
    with open_media(path) as container:
        tracks = container.streams.audio
        if not 1 <= number <= len(tracks):
            raise MediaError(Status.NO_AUDIO, "the file has no such sound track")
        line = read_lines(container, video_stream(container), tracks[number - 1], ErrorLog()).sound
    mixes, length = _mixes(path, number, line, limit)
    if not length:
        raise MediaError(Status.UNDECODABLE, "no sound could be decoded")
    target = Path(request["folder"]) / "sound.flac"
    with _Flac(target) as flac:
        for part in parts(path, number, line, limit):
            flac.write(part.start, mixes[part.names].apply(part.start, part.sound))
    data = target.read_bytes()
    target.unlink()
    row = {
        "video_id": request["video_id"],
        "sample_rate": SAMPLE_RATE_HZ,
        "duration_s": length / SAMPLE_RATE_HZ,
        "mix": "; then ".join(mix.description for mix in mixes.values()),
        "flac": data,
        "status": str(Status.OK),
        "reason": None,
    }
    emit(pa.RecordBatch.from_pylist([row], schema=AUDIO.schema))
    return {}


def _mixes(path: str, number: int, line: SoundLine, limit: int) -> tuple[dict[tuple[str, ...], Mix], int]:
    """Return the mix for each channel layout, and the length of the sound in samples."""
    analyses: dict[tuple[str, ...], MixAnalysis] = {}
    length = 0
    for part in parts(path, number, line, limit):
        analyses.setdefault(part.names, MixAnalysis(part.names)).add(part.start, part.sound)
        length = part.start + part.sound.shape[1]
    return {names: analysis.mix() for names, analysis in analyses.items()}, length


def parts(path: str, number: int, line: SoundLine, limit: int) -> Iterator[Part]:
    """Yield the sound of a track at 16 kHz, in order of time, without overlaps.

    Args:
        path: path of the file.
        number: number of the track, 1-based.
        line: time line of the track.
        limit: length in samples at which the sound is cut.
    """
    end = 0
    for part in _placed(path, number, line):
        skip = max(0, end - part.start)
        sound = part.sound[:, skip : max(skip, limit - part.start)]
        if sound.shape[1]:
            end = part.start + skip + sound.shape[1]
            yield Part(part.start + skip, sound, part.names)


def _placed(path: str, number: int, line: SoundLine) -> Iterator[Part]:
    run: _Run | None = None
    seams = deque(line.seams)
    with open_media(path) as container:
        for frame in decoded(container, container.streams.audio[number - 1], line.times):
            if not frame.sample_rate or not frame.samples:
                continue
            sound, names = levels(frame), tuple(channel.name for channel in frame.layout.channels)
            if len(names) != len(sound):
                names = (NAMELESS,) * len(sound)
            stamp = None if frame.pts is None else round(frame.pts * (frame.time_base or 0) * MICRO)
            at_seam = False
            while stamp is not None and seams and stamp >= seams[0] - ROUNDED_US:
                seams.popleft()
                at_seam = True
            if run is None or at_seam or not run.continues(stamp, frame.sample_rate, names):
                start = stamp if stamp is not None else 0 if run is None else round(run.end_us)
                if run is not None:
                    yield from run.finish()
                run = _Run.starting(start, frame.sample_rate, names)
            yield from run.add(sound)
        if run is not None:
            yield from run.finish()


def decoded(container: InputContainer, track: AudioStream, times: list[int] | None = None) -> Iterator[AudioFrame]:
    """Yield the frames of a sound track, without those that cannot be decoded.

    Args:
        container: an open file.
        track: one of its sound tracks.
        times: times of the packets, microseconds, which replace their time stamps.
    """
    tick = track.time_base * MICRO if track.time_base else 1
    at = 0
    try:
        for packet in container.demux(track):
            if packet.size or packet.pts is not None or packet.dts is not None:
                # The decoder adds the duration of the samples that it leaves out (priming) to these time stamps.
                if times is not None:
                    packet.pts = packet.dts = round(times[at] / tick) if at < len(times) else None
                at += 1
                if not packet.size:
                    continue  # the decoder would take it for the end of the stream
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except (av.error.FFmpegError, OSError, ValueError):
                continue
            yield from frames
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError):
        return  # the demuxer stopped; the frames before are used


def levels(frame: AudioFrame) -> Floats:
    """Return the samples of a frame as float32 [channels, samples] with full scale 1."""
    samples: np.ndarray[Any, Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return np.asarray((samples - 128.0) / 128, np.float32)
    if np.issubdtype(samples.dtype, np.integer):
        return np.asarray(samples / float(1 << (8 * samples.itemsize - 1)), np.float32)
    return np.nan_to_num(samples, posinf=1.0, neginf=-1.0).astype(np.float32)


@dataclass
class _Run:
    """Sound without a seam that is resampled to 16 kHz.

    Args:
        start_us: time of its first sample, microseconds.
        rate: its sample rate, Hz.
        names: FFmpeg's names of the channels.
        position: position of the next sample of the output, counted from time 0.
        added: number of samples of the input so far.
        pending: sound that is not resampled yet.
        resamplers: one for each channel.
    """

    start_us: int
    rate: int
    names: tuple[str, ...]
    position: int
    added: int = 0
    pending: list[Floats] = field(default_factory=list)
    resamplers: list[AudioResampler] = field(default_factory=list)

    @classmethod
    def starting(cls, start_us: int, rate: int, names: tuple[str, ...]) -> Self:
        """Start a run; it may start between two samples of 16 kHz, so silence of less than a sample comes first."""
        position = start_us * SAMPLE_RATE_HZ // MICRO
        lead = round((start_us / MICRO - position / SAMPLE_RATE_HZ) * rate)
        return cls(start_us, rate, names, position, pending=[np.zeros((len(names), lead), np.float32)])

    @property
    def end_us(self) -> float:
        """Time of the next sample, microseconds."""
        return self.start_us + self.added * MICRO / self.rate

    def continues(self, stamp_us: int | None, rate: int, names: tuple[str, ...]) -> bool:
        """Return whether sound with that time stamp starts where this run ends, at its rate and layout."""
        is_next = stamp_us is None or abs(stamp_us - self.end_us) <= SLACK_US
        return is_next and (rate, names) == (self.rate, self.names)

    def add(self, sound: Floats) -> Iterator[Part]:
        """Add sound, and yield about one second whenever it is complete."""
        self.added += sound.shape[1]
        self.pending.append(sound)
        if sum(part.shape[1] for part in self.pending) >= self.rate:
            yield from self._ready(flush=False)

    def finish(self) -> Iterator[Part]:
        """Yield the rest of the sound."""
        yield from self._ready(flush=True)

    def _ready(self, *, flush: bool) -> Iterator[Part]:
        sound = np.concatenate([np.zeros((len(self.names), 0), np.float32), *self.pending], axis=1)
        self.pending = []
        if self.rate != SAMPLE_RATE_HZ:
            # Each channel is resampled as mono, for which FFmpeg needs no layout.
            if not self.resamplers:
                self.resamplers = [
                    AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ) for _ in self.names
                ]
            sound = np.stack([self._resampled(i, channel, flush) for i, channel in enumerate(sound)])
        if sound.shape[1]:
            yield Part(self.position, sound, self.names)
            self.position += sound.shape[1]

    def _resampled(self, index: int, sound: Floats, flush: bool) -> Floats:
        resampler, frames = self.resamplers[index], []
        if len(sound):
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
            frame.sample_rate = self.rate
            frames += resampler.resample(frame)
        if flush:
            frames += resampler.resample(None)
        return np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray()[0] for frame in frames)])


class _Flac:
    """Write 16-bit mono FLAC at 16 kHz block by block.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w", format="flac", options=dict(BIT_EXACT))
        self._stream: Any = self._container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        self._stream.codec_context.flags |= CodecFlags.bitexact
        self._stream.codec_context.open()
        self._size = self._stream.codec_context.frame_size
        self._pending = np.zeros(0, np.int16)
        self._end = 0  # number of samples so far
        self._encoded = 0  # number of encoded samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._encode(last=True)
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, start: int, sound: Floats) -> None:
        """Write sound at a position, with silence between it and the sound before."""
        while self._end < start:
            self._append(np.zeros(min(SAMPLE_RATE_HZ, start - self._end), np.int16))
        scaled = np.rint(sound * FULL_SCALE)
        self._append(np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16))

    def _append(self, samples: np.ndarray) -> None:
        self._pending = np.concatenate([self._pending, samples])
        self._end += len(samples)
        self._encode(last=False)

    def _encode(self, *, last: bool) -> None:
        stop = len(self._pending) if last else len(self._pending) // self._size * self._size
        for at in range(0, stop, self._size):
            samples = self._pending[None, at : min(at + self._size, stop)]
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._encoded
            self._container.mux(self._stream.encode(frame))
            self._encoded += samples.shape[1]
        self._pending = self._pending[stop:]
