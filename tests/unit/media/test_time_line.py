"""Picture and sound on one clock, in files whose clocks jump, lie, start late or pause."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from tests.helpers.clips import join, make_clap, make_clip
from tests.helpers.media_stages import Made, make

EVEN = [k / 25 for k in range(75)]
H264: dict[str, Any] = {"codec": "libx264", "options": {"bf": "2", "g": "10", "crf": "10"}}
MPEG4: dict[str, Any] = {"codec": "mpeg4"}
WRAP_S = 2**33 / 90_000  # the clock of MPEG-TS has 33 bits at 90 kHz
TOLERANCE_S = 0.04
CONTAINERS = {
    "edit_list.mp4": ("libx264", "aac"),
    "priming.mkv": ("mpeg4", "aac"),
    "skip.webm": ("libvpx", "libopus"),
    "counted.avi": ("mpeg4", "libmp3lame"),
    "plain.mov": ("mpeg4", "pcm_s16le"),
    "program.mpg": ("mpeg2video", "mp2"),
}


def claims(path: Path, seconds: float) -> Path:
    """Change the Duration element of a Matroska file (44 89, 8 bytes, in milliseconds)."""
    data = path.read_bytes()
    at = data.index(bytes.fromhex("448988"))
    path.write_bytes(data[: at + 3] + struct.pack(">d", seconds * 1000) + data[at + 11 :])
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory, sandbox) -> Made:
    folder, parts = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("parts")
    early = make_clap(parts / "early.ts", 10, offset_s=100)
    start = make_clap(parts / "start.ts", 20)
    soon = make_clap(parts / "soon.ts", 20, offset_s=105)
    late = make_clap(parts / "late.ts", 20, offset_s=7300)
    mute = make_clap(parts / "mute.ts", 20, sound="")
    join(folder / "back.ts", early, start)
    join(folder / "ahead.ts", early, late)
    join(folder / "back_far.ts", late, early)
    join(folder / "again.ts", early, early)
    join(folder / "three.ts", early, start, late)
    join(folder / "pause.ts", early, soon)
    join(folder / "mute.ts", early, mute)
    make_clap(folder / "wrap.ts", 30, frames=60, offset_s=WRAP_S - 2)
    for name, (picture, sound) in CONTAINERS.items():
        make_clap(folder / name, 30, picture=picture, sound=sound)
    source = ("-f", "lavfi", "-i", "testsrc=rate=1:size=64x48:duration=2", "-r", "25", "-c:v", "libtheora", "-f", "ogg")
    run([get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", *source, str(folder / "repeats.mkv")], check=True)
    claims(make_clip(folder / "says_1s.mkv", EVEN, sound=(0.0, 5.0), **MPEG4), 1)
    claims(make_clip(folder / "says_60s.mkv", EVEN, sound=(0.0, 5.0), **MPEG4), 60)
    live: dict[str, Any] = {"container_options": {"live": "1"}, **MPEG4}
    make_clip(folder / "sound_longer.mkv", EVEN[:25], sound=(0.0, 5.0), **live)
    make_clip(folder / "picture_longer.mkv", EVEN, sound=(0.0, 1.0), **live)
    off = [t if t < 1 else t + 4 for t in EVEN[:50]]
    make_clip(folder / "camera_off.mkv", off, sound=(0.0, 6.0), **MPEG4)
    make_clip(folder / "screen.mp4", off, sound=(0.0, 6.0), **H264)
    make_clip(folder / "slow.mp4", [0, 10, 20], **H264)
    make_clip(folder / "away.mkv", [*EVEN[:25], *(7200 + t for t in EVEN[:25])], **MPEG4)
    make_clip(folder / "late.mkv", [1.5 + t for t in EVEN[:25]], sound=(0.0, 3.0), **MPEG4)
    return make(tmp_path_factory.mktemp("home"), folder, sandbox=sandbox)


def beeps(made: Made, video: str) -> list[float]:
    """When the sound sets in, after at least 0.3 s of silence, s."""
    loud = np.flatnonzero(np.abs(made.sound(video)) > 0.2) / 16_000
    return [float(loud[0]), *(float(b) for a, b in pairwise(loud) if b - a > 0.3)]


@pytest.mark.parametrize(
    ("video", "flashes"),
    [
        ("back", (10, 70)),
        ("ahead", (10, 70)),
        ("back_far", (20, 60)),
        ("again", (10, 60)),
        ("three", (10, 70, 120)),
        ("pause", (10, 70)),
        ("wrap", (30,)),
        *((name.partition(".")[0], (30,)) for name in CONTAINERS),
    ],
)
def test_a_flash_and_its_beep_lie_at_one_time(made, video, flashes):
    times = made.times(video)
    assert beeps(made, video) == pytest.approx([times[frame] for frame in flashes], abs=TOLERANCE_S)


@pytest.mark.parametrize(
    ("video", "seconds"),
    [("back", 4), ("ahead", 4), ("back_far", 4), ("again", 4), ("three", 6), ("pause", 7), ("wrap", 2.4), ("mute", 4)],
)
def test_parts_follow_each_other_and_pauses_stay(made, video, seconds):
    row = made.video(video)
    assert row["duration_s"] == pytest.approx(seconds, abs=0.15)
    assert row["frames"] == len(made.times(video)) == (60 if video == "wrap" else 25 * (6 if video == "three" else 4))
    assert all(a < b for a, b in pairwise(made.times(video)))
    statuses = [r["status"] for r in made.rows("frames", video)]
    # FFmpeg takes the last packet before a join for damaged, since its counter does not go on.
    if video == "pause":
        assert (set(statuses[:10]), set(statuses[13:25]), set(statuses[26:])) == ({"ok"}, {"no_video"}, {"ok"})
    else:
        assert statuses.count("undecodable") <= (0 if video == "wrap" else 2 if video == "three" else 1)
        assert set(statuses) <= {"ok", "undecodable"}


@pytest.mark.parametrize(
    ("video", "seconds", "frames"),
    [
        ("says_1s", 5.0, 75),
        ("says_60s", 5.0, 75),
        ("sound_longer", 5.0, 25),
        ("picture_longer", 3.0, 75),
        ("away", 2.0, 50),
        ("slow", 20.04, 3),
    ],
)
def test_a_video_ends_with_its_last_packet_whatever_duration_is_stated(made, video, seconds, frames):
    row = made.video(video)
    assert row["duration_s"] == pytest.approx(seconds, abs=0.1)
    assert (row["frames"], len(made.times(video))) == (frames, frames)
    last = made.rows("segments", video)[-1]
    assert last["end_s"] == row["duration_s"]
    assert made.times(video)[-1] < row["duration_s"]
    (sound,) = made.rows("audio", video)
    if sound["status"] == "ok":
        assert sound["duration_s"] <= row["duration_s"] + 1e-3
        assert sound["duration_s"] == pytest.approx(1.0 if video == "picture_longer" else 5.0, abs=0.1)


def test_a_camera_that_is_off_for_a_while_shows_nothing(made):
    rows = made.rows("frames", "camera_off")
    assert [r["status"] for r in rows] == ["ok"] * 8 + ["no_video"] * 17 + ["ok"] * 6
    assert rows[10]["reason"] == "no picture came from 0.960 to 5.000 s"
    assert all(r["time_s"] - r["source_time_s"] <= 0.5 for r in rows if r["status"] == "ok")


def test_a_still_screen_that_the_file_says_is_still_is_shown(made):
    assert {r["status"] for r in made.rows("frames", "screen")} == {"ok"}
    assert {r["status"] for r in made.rows("frames", "slow")} == {"ok"}


def test_a_picture_that_starts_late_is_not_filled_backward(made):
    rows = made.rows("frames", "late")
    assert [r["status"] for r in rows] == ["no_video"] * 8 + ["ok"] * 7 + ["no_video"]
    assert rows[0]["reason"] == "the picture starts at 1.500 s"


def test_an_empty_packet_shows_the_frame_before_again(made):
    """Theora writes nothing for a frame that is like the one before."""
    assert made.video("repeats")["frames"] == len(made.times("repeats")) == 50
    rows = made.rows("frames", "repeats")
    assert {r["status"] for r in rows} == {"ok"}
    assert [r["source_frame"] for r in rows[:10]] == [5 * k for k in range(10)]


def test_the_sound_does_not_depend_on_the_picture(made):
    """Sound with and without a picture that pauses or starts late is the same."""
    sound = made.sound("late")
    assert len(sound) == pytest.approx(48_000, abs=1_500)
    seconds = np.sqrt(np.mean(sound[: 2 * 16_000].reshape(2, -1) ** 2, axis=1))
    assert seconds == pytest.approx([0.5 / 2**0.5] * 2, rel=0.1)
