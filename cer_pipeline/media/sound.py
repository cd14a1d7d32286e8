"""The sound of a file on the time line of its packets, mixed to one channel: a row of `audio`.

Belongs here: decoding, placing, resampling and encoding of sound. Runs in the child process of `sandbox` only.
Does not belong here: how channels are mixed (`mix`), which track is heard (`tracks`).

Sound is decoded twice where it has several channels: once to judge the mix, once to make it. Nothing is kept but one
second at a time, whatever the length.
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
"""Sound goes on without a seam while its time stamps are this near: containers round them, and clocks drift. Further
off it is placed anew, since sound 45 ms ahead of its picture is noticed (ITU-R BT.1359-1)."""

ROUNDED_US: Final = 2_000
"""Time stamps are rounded to 1 ms at most (Matroska, FLV)."""

FULL_SCALE: Final = 32_768
"""Of 16-bit samples."""

BIT_EXACT: Final = {"fflags": "+bitexact"}
"""No version of the encoder in the file: the same sound gives the same bytes."""


@dataclass(frozen=True)
class Part:
    """A part of a sound at 16 kHz.

    Args:
        start: its place, samples from time 0.
        sound: float32 [channels, samples].
        names: of the channels, as FFmpeg names them.
    """

    start: int
    sound: Floats
    names: tuple[str, ...]


def extract(request: dict[str, Any], emit: Callable[[Any], None]) -> dict[str, Any]:
    """Decode the sound of one file; its row of `audio` goes to `emit`.

    Sample 0 is time 0 of the container. Gaps are silent, overlaps are cut, what cannot be decoded is silent.

    Args:
        request: path, video_id, audio_track (number of the track, 1-based), duration_s (the sound is cut there), folder
            (for a temporary file).
        emit: takes a batch of rows.

    Returns:
        Nothing to report.

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
    mixes, length = _judged(path, number, line, limit)
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


def _judged(path: str, number: int, line: SoundLine, limit: int) -> tuple[dict[tuple[str, ...], Mix], int]:
    """The mix for each arrangement of channels, and the length of the sound in samples."""
    judges: dict[tuple[str, ...], MixAnalysis] = {}
    length = 0
    for part in parts(path, number, line, limit):
        judges.setdefault(part.names, MixAnalysis(part.names)).add(part.start, part.sound)
        length = part.start + part.sound.shape[1]
    return {names: judge.mix() for names, judge in judges.items()}, length


def parts(path: str, number: int, line: SoundLine, limit: int) -> Iterator[Part]:
    """The sound of a track at 16 kHz, in order of time, nothing twice.

    Args:
        path: of the file.
        number: of the track, 1-based.
        line: its time line.
        limit: samples after which it is cut.
    """
    head = 0
    for part in _placed(path, number, line):
        skip = max(0, head - part.start)
        keep = part.sound[:, skip : max(skip, limit - part.start)]
        if keep.shape[1]:
            head = part.start + skip + keep.shape[1]
            yield Part(part.start + skip, keep, part.names)


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
            told = None if frame.pts is None else round(frame.pts * (frame.time_base or 0) * MICRO)
            is_new = bool(seams) and told is not None and told >= seams[0] - ROUNDED_US
            while is_new and seams and told is not None and told >= seams[0] - ROUNDED_US:
                seams.popleft()
            if run is None or is_new or not run.takes(told, frame.sample_rate, names):
                start = told if told is not None else 0 if run is None else round(run.end_us)
                if run is not None:
                    yield from run.finish()
                run = _Run.starting(start, frame.sample_rate, names)
            yield from run.feed(sound)
        if run is not None:
            yield from run.finish()


def decoded(container: InputContainer, track: AudioStream, times: list[int] | None = None) -> Iterator[AudioFrame]:
    """The frames of a sound track; what cannot be decoded is left out.

    Args:
        container: an open file.
        track: one of its sound tracks.
        times: of its packets, microseconds, in place of their own time stamps.
    """
    tick = track.time_base * MICRO if track.time_base else 1
    at = 0
    try:
        for packet in container.demux(track):
            if packet.size or packet.pts is not None or packet.dts is not None:
                # Not by the packets' own clock: the decoder moves these on by what it leaves out (priming).
                if times is not None:
                    packet.pts = packet.dts = round(times[at] / tick) if at < len(times) else None
                at += 1
                if not packet.size:
                    continue  # to the decoder it would be the end
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
        return  # the demuxer gave up: what came before counts


def levels(frame: AudioFrame) -> Floats:
    """The samples of a frame as float32 [channels, samples], full scale 1."""
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
    """Sound that goes on without a seam, on its way to 16 kHz.

    Args:
        start_us: time of its first sample, microseconds.
        rate: its sample rate, Hz.
        names: of its channels.
        place: where the next sample that it gives belongs, samples from time 0.
    """

    start_us: int
    rate: int
    names: tuple[str, ...]
    place: int
    fed: int = 0
    waiting: list[Floats] = field(default_factory=list)
    resamplers: list[AudioResampler] = field(default_factory=list)

    @classmethod
    def starting(cls, start_us: int, rate: int, names: tuple[str, ...]) -> Self:
        """A run without sound yet; it starts between two samples of 16 kHz, so a little silence comes first."""
        place = start_us * SAMPLE_RATE_HZ // MICRO
        lead = round((start_us / MICRO - place / SAMPLE_RATE_HZ) * rate)
        return cls(start_us, rate, names, place, waiting=[np.zeros((len(names), lead), np.float32)])

    @property
    def end_us(self) -> float:
        """Time of the sample that comes next."""
        return self.start_us + self.fed * MICRO / self.rate

    def takes(self, told_us: int | None, rate: int, names: tuple[str, ...]) -> bool:
        """Whether sound at that time goes on where this ends."""
        is_next = told_us is None or abs(told_us - self.end_us) <= SLACK_US
        return is_next and (rate, names) == (self.rate, self.names)

    def feed(self, sound: Floats) -> Iterator[Part]:
        """Take sound; yields what is ready."""
        self.fed += sound.shape[1]
        self.waiting.append(sound)
        if sum(part.shape[1] for part in self.waiting) >= self.rate:
            yield from self._ready(flush=False)

    def finish(self) -> Iterator[Part]:
        """No more comes; yields the rest."""
        yield from self._ready(flush=True)

    def _ready(self, *, flush: bool) -> Iterator[Part]:
        sound = np.concatenate(self.waiting, axis=1) if self.waiting else np.zeros((len(self.names), 0), np.float32)
        self.waiting = []
        if self.rate != SAMPLE_RATE_HZ:
            # Channel by channel: FFmpeg needs no layout for one.
            if not self.resamplers:
                self.resamplers = [
                    AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ) for _ in self.names
                ]
            sound = np.stack([self._resampled(i, channel, flush) for i, channel in enumerate(sound)])
        if sound.shape[1]:
            yield Part(self.place, sound, self.names)
            self.place += sound.shape[1]

    def _resampled(self, index: int, sound: Floats, flush: bool) -> Floats:
        resampler, out = self.resamplers[index], []
        if len(sound):
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
            frame.sample_rate = self.rate
            out += resampler.resample(frame)
        if flush:
            out += resampler.resample(None)
        return np.concatenate([frame.to_ndarray()[0] for frame in out]) if out else np.zeros(0, np.float32)


class _Flac:
    """Writes 16-bit mono FLAC at 16 kHz.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w", format="flac", options=dict(BIT_EXACT))
        self._stream: Any = self._container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono")
        self._stream.codec_context.flags |= CodecFlags.bitexact
        self._stream.codec_context.open()
        self._size = self._stream.codec_context.frame_size
        self._waiting = np.zeros(0, np.int16)
        self._head = 0  # samples taken
        self._done = 0  # samples encoded

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._encode(last=True)
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, start: int, sound: Floats) -> None:
        """Write sound at its place; silence before it."""
        while self._head < start:
            self._take(np.zeros(min(SAMPLE_RATE_HZ, start - self._head), np.int16))
        scaled = np.rint(sound * FULL_SCALE)
        self._take(np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16))

    def _take(self, samples: np.ndarray) -> None:
        self._waiting = np.concatenate([self._waiting, samples])
        self._head += len(samples)
        self._encode(last=False)

    def _encode(self, *, last: bool) -> None:
        stop = len(self._waiting) if last else len(self._waiting) // self._size * self._size
        for at in range(0, stop, self._size):
            samples = self._waiting[None, at : min(at + self._size, stop)]
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._done
            self._container.mux(self._stream.encode(frame))
            self._done += samples.shape[1]
        self._waiting = self._waiting[stop:]
