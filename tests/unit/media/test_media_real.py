"""The 19 real clips through the stages that open media, against ffmpeg's own count."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.helpers.media_stages import Made, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(media, tmp_path_factory) -> Made:
    return make(tmp_path_factory.mktemp("home"), media)


def counted(path: Path) -> int:
    """Number of frames that the ffmpeg binary, of another version than PyAV, decodes."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-nostdin",
        "-i",
        str(path),
        "-map",
        "0:v:0?",
        "-fps_mode",
        "passthrough",
    ]
    done = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, check=False)
    counts = re.findall(r"frame=\s*(\d+)", done.stderr)
    return int(counts[-1]) if counts else 0


def test_the_time_line_holds_every_frame_that_ffmpeg_counts(made, media):
    files = sorted(p for p in media.iterdir() if p.suffix in (".mp4", ".mov"))
    assert len(files) == 19
    expected = {p.stem: counted(p) for p in files}
    assert {v: len(made.times(v)) for v in expected} == expected
    assert made.counters["decoded/frames"] == sum(expected.values())
    assert made.counters["decoded/videos"] == 18


def test_every_sample_of_every_video_has_a_picture(made):
    blind = [(r["video_id"], r["sample"]) for r in made.tables["frames"].to_pylist() if r["status"] != "ok"]
    # The picture of this clip starts 0.844 s after its sound.
    late = [("several_faces", k) for k in range(5)]
    assert blind == [("audio_only", k) for k in range(12)] + late
    assert {r["status"] for r in made.tables["frames"].to_pylist()} == {"ok", "no_video"}


def test_what_the_files_say_of_themselves(made):
    talking, phone = made.video("talking_1"), made.video("noface_face")
    assert (talking["variable_frame_rate"], talking["nominal_fps"]) == (True, 30.0)
    assert talking["fps"] == pytest.approx(22.1, abs=0.05)
    assert (phone["variable_frame_rate"], phone["nominal_fps"], phone["video_codec"]) == (True, 120.0, "hevc")
    assert phone["fps"] == pytest.approx(26.5, abs=0.05)
    sound = made.video("audio_only")
    assert (sound["status"], sound["segments"], sound["samples"]) == ("no_video", 1, 12)
    segments = {v["video_id"]: v["segments"] for v in made.tables["videos"].to_pylist()}
    assert (segments["speaker_a"], segments["WolfgangLanger_Pexels"], segments["park"]) == (4, 9, 1)


def test_sound_is_as_long_as_the_file_says(made):
    for row in made.tables["audio"].to_pylist():
        video = made.video(row["video_id"])
        if video["audio_codec"] is None:
            assert row["status"] == "no_audio"
        else:
            assert len(made.sound(row["video_id"])) == round(row["duration_s"] * 16000)
            assert row["duration_s"] <= video["duration_s"] + 1e-3
