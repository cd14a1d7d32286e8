"""Files as people have them: what the tables must say of every media file of the case folders.

The right values are those of the README of each case.
"""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest

from tests.cases.case_home import Home

pytestmark = pytest.mark.cases

SPEECH = "plain/obama_speech"
SAME_WORDS = 0.8
"""Share of words in common: two or three of the 16 sound different where the sound was encoded again or is soft."""


def says_the_same(home: Home, video: str) -> bool:
    return SequenceMatcher(None, home.words(SPEECH), home.words(video)).ratio() >= SAME_WORDS


def frames_of(home: Home, video: str) -> int:
    return home.query(f"select count(*) from {{frame_predictions}} where video_id = '{video}'")[0][0]


def duration(home: Home, video: str) -> float:
    return home.query(f"select duration_s from {{videos}} where video_id = '{video}'")[0][0]


def windows(home: Home, video: str) -> int:
    return home.query(f"select count(*) from {{segments}} where video_id = '{video}'")[0][0]


def samples(home: Home, video: str, where: str = "true") -> int:
    return home.query(f"select count(*) from {{frames}} where video_id = '{video}' and {where}")[0][0]


def statuses(home: Home, table: str, video: str) -> set[str]:
    return {s for (s,) in home.query(f"select distinct status from {{{table}}} where video_id = '{video}'")}


def test_the_plain_clip_is_heard(processed: Home) -> None:
    assert processed.words(SPEECH)[:6] == ["today", "after", "two", "years", "of", "negotiations"]


@pytest.mark.parametrize("name", ["01_phase_inverted", "01b_phase_inverted_aac", "46_partly_inverted"])
def test_inverted_channels_do_not_cancel_the_speech(processed: Home, name: str) -> None:
    assert says_the_same(processed, f"01/{name}")
    assert statuses(processed, "transcripts", f"01/{name}") == {"ok"}


@pytest.mark.parametrize("name", ["01_phase_inverted", "01b_phase_inverted_aac"])
def test_the_row_says_that_channels_cancel(processed: Home, name: str) -> None:
    ((mix,),) = processed.query(f"select mix from {{audio}} where video_id = '01/{name}'")
    assert "cancel" in mix


@pytest.mark.parametrize("name", ["03_first_track_silent", "41_default_second"])
def test_the_default_sound_track_is_taken_and_named(processed: Home, name: str) -> None:
    spoken = 12  # words within the 8 s of the shorter of the two
    assert processed.words(f"02/{name}")[:spoken] == processed.words(SPEECH)[:spoken]
    ((tracks, track),) = processed.query(
        f"select audio_tracks, audio_track from {{videos}} where video_id = '02/{name}'"
    )
    assert (tracks, track) == (2, 2)


@pytest.mark.parametrize("name", ["06_camera_off", "35_audio_longer"])
def test_sound_goes_on_where_the_camera_is_off(processed: Home, name: str) -> None:
    video = f"04/{name}"
    assert duration(processed, video) == pytest.approx(8.75, abs=0.06)
    assert windows(processed, video) == 4
    assert says_the_same(processed, video)
    assert samples(processed, video, "time_s >= 3.6 and status = 'ok'") == 0
    assert samples(processed, video, "time_s >= 3.6 and status = 'no_video'") > 20


def test_a_recording_without_a_stated_duration_is_read_to_its_end(processed: Home) -> None:
    assert duration(processed, "04/07_no_duration") == pytest.approx(8.75, abs=0.06)
    assert says_the_same(processed, "04/07_no_duration")


@pytest.mark.parametrize("name", ["13_mkv_says_2s", "13b_mkv_says_60s"])
def test_a_wrong_duration_changes_nothing(processed: Home, name: str) -> None:
    video = f"06/{name}"
    assert frames_of(processed, video) == 105
    assert says_the_same(processed, video)


def test_every_frame_lies_in_a_window_that_was_looked_at(processed: Home) -> None:
    assert duration(processed, "06/13_mkv_says_2s") == pytest.approx(8.75, abs=0.06)
    assert windows(processed, "06/13_mkv_says_2s") == 4
    stray = processed.query("""
        select f.video_id, f.frame, f.time_s from {frame_predictions} f
        join (select video_id, max(end_s) last from {segments} group by 1) s using (video_id)
        where f.status = 'ok' and f.time_s > s.last + 0.2
    """)
    assert stray == []


@pytest.mark.parametrize("name", ["26_german", "26b_french", "26c_spanish"])
def test_speech_that_is_not_english_gives_no_words(processed: Home, name: str) -> None:
    video = f"08/{name}"
    assert "ok" not in statuses(processed, "transcripts", video)
    assert "ok" not in statuses(processed, "probabilities/text_minilm", video)
    reasons = processed.query(f"select count(*) from {{transcripts}} where video_id = '{video}' and reason is null")
    assert reasons == [(0,)]


def test_english_in_the_same_voice_is_heard(processed: Home) -> None:
    assert statuses(processed, "transcripts", "08/26d_english_control") == {"ok"}
    assert "sad" in processed.words("08/26d_english_control")


@pytest.mark.parametrize(
    ("name", "rotation"),
    [("12_rot_180", 180), ("12_rot_ccw90", 270), ("12_rot_cw90", 90), ("12b_hlg10", 0), ("14_anamorphic", 0)],
)
def test_pictures_of_phones_are_upright(processed: Home, name: str, rotation: int) -> None:
    ((width, height, turned),) = processed.query(
        f"select width, height, rotation from {{videos}} where video_id = '16/{name}'"
    )
    assert (width, height) == (512, 512)
    assert turned in (rotation, (360 - rotation) % 360)
    ((seen,),) = processed.query(f"select count(*) from {{faces}} where video_id = '16/{name}' and status = 'ok'")
    assert seen == samples(processed, f"16/{name}")


def test_a_size_that_changes_costs_at_most_one_sample(processed: Home) -> None:
    assert samples(processed, "16/16_resolution_change", "status = 'ok'") >= 29


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("05_audio_starts_late", 105),
        ("07_no_duration", 105),
        ("08_fragmented", 105),
        ("08b_fragmented_live", 105),
        ("34_edit_list", 42),
        ("36_vfr", 32),
        ("42_mjpeg", 100),
        ("43_cover_first", 105),
    ],
)
def test_containers_keep_their_frames(processed: Home, name: str, frames: int) -> None:
    assert frames_of(processed, f"17/{name}") == frames


def test_sound_that_starts_late_keeps_its_time(processed: Home) -> None:
    first = "select min(w.start_s) from (select unnest(words) w from {{transcripts}} where video_id = '{}')"
    ((plain,),), ((late,),) = (processed.query(first.format(v)) for v in (SPEECH, "17/05_audio_starts_late"))
    assert late - plain == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(
    "name",
    ["02_right_only", "25_quiet40", "25b_quiet30", "25c_clipped", "29_mulaw8k", "29b_24bit96k", "29c_51_centre"],
)
def test_speech_is_heard_whatever_the_sound_is_like(processed: Home, name: str) -> None:
    assert says_the_same(processed, f"18/{name}")


def test_the_last_of_ten_channels_is_heard(processed: Home) -> None:
    assert says_the_same(processed, "18/29d_ten_channels")


@pytest.mark.parametrize("name", ["27_music", "28_noise"])
def test_no_word_is_heard_in_music_or_noise(processed: Home, name: str) -> None:
    assert statuses(processed, "transcripts", f"19/{name}") == {"no_speech"}


@pytest.mark.parametrize(
    ("name", "frames"),
    [("18_8k_portrait", 10), ("19_240fps", 360), ("20_tenth_fps", 3), ("21_one_frame", 1), ("22_still", 150)],
)
def test_odd_rates_and_sizes_keep_their_frames(processed: Home, name: str, frames: int) -> None:
    assert frames_of(processed, f"20/{name}") == frames
    assert statuses(processed, "frames", f"20/{name}") == {"ok"}


def test_a_drawing_has_no_face_and_the_dark_has_one(processed: Home) -> None:
    assert "ok" not in statuses(processed, "faces", "21/31_cartoon")
    assert "ok" in statuses(processed, "faces", "21/30_dark")
    assert [frames_of(processed, f"21/{name}") for name in ("30_dark", "31_cartoon", "33_tiny")] == [75, 75, 75]


def test_no_picture_is_held_while_the_camera_is_off(processed: Home) -> None:
    video = "22/40_gap_middle"
    assert samples(processed, video, "status = 'ok' and time_s - source_time_s > 0.55") == 0
    assert samples(processed, video, "status = 'no_video' and reason is not null and time_s between 2.6 and 5.9") >= 16
    assert samples(processed, video, "status = 'ok' and time_s >= 6.2") > 0


def test_a_poster_loses_to_the_person_who_moves(processed: Home) -> None:
    rows = processed.query("""
        select track, avg(h), bool_or(is_subject) from {faces}
        where video_id = '23/44_poster_larger' and track is not null group by 1
    """)
    assert {track for track, height, subject in rows if subject and height > 300} == set()
    assert any(subject for _, height, subject in rows if height < 200)


@pytest.mark.parametrize(
    ("name", "frames"), [("45_camcorder", 105), ("45_old", 106), ("45_phone", 105), ("45_stream", 105)]
)
def test_endings_of_camcorders_and_phones_are_taken(processed: Home, name: str, frames: int) -> None:
    assert frames_of(processed, f"25/{name}") == frames
    assert "ok" in statuses(processed, "frames", f"25/{name}")


def test_nothing_is_shown_before_the_first_key_frame(processed: Home) -> None:
    video = "29/51_starts_mid_gop"
    assert samples(processed, video, "status = 'ok' and time_s < 1.7") == 0
    assert samples(processed, video, "status = 'ok'") == 10


def test_every_table_has_a_row_for_every_unit(processed: Home) -> None:
    for table in ("transcripts", "fused", "probabilities/face_static"):
        assert processed.query(
            f"select count(*) from {{segments}} s full join {{{table}}} t using (segment_id) "
            "where s.segment_id is null or t.segment_id is null"
        ) == [(0,)]
