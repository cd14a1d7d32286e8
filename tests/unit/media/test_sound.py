"""The choice of the sound track and the mix of its channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cer_pipeline.corpora import registry, sound_tracks
from cer_pipeline.errors import CerError
from cer_pipeline.media.specs import AUDIO, FRAMES, VIDEOS
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageContext
from tests.helpers.clips import make_clip, make_tracks, make_wav, tone
from tests.helpers.media_stages import FolderInputs, Made, make
from tests.helpers.memory_inputs import NoWeights

LOW, HIGH = tone(2.0), np.roll(0.2 * np.sin(2 * np.pi * 1500 * np.arange(32_000) / 16_000), 3).astype(np.float32)
SILENCE = np.zeros(32_000, np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    make_tracks(folder / "inverse.mp4", np.stack([LOW, -LOW]))
    make_tracks(folder / "nearly_inverse.mp4", np.stack([LOW, -0.9 * LOW]))
    make_tracks(folder / "right_only.mp4", np.stack([SILENCE, LOW]))
    make_tracks(folder / "delayed.mp4", np.stack([LOW, np.roll(LOW, 5)]))
    make_wav(folder / "ten.mp4", *[SILENCE] * 9, LOW)
    make_tracks(folder / "one.mp4", LOW)
    make_tracks(folder / "default_second.mkv", HIGH, LOW, default=2)
    make_tracks(folder / "no_default.mkv", LOW, HIGH, default=0)
    make_tracks(folder / "default_silent.mp4", SILENCE, LOW, default=1)
    make_tracks(folder / "all_silent.mp4", SILENCE, SILENCE, default=2)
    make_clip(folder / "mute.mkv", [k / 25 for k in range(25)], codec="mpeg4")
    return folder


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory, sandbox) -> Made:
    return make(tmp_path_factory.mktemp("home"), folder, ("videos", "audio"), sandbox=sandbox)


def frequency_and_level(made: Made, video: str) -> tuple[int, float]:
    """Frequency (Hz) and level (RMS) of the second half."""
    sound = made.sound(video)[16_000:30_000]
    return round(int(np.abs(np.fft.rfft(sound)).argmax()) * 16_000 / len(sound)), float(np.sqrt(np.mean(sound**2)))


@pytest.mark.parametrize(
    ("video", "mix", "level"),
    [
        ("inverse", "channel 1 of 2 (the channels cancel)", 0.354),
        ("nearly_inverse", "channel 1 of 2 (the channels cancel)", 0.354),
        ("right_only", "channel 2 of 2 (the others are silent)", 0.354),
        ("delayed", "mean of 2 channels", 0.327),
        ("ten", "channel 10 of 10 (the others are silent)", 0.354),
        ("one", "mono", 0.354),
    ],
)
def test_a_voice_on_any_channel_is_in_the_mix_and_the_row_describes_the_mix(made, video, mix, level):
    (row,) = made.rows("audio", video)
    assert (row["status"], row["mix"]) == ("ok", mix)
    frequency, rms = frequency_and_level(made, video)
    assert frequency == pytest.approx(440, abs=2)
    assert rms == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize(
    ("video", "tracks", "track", "reason", "frequency"),
    [
        ("one", 1, 1, "the only track", 440),
        ("default_second", 2, 2, "the default track", 440),
        ("no_default", 2, 1, "the first track", 440),
        ("default_silent", 2, 2, "track 1, the default track, is silent", 440),
        ("all_silent", 2, 2, "the default track", None),
        ("mute", 0, None, None, None),
    ],
)
def test_the_default_track_is_chosen_unless_it_is_silent(made, video, tracks, track, reason, frequency):
    row = made.video(video)
    assert (row["audio_tracks"], row["audio_track"], row["audio_track_reason"]) == (tracks, track, reason)
    if frequency:
        assert frequency_and_level(made, video)[0] == pytest.approx(frequency, abs=2)


def test_a_corpus_may_ask_for_another_track(folder, tmp_path, sandbox):
    made = make(tmp_path, folder, ("videos", "audio"), options={"audio_track": 2}, sandbox=sandbox)
    assert made.video("no_default")["audio_track_reason"] == "track 2 was asked for"
    assert frequency_and_level(made, "no_default")[0] == pytest.approx(1500, abs=2)
    (lacking,) = made.rows("audio", "one")
    assert (lacking["status"], lacking["reason"]) == (
        "no_audio",
        "the file has 1 sound track, track 2 was asked for",
    )
    assert made.video("one")["status"] == "ok"
    (mute,) = made.rows("audio", "mute")
    assert mute["status"] == "no_audio"


def test_the_requested_track_is_part_of_the_keys(folder, tmp_path):
    keys = []
    for track in (None, 0, 1, 2):
        registry.register(tmp_path, "clips", folder, options={"audio_track": track} if track is not None else {})
        inputs = FolderInputs(corpus="clips", registration=registry.load(tmp_path, "clips"))
        keys.append(VIDEOS.plan(inputs, load_profile()).column("inputs").to_pylist())
    assert keys[0] == keys[1]
    assert len({tuple(key) for key in keys}) == 3


def test_a_track_that_no_video_has_is_refused_in_one_line(folder):
    sound_tracks.check("folder", folder, {}, 2, load_profile())
    with pytest.raises(CerError) as caught:
        sound_tracks.check("folder", folder, {}, 3, load_profile())
    assert caught.value.line() == (
        "there is no such sound track: --audio-track 3 (no video has more than 2) - tracks are counted from 1"
    )


def test_videos_with_several_tracks_are_reported(made):
    (line,) = sound_tracks.messages(made.tables["videos"].to_pylist(), "clips")
    assert line.startswith(
        "4 videos have more than one sound track (all_silent, default_second, default_silent, …); in use: "
    )
    assert "`cer corpus add clips PATH --audio-track N`" in line
    assert sound_tracks.messages([{"video_id": "old"}], "clips") == []


class OlderInputs(FolderInputs):
    """Reads what is there of the columns that are asked for, as Parquet files are read."""

    def table(self, name, columns=None):
        whole = super().table(name)
        return whole.select([c for c in columns or whole.column_names if c in whole.column_names])


def test_tables_of_an_older_version_are_planned_from(made, folder, tmp_path):
    registry.register(tmp_path, "clips", folder)
    inputs = OlderInputs(corpus="clips", registration=registry.load(tmp_path, "clips"))
    old = made.tables["videos"]
    inputs.tables["videos"] = old.drop_columns(["audio_tracks", "audio_track", "audio_track_reason"])
    for spec in (FRAMES, AUDIO):
        plan = spec.plan(inputs, load_profile())
        assert plan.column("audio_track").null_count == plan.num_rows == old.num_rows
    rows = AUDIO.load()(StageContext(load_profile(), NoWeights(), inputs))(plan).to_pylist()
    assert {(r["video_id"] == "mute", r["status"]) for r in rows} == {(True, "no_audio"), (False, "failed")}
