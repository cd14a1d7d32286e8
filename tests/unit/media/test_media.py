"""Clips made on the spot, good and hostile, through the stages that open media."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.sandbox import Limits, Sandbox
from cer_pipeline.media.windows import count_samples, count_windows
from cer_pipeline.status import Status
from tests.helpers.clips import grey, make_clip, picture_of, tone
from tests.helpers.media_stages import Made, make

EVEN = [i / 25 for i in range(50)]
UNEVEN = sorted(random.Random(3).sample(range(3000), 40))  # thousandths of a second
H264 = {"codec": "libx264", "options": {"bf": "2", "g": "10", "crf": "10"}}


def damage(path: Path, source: Path, start: float, stop: float) -> None:
    data = bytearray(source.read_bytes())
    noise = random.Random(1)
    for at in range(int(len(data) * start), int(len(data) * stop)):
        data[at] = noise.randrange(256)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "even.mkv", EVEN)
    make_clip(folder / "uneven.mkv", [t / 1000 for t in UNEVEN])
    make_clip(folder / "late.mp4", [0.5 + t for t in EVEN], sound=(0.0, 3.0), **H264)
    make_clip(folder / "long_sound.mp4", EVEN, sound=(0.25, 6.0), container_options={"movflags": "faststart"}, **H264)
    make_clip(folder / "odd.mkv", EVEN[:5], size=(321, 241), pix_fmt="yuv444p")
    make_clip(folder / "one.mp4", [0.0], **H264)
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = (200, 40, 40)  # red, top left
    for degrees in (90, 180, -90):
        make_clip(folder / f"turned{degrees}.mp4", EVEN[:10], pictures=[picture] * 10, rotation=degrees, **H264)
    make_clip(folder / "raw.m4v", EVEN, codec="mpeg4")
    make_clip(folder / "noise.mp4", EVEN, size=(320, 240), pictures=noise_pictures(50), **H264)
    damage(folder / "hole.mp4", folder / "noise.mp4", 0.45, 0.55)
    whole = make_clip(
        folder / "whole.mp4",
        EVEN,
        size=(320, 240),
        pictures=noise_pictures(50),
        container_options={"movflags": "faststart"},
        **H264,
    )
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "no_index.mp4").write_bytes((folder / "noise.mp4").read_bytes()[:20_000])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("This is no video.")
    target = folder / "even.mkv"
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n")
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    return folder


def noise_pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    return [np.roll(base, 3 * i, axis=1) for i in range(count)]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory, sandbox) -> Made:
    return make(tmp_path_factory.mktemp("home"), folder, sandbox=sandbox)


def shades(made: Made, video: str) -> list[int | None]:
    return [round(float(picture_of(r["jpeg"]).mean())) if r["jpeg"] else None for r in made.rows("frames", video)]


def test_a_sample_shows_the_frame_of_its_time(made):
    rows = made.rows("frames", "even")
    assert [r["source_frame"] for r in rows] == [5 * k for k in range(10)]
    assert shades(made, "even") == pytest.approx([grey(5 * k) for k in range(10)], abs=2)
    assert made.times("even") == pytest.approx(EVEN, abs=1e-9)


def test_a_variable_frame_rate_is_read_from_time_stamps(made):
    start = UNEVEN[0]
    times = [(t - start) / 1000 for t in UNEVEN]
    rows = made.rows("frames", "uneven")
    for row in rows:
        number = max(n for n, t in enumerate(times) if t <= row["sample"] / 5 + 1e-6)
        if row["status"] == "ok":
            assert (row["source_frame"], row["source_time_s"]) == (number, pytest.approx(times[number], abs=1e-6))
            assert float(picture_of(row["jpeg"]).mean()) == pytest.approx(grey(number), abs=2)
    assert made.times("uneven") == pytest.approx(times, abs=1e-6)
    video = made.video("uneven")
    assert video["variable_frame_rate"]
    assert video["fps"] == pytest.approx(39 / (times[-1] - times[0]), rel=1e-6)
    assert not made.video("even")["variable_frame_rate"]


def test_before_a_picture_that_starts_late_there_is_none(made):
    rows = made.rows("frames", "late")
    assert {(r["status"], r["reason"], r["jpeg"]) for r in rows[:3]} == {
        ("no_video", "the picture starts at 0.500 s", None)
    }
    assert rows[3]["source_time_s"] == pytest.approx(0.58)
    assert rows[0]["frame_times"] == []
    assert rows[2]["frame_times"] == pytest.approx([0.5, 0.54, 0.58])
    assert shades(made, "late")[3:13] == pytest.approx([grey((200 * k - 500) // 40) for k in range(3, 13)], abs=4)


def test_after_the_last_frame_it_is_held_for_half_a_second(made):
    statuses = [r["status"] for r in made.rows("frames", "long_sound")]
    assert statuses == ["ok"] * 13 + ["no_video"] * (len(statuses) - 13)
    assert made.video("long_sound")["duration_s"] == pytest.approx(6.0, abs=0.1)


def test_a_video_of_one_frame_has_one_sample(made):
    (row,) = made.rows("frames", "one")
    assert (row["status"], row["frame_times"]) == ("ok", [0.0])
    assert (made.video("one")["segments"], made.video("one")["samples"]) == (1, 1)


def test_odd_sizes_are_kept(made):
    row = made.rows("frames", "odd")[0]
    assert (row["width"], row["height"]) == (321, 241) == picture_of(row["jpeg"]).shape[1::-1]


@pytest.mark.parametrize(("degrees", "clockwise", "corner"), [(90, 270, (1, 0)), (180, 180, (1, 1)), (-90, 90, (0, 1))])
def test_a_turned_video_is_shown_upright(made, degrees, clockwise, corner):
    video, row = made.video(f"turned{degrees}"), made.rows("frames", f"turned{degrees}")[0]
    picture = picture_of(row["jpeg"]).astype(int)
    assert video["rotation"] == clockwise
    assert (video["width"], video["height"]) == (row["width"], row["height"]) == picture.shape[1::-1]
    height, width = picture.shape[:2]
    halves = [
        [picture[y : y + height // 2, x : x + width // 2, 0].mean() for x in (0, width // 2)] for y in (0, height // 2)
    ]
    red = max(((y, x) for y in (0, 1) for x in (0, 1)), key=lambda c: halves[c[0]][c[1]])
    assert red == corner


def test_time_stamps_that_a_file_lacks_are_counted(made):
    assert made.times("raw") == pytest.approx(EVEN, abs=1e-6)
    assert made.video("raw")["duration_s"] == pytest.approx(2.0, abs=0.05)


def test_frames_before_and_after_a_damaged_span_survive(made):
    rows = made.rows("frames", "hole")
    statuses = [r["status"] for r in rows]
    lost = [k for k, status in enumerate(statuses) if status == "undecodable"]
    assert lost
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert statuses[0] == statuses[-1] == "ok"
    whole = made.rows("frames", "noise")
    assert [r["jpeg"] for r in rows if r["status"] == "ok"] == [whole[k]["jpeg"] for k in range(10) if k not in lost]
    assert all(r["jpeg"] is None and r["reason"] for r in rows if r["status"] != "ok")


def test_a_file_that_is_cut_off_keeps_what_decodes(made):
    rows = made.rows("frames", "cut")
    statuses = [r["status"] for r in rows]
    kept = statuses.count("ok")
    assert 2 <= kept < 8
    assert statuses == ["ok"] * kept + ["undecodable"] * (10 - kept)
    assert [r["jpeg"] for r in rows[:kept]] == [r["jpeg"] for r in made.rows("frames", "whole")[:kept]]


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ("empty", "0 bytes"),
        ("text", "not a media file"),
        ("no_index", "cut off"),
        ("playlist", "not a media file of an accepted format"),
        ("concat", "not a media file of an accepted format"),
    ],
)
def test_a_file_that_is_no_video_has_one_row_with_a_reason_in_every_table(made, video, reason):
    for table in ("videos", "segments", "frames", "audio"):
        (row,) = made.rows(table, video)
        assert row["status"] == "undecodable"
        assert reason in row["reason"]
    row = made.video(video)
    assert (row["segments"], row["samples"], row["duration_s"]) == (0, 0, None)
    assert row["path"].startswith(video)
    assert len(row["sha256"]) == 64


def test_every_table_holds_what_the_duration_demands(made):
    for video in made.tables["videos"].to_pylist():
        if video["duration_s"] is None:
            continue
        assert len(made.rows("segments", video["video_id"])) == video["segments"] == count_windows(video["duration_s"])
        assert len(made.rows("frames", video["video_id"])) == video["samples"] == count_samples(video["duration_s"])
        assert len(made.rows("audio", video["video_id"])) == 1


def test_time_lines_never_step_back(made):
    for video in made.tables["videos"].to_pylist():
        assert all(a <= b for a, b in pairwise(made.times(video["video_id"])))


def test_every_frame_is_decoded_once(made):
    decoded = sum(len(made.times(v["video_id"])) for v in made.tables["videos"].to_pylist())
    assert made.counters["decoded/frames"] == decoded
    assert made.counters["decoded/videos"] == sum(v["status"] == "ok" for v in made.tables["videos"].to_pylist())


def test_sound_starts_at_the_start_of_the_container(made):
    (row,) = made.rows("audio", "long_sound")
    samples = made.sound("long_sound")
    assert samples.dtype == np.float32
    with av.open(io.BytesIO(row["flac"])) as container:
        stated = container.streams.audio[0].duration
    assert len(samples) == stated == round(row["duration_s"] * 16000)
    assert np.abs(samples[:3600]).max() < 0.05
    middle, expected = samples[16000:64000], tone(3.0)
    strength = np.abs(np.fft.rfft(middle))
    assert strength.argmax() == np.abs(np.fft.rfft(expected)).argmax()
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.1)


def test_a_video_without_sound_says_so(made):
    (row,) = made.rows("audio", "even")
    assert (row["status"], row["flac"], row["duration_s"]) == ("no_audio", None, None)


def test_rows_are_the_same_bytes_when_made_again_in_another_order(made, folder, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("late.mp4", "hole.mp4", "cut.mp4", "uneven.mkv"):
        shutil.copy(folder / name, few)
    with Sandbox(Limits()) as fresh:
        again = make(tmp_path, few, sandbox=fresh)
    for video in ("late", "hole", "cut", "uneven"):
        for table in ("videos", "segments", "frames", "audio"):
            assert again.rows(table, video) == made.rows(table, video)


def test_pictures_are_capped_and_keep_their_shape(folder, tmp_path, sandbox):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(folder / "noise.mp4", few)
    row = make(tmp_path, few, ("videos", "frames"), "frames.long_side=160", sandbox=sandbox).rows("frames", "noise")[0]
    assert (row["width"], row["height"]) == (160, 120) == picture_of(row["jpeg"]).shape[1::-1]


@pytest.mark.parametrize("colour", [(220, 30, 30), (30, 200, 40), (40, 50, 210), (128, 128, 128)])
def test_colours_come_out_as_they_went_in(sandbox, tmp_path, colour):
    picture = np.full((64, 64, 3), colour, np.uint8)
    clip = make_clip(tmp_path / "c.mp4", [0.0, 0.04], size=(64, 64), pictures=[picture] * 2, **H264)
    batches = []
    options = {"video_id": "c", "samples": 1, "rate_hz": 5, "long_side": 960, "jpeg_quality": 95, "hold_s": 0.5}
    sandbox.run("frames", clip, options, emit=batches.append)
    shown = picture_of(batches[0].column("jpeg")[0].as_py())
    assert np.abs(shown.astype(int) - picture).mean() < 6


def test_a_decode_that_takes_too_long_is_ended_and_the_next_file_is_read(folder):
    with Sandbox(Limits(fixed_s=0.01, per_second_s=0.0)) as box:
        with pytest.raises(MediaError, match="time limit") as caught:
            box.run("probe", folder / "even.mkv", {"max_duration_s": 100})
        assert caught.value.status == Status.FAILED
        box.limits = Limits()
        assert box.run("probe", folder / "even.mkv", {"max_duration_s": 100})["frames"] == 50


def test_a_decode_that_needs_too_much_memory_is_cut(folder):
    with Sandbox(Limits(memory_mb=150)) as box, pytest.raises(MediaError) as caught:
        box.run("frames", folder / "even.mkv", {"video_id": "x"}, emit=print)
    assert caught.value.status == Status.FAILED


def test_a_crash_is_reported_and_the_next_file_is_read(sandbox, folder):
    sandbox.run("probe", folder / "even.mkv", {"max_duration_s": 100})
    process = sandbox._process
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    process.send_signal(signal.SIGSEGV)  # takes effect when it goes on, so that it crashes with the request in hand
    threading.Timer(0.2, process.send_signal, [signal.SIGCONT]).start()
    with pytest.raises(MediaError, match="SIGSEGV"):
        sandbox._ask({"task": "probe", "path": "x", "cpu_s": 1}, 5.0, None)
    assert sandbox.run("probe", folder / "even.mkv", {"max_duration_s": 100})["frames"] == 50


def test_the_child_dies_with_its_parent(folder):
    script = (
        "import os, pathlib, sys\n"
        "from cer_pipeline.media.sandbox import Limits, Sandbox\n"
        "box = Sandbox(Limits())\n"
        f"box.run('probe', pathlib.Path({str(folder / 'even.mkv')!r}), {{'max_duration_s': 100}})\n"
        "print(box._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    child = Path(f"/proc/{int(done.stdout)}")
    for _ in range(100):
        if not child.exists() or "State:\tZ" in (child / "status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_a_duration_above_the_limit_is_damage(sandbox, folder):
    with pytest.raises(MediaError, match="states a duration of 2 s, above 1 s") as caught:
        sandbox.run("probe", folder / "even.mkv", {"max_duration_s": 1.0})
    assert caught.value.status == Status.UNDECODABLE


def test_a_missing_file_fails_with_a_reason(sandbox, tmp_path):
    with pytest.raises(MediaError, match="no longer there") as caught:
        sandbox.run("probe", tmp_path / "gone.mp4", {"max_duration_s": 100})
    assert caught.value.status == Status.FAILED


@pytest.mark.parametrize(
    "name",
    ["a b.mkv", "q\"'.mkv", "new\nline.mkv", "😀.mkv", "http:x.mkv", "-i.mkv", "a|b.mkv", "bad\udcff.mkv", "%03d.mkv"],
)
def test_no_file_name_is_taken_for_an_option_or_an_address(sandbox, folder, tmp_path, name):
    target = tmp_path / name
    shutil.copy(folder / "even.mkv", target)
    assert sandbox.run("probe", target, {"max_duration_s": 100})["frames"] == 50


def test_an_attached_picture_is_no_video(sandbox, tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        audio: Any = container.add_stream("aac", rate=16000, layout="mono")
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(64, 48, "yuvj420p")))
        container.mux(cover.encode(None))
        part = av.AudioFrame.from_ndarray(tone(1.0)[None], format="fltp", layout="mono")
        part.sample_rate, part.pts = 16000, 0
        container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    row = sandbox.run("probe", path, {"max_duration_s": 100})
    assert (row["status"], row["reason"]) == ("no_video", "the file has only an attached picture")
    assert row["duration_s"] == pytest.approx(1.0, abs=0.1)


def test_a_stream_of_no_known_codec_is_undecodable(sandbox, folder, tmp_path):
    """A damaged header can name a kind of stream, or a codec, that does not exist."""
    whole = (folder / "late.mp4").read_bytes()
    assert b"avc1" in whole
    path = tmp_path / "unknown.mp4"
    path.write_bytes(whole.replace(b"avc1", b"\x01\x02\x03\x04"))
    row = sandbox.run("probe", path, {"max_duration_s": 100})
    assert (row["status"], row["reason"]) == ("undecodable", "the video stream is of an unknown codec")
    assert (row["audio_codec"], row["duration_s"]) == ("aac", 3.0)


@settings(deadline=None, max_examples=8)
@given(data=st.binary(max_size=600), at=st.floats(0, 1))
@example(data=b"\x01", at=0.8984375)  # takes the type of its stream from it
def test_no_bytes_end_the_reading_process(sandbox, folder, tmp_path_factory, data, at):
    path = tmp_path_factory.mktemp("fuzz") / "x.mkv"
    whole = (folder / "late.mp4").read_bytes()
    start = int(at * len(whole))
    path.write_bytes(whole[:start] + data + whole[start + len(data) :])
    try:
        row = sandbox.run("probe", path, {"max_duration_s": 100})
    except MediaError as error:
        outcome, reason = error.status, error.reason
    else:
        outcome, reason = Status(row["status"]), row["reason"]
        assert 0 <= row["duration_s"] <= 100
    # a header may ask for any amount of memory; the limit is a setting, so that is no fact about the file
    assert outcome != Status.FAILED or reason.startswith("needs more than"), reason
