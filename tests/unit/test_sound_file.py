"""Samples of FLAC and WAV files are those that other programs find there, and those that were written."""

from __future__ import annotations

import io
import subprocess
import wave
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.sound_file import BLOCK, SoundFileError, read_sound_file, write_sound_file
from tests.helpers.clips import make_clip


def noise(length: int, channels: int = 1) -> np.ndarray:
    """Samples of 16 bits, with both ends of the range."""
    values = np.random.default_rng(length).integers(-32768, 32768, (length, channels), np.int16)
    values[:2, 0] = (-32768, 32767)[: len(values[:2])]
    return values


def by_ffmpeg(data: bytes, *options: str) -> bytes:
    """What the ffmpeg binary makes of a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", "pipe:0", *options, "pipe:1"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def by_wave(frames: bytes, width: int, channels: int, rate: int) -> bytes:
    """A WAV file as Python's own writer makes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(frames)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_a_flac_file_holds_what_another_decoder_finds(channels: int) -> None:
    values = noise(2 * BLOCK + 77, channels)
    data = write_sound_file(values, 16_000)
    other = np.frombuffer(by_ffmpeg(data, "-f", "s16le"), np.int16).reshape(-1, channels)
    assert np.array_equal(other, values)
    samples, rate = read_sound_file(data)
    assert rate == 16_000
    assert samples.dtype == np.float32
    assert np.array_equal(samples, values / 32768)


def test_the_header_of_a_flac_file_states_its_length() -> None:
    data = write_sound_file(noise(12_345), 16_000)
    assert int.from_bytes(data[21:26], "big") & ((1 << 36) - 1) == 12_345  # RFC 9639, section 8.2


@pytest.mark.parametrize(
    ("width", "form", "middle"), [(1, np.uint8, 128), (2, np.int16, 0), (3, None, 0), (4, np.int32, 0)]
)
def test_integers_of_every_width_become_shares_of_full_scale(
    width: int, form: type[np.generic] | None, middle: int
) -> None:
    half = 2 ** (8 * width - 1)
    values = np.random.default_rng(width).integers(-half, half, (3000, 2))
    if form is None:  # three bytes, little-endian
        frames = b"".join(int(v).to_bytes(3, "little", signed=True) for v in values.ravel())
    else:
        frames = (values + middle).astype(form).tobytes()
    samples, rate = read_sound_file(by_wave(frames, width, 2, 44_100))
    assert rate == 44_100
    assert np.array_equal(samples, (values / half).astype(np.float32))


def test_flac_of_24_bits_and_wav_of_floats_are_read() -> None:
    source = by_wave(noise(5000, 2).tobytes(), 2, 2, 48_000)
    expected = noise(5000, 2) / 32768
    deep = by_ffmpeg(source, "-c:a", "flac", "-sample_fmt", "s32", "-f", "flac")
    floats = by_ffmpeg(source, "-c:a", "pcm_f32le", "-f", "wav")  # through a pipe: the header cannot state a length
    for data in (deep, floats):
        assert np.array_equal(read_sound_file(data)[0], expected)


def test_a_wav_file_can_be_read_by_python() -> None:
    values = noise(5000, 2)
    with wave.open(io.BytesIO(write_sound_file(values, 22_050, "wav"))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (22_050, 2, 2)
        assert file.readframes(5000) == values.tobytes()


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 2 * BLOCK + 1),
    channels=st.integers(1, 8),
    kind=st.sampled_from(["flac", "wav"]),
    path=st.booleans(),
)
def test_what_is_read_can_be_written_and_read_again(
    tmp_path_factory: pytest.TempPathFactory, length: int, channels: int, kind: str, path: bool
) -> None:
    first = read_sound_file(write_sound_file(noise(length, channels), 8000, kind))[0]  # type: ignore[arg-type]
    data = write_sound_file(first, 8000, kind)  # type: ignore[arg-type]
    source = tmp_path_factory.mktemp("sound") / "file" if path else None
    if source:
        source.write_bytes(data)
    again, rate = read_sound_file(source or data)
    assert rate == 8000
    assert np.array_equal(first, again)


def test_samples_out_of_range_are_clipped() -> None:
    samples, _ = read_sound_file(write_sound_file(np.array([1.5, -1.5, 0.5]), 8000))
    assert samples[:, 0].tolist() == [32767 / 32768, -1.0, 0.5]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    data = write_sound_file(noise(10 * BLOCK), 16_000)
    for broken in (b"", b"no sound", b"fLaC", data[:60], data[: len(data) // 2], b"RIFF\0\0\0\0WAVE"):
        with pytest.raises(SoundFileError):
            read_sound_file(broken)
    with pytest.raises(FileNotFoundError):
        read_sound_file(tmp_path / "absent.flac")


def test_another_format_and_a_playlist_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(write_sound_file(noise(100), 8000, "wav"))
    playlist = tmp_path / "list.wav"
    playlist.write_text(f"ffconcat version 1.0\nfile '{tmp_path}/a.wav'\n")
    video = make_clip(tmp_path / "a.mkv", [0.0, 0.04], sound=(0.0, 0.5))
    for path in (playlist, video):
        with pytest.raises(SoundFileError, match="neither FLAC nor WAV"):
            read_sound_file(path)
