"""The stages of perception as the runner sees them: plans, rows for every unit, statuses, counters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.perception.faces.crops import expand
from cer_pipeline.perception.specs import SPEECH, TRANSCRIPTS, faces_stage, perception_stages
from cer_pipeline.perception.speech import asr
from cer_pipeline.perception.speech.asr import Word
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import write_sound_file
from cer_pipeline.stage import INPUTS, UNIT, StageContext, StageSpec, placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.zoo import Zoo
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.helpers.pictures import sound_of

Picture = Callable[[str, float], NDArray[np.uint8]]
FACES = faces_stage(load_profile())


def flac(sound: NDArray[np.int16]) -> bytes:
    return write_sound_file(sound, 16_000)


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def windows(video: str, seconds: float) -> list[dict]:
    count = 1 if seconds <= 4 else int(np.ceil((seconds - 4) / 2)) + 1
    return [
        segment(video, i)
        | {
            "start_s": 2.0 * i,
            "end_s": min(2.0 * i + 4, seconds),
            "first_sample": 10 * i,
            "samples": min(20, int(np.ceil(seconds * 5)) - 10 * i),
            "is_tail": i == count - 1,
        }
        for i in range(count)
    ]


def shard_of(frames: list[dict], audio: list[dict], segments: list[dict]) -> MemoryInputs:
    videos = sorted({row["video_id"] for row in segments})
    return MemoryInputs(
        {
            "videos": rows(tables.VIDEOS, [{"video_id": v, "path": v, "sha256": v} for v in videos]),
            "frames": rows(tables.FRAMES, frames),
            "audio": rows(tables.AUDIO, audio),
            "segments": rows(tables.SEGMENTS, segments),
        }
    )


def make(spec: StageSpec, inputs: MemoryInputs, zoo: Zoo) -> tuple[pa.Table, StageContext]:
    """The stage's table, put into the inputs for the stages behind it."""
    context = StageContext(load_profile(), zoo, inputs)
    table = spec.load()(context)(spec.plan(inputs, context.profile)).cast(spec.table.schema)
    table.validate(full=True)
    inputs.tables[spec.name] = table
    return table, context


@pytest.fixture
def silent_shard() -> MemoryInputs:
    """Videos without pictures and sound: no video and no audio stream, and a damaged one."""
    frames = [
        {"video_id": "a", "sample": k, "status": str(Status.NO_VIDEO), "reason": "no video stream"} for k in range(3)
    ] + [{"video_id": "b", "sample": k, "status": str(Status.UNDECODABLE), "reason": "damaged"} for k in range(25)]
    audio = [
        {"video_id": "a", "status": str(Status.NO_AUDIO), "reason": "no audio stream"},
        {"video_id": "b", "status": str(Status.UNDECODABLE), "reason": "damaged"},
    ]
    return shard_of(frames, audio, windows("a", 0.6) + windows("b", 5.0))


def test_the_plan_has_one_row_a_video_and_its_key_hangs_on_what_the_stage_reads(silent_shard: MemoryInputs) -> None:
    profile = load_profile()
    before = FACES.plan(silent_shard, profile)
    assert before.column(UNIT).to_pylist() == ["a", "b"]
    changed = silent_shard.tables["frames"].to_pylist()
    changed[0]["reason"] = "another"
    silent_shard.tables["frames"] = rows(tables.FRAMES, changed)
    after = FACES.plan(silent_shard, profile)
    assert before.column(INPUTS)[0] != after.column(INPUTS)[0]
    assert before.column(INPUTS)[1] == after.column(INPUTS)[1]


def test_a_video_that_could_not_be_computed_keeps_a_row_for_every_sample_and_segment(
    silent_shard: MemoryInputs,
) -> None:
    profile = load_profile()
    unit = FACES.plan(silent_shard, profile).to_pylist()[1]
    blank = placeholder_rows(FACES, unit, Status.MODEL_UNAVAILABLE, "no weights")
    assert [row["sample"] for row in blank] == list(range(25))
    pa.Table.from_pylist(blank, schema=FACES.table.schema).validate(full=True)
    silent_shard.tables["speech"] = rows(tables.SPEECH, [{"video_id": v, "status": "no_audio"} for v in "ab"])
    unit = TRANSCRIPTS.plan(silent_shard, profile).to_pylist()[1]
    blank = placeholder_rows(TRANSCRIPTS, unit, Status.MODEL_UNAVAILABLE, "no weights")
    assert [row["segment_id"] for row in blank] == ["b/0000", "b/0001"]


def test_the_stages_stand_in_an_order_in_which_they_can_run() -> None:
    made = {"videos", "segments", "frames", "audio"}
    for spec in perception_stages(load_profile()):
        assert set(spec.inputs) <= made
        made.add(spec.name)


def test_every_sample_and_segment_passes_on_why_it_has_no_value(silent_shard: MemoryInputs, weights: Zoo) -> None:
    faces, context = make(FACES, silent_shard, weights)
    assert faces.column("status").to_pylist() == ["no_video"] * 3 + ["undecodable"] * 25
    assert faces.column("reason").to_pylist() == ["no video stream"] * 3 + ["damaged"] * 25
    assert not context.counters["calls/centerface"]
    speech, _ = make(SPEECH, silent_shard, weights)
    assert speech.column("status").to_pylist() == ["no_audio", "undecodable"]
    words, context = make(TRANSCRIPTS, silent_shard, weights)
    assert words.column("status").to_pylist() == ["no_audio", "undecodable", "undecodable"]
    assert words.column("text").to_pylist() == [None] * 3
    assert not context.counters["calls/whisper_tiny_en"]


def test_faces_are_verified_tracked_and_cropped(weights: Zoo, picture: Picture) -> None:
    talking, empty = picture("talking_1.mp4", 1.0), picture("no_face.mp4", 1.0)
    frames = [
        {"video_id": "v", "sample": k, "jpeg": jpeg(empty if k == 1 else talking), "status": "ok"} for k in range(4)
    ]
    faces, context = make(FACES, shard_of(frames, [], windows("v", 0.8)), weights)
    found = faces.to_pylist()
    assert [row["status"] for row in found] == ["ok", "no_face", "ok", "ok"]
    assert [row["track"] for row in found] == [0, None, 0, 0]
    assert [row["subject_of"] for row in found] == [[0], [], [0], [0]]
    assert [row["is_subject"] for row in found] == [True, False, True, True]
    assert found[1]["x"] is None
    assert context.counters == {"calls/centerface": 4, "calls/face_landmarker": 3}
    first = found[0]
    side = expand(first["x"], first["y"], first["w"], first["h"], load_profile()["faces"]["margin"]).side
    crop = cv2.imdecode(np.frombuffer(first["crop"], np.uint8), cv2.IMREAD_COLOR)
    assert crop is not None
    assert crop.shape[0] == crop.shape[1] == min(256, side)
    assert first | {"sample": 0} == found[2] | {"sample": 0}  # the same picture gives the same row


def test_a_video_gives_the_same_rows_alone_and_among_others(weights: Zoo, picture: Picture) -> None:
    shown = {"u": picture("obama_speech.mp4", 4.0), "v": picture("talking_1.mp4", 1.0)}
    frames = [{"video_id": v, "sample": 0, "jpeg": jpeg(p), "status": "ok"} for v, p in shown.items()]
    both, _ = make(FACES, shard_of(frames, [], windows("u", 0.2) + windows("v", 0.2)), weights)
    alone, _ = make(FACES, shard_of(frames[1:], [], windows("v", 0.2)), weights)
    assert both.slice(both.num_rows - alone.num_rows).to_pylist() == alone.to_pylist()


class StandIn:
    """A recogniser and language detector that reads both out of the sound: its mean tells which language it is."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float]] = []

    def languages(self, sound: NDArray[np.float32]) -> dict[str, float]:
        english = 0.99 if float(sound.max()) < 0.3 else 0.01
        return {"en": english, "de": 1 - english}

    def __call__(self, sound: NDArray[np.float32], language: str) -> list[Word]:
        self.heard.append((language, len(sound) / 16_000))
        seconds = int(len(sound) / 16_000)
        return [Word(f" {language}{k}", k + 0.2, k + 0.8, 0.9) for k in range(seconds)]


def two_languages() -> MemoryInputs:
    """English from 0 to 4 s, German from 5 to 9 s, English from 12 to 16 s."""
    sound = np.zeros(16 * 16_000, np.int16)
    spans = [(0.0, 4.0), (5.0, 9.0), (12.0, 16.0)]
    for (start, end), level in zip(spans, (3000, 12_000, 3000), strict=True):
        sound[round(start * 16_000) : round(end * 16_000)] = level
    shard = shard_of([], [{"video_id": "v", "flac": flac(sound), "status": "ok"}], windows("v", 16.0))
    shard.tables["speech"] = rows(
        tables.SPEECH,
        [{"video_id": "v", "interval": i, "start_s": a, "end_s": b, "score": 1.0} for i, (a, b) in enumerate(spans)],
    )
    return shard


class Present:
    """`stage.Weights` for stages whose models are replaced."""

    def path(self, model: str) -> Path:
        return Path(model)

    def digest(self, model: str) -> str | None:
        return model


def transcripts(
    monkeypatch: pytest.MonkeyPatch, model: str, shard: MemoryInputs
) -> tuple[list[dict[str, Any]], StandIn, StageContext]:
    stand_in = StandIn()
    monkeypatch.setattr(asr, "Whisper", lambda *_, **__: stand_in)
    profile = load_profile(overrides=[f"transcripts.model={model}"])
    context = StageContext(profile, Present(), shard)
    made = asr.Transcripts(context)(TRANSCRIPTS.plan(shard, profile)).cast(TRANSCRIPTS.table.schema)
    made.validate(full=True)
    return made.to_pylist(), stand_in, context


def test_a_speaker_who_changes_the_language_keeps_the_english_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found, recogniser, context = transcripts(monkeypatch, "whisper_tiny_en", two_languages())
    assert [row["status"] for row in found] == ["ok", "ok", "not_english", "not_english", "not_english", "ok", "ok"]
    assert [row["language"] for row in found] == ["en", "en", "de", "de", "de", "en", "en"]
    assert {language for language, _ in recogniser.heard} == {"en"}
    assert all(seconds < 5 for _, seconds in recogniser.heard)  # the German in between is never heard
    assert found[1]["text"] == "en2 en3"
    assert found[2]["text"] is None
    assert "knows English only" in found[2]["reason"]
    assert found[0]["english"] == pytest.approx(0.99)
    assert found[2]["english"] == pytest.approx(0.01)
    assert found[1]["english"] == pytest.approx(2 / 3 * 0.99 + 1 / 3 * 0.01)
    assert context.counters == {"calls/whisper_base": 3, "calls/whisper_tiny_en": 2}


def test_a_multilingual_recogniser_writes_down_every_language(monkeypatch: pytest.MonkeyPatch) -> None:
    found, recogniser, _ = transcripts(monkeypatch, "whisper_base", two_languages())
    assert {row["status"] for row in found} == {"ok"}
    assert {row["model"] for row in found} == {"whisper_base"}
    assert [row["language"] for row in found] == ["en", "en", "de", "de", "de", "en", "en"]
    assert [language for language, _ in recogniser.heard] == ["en", "de", "en"]
    assert found[2]["text"].startswith("de0")


def test_another_recogniser_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CerError, match="no such recogniser"):
        transcripts(monkeypatch, "whisper_giant", two_languages())


def test_without_speech_no_recogniser_is_loaded(monkeypatch: pytest.MonkeyPatch, silent_shard: MemoryInputs) -> None:
    def loaded(*_: object, **__: object) -> StandIn:
        raise AssertionError("there is no speech")

    silent_shard.tables["speech"] = rows(tables.SPEECH, [{"video_id": v, "status": "no_audio"} for v in "ab"])
    monkeypatch.setattr(asr, "Whisper", loaded)
    context = StageContext(load_profile(), Present(), silent_shard)
    found = asr.Transcripts(context)(TRANSCRIPTS.plan(silent_shard, context.profile)).to_pylist()
    assert {row["status"] for row in found} == {"no_audio"}


def beside(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two pictures side by side, the right one at 45 % of the height of the left one."""
    height = left.shape[0]
    width = round(right.shape[1] * 0.45 * height / right.shape[0])
    small = cv2.resize(right, (width, round(0.45 * height)), interpolation=cv2.INTER_AREA)
    canvas = np.zeros((height, left.shape[1] + width, 3), np.uint8)
    canvas[:, : left.shape[1]] = left
    canvas[: small.shape[0], left.shape[1] :] = small
    return canvas


@pytest.mark.slow
def test_a_portrait_larger_than_the_person_who_speaks_is_not_the_subject(weights: Zoo, picture: Picture) -> None:
    portrait = picture("single_face.mp4", 0.0)
    noise = np.random.default_rng(0)
    shown = [beside(portrait, picture("speaker_a.mp4", k / 5)) for k in range(20)]
    shown = [np.clip(p + noise.normal(scale=3, size=p.shape), 0, 255).astype(np.uint8) for p in shown]
    frames = [{"video_id": "v", "sample": k, "jpeg": jpeg(p), "status": "ok"} for k, p in enumerate(shown)]
    faces, _ = make(FACES, shard_of(frames, [], windows("v", 4.0)), weights)
    height = {is_subject: [] for is_subject in (True, False)}
    for row in faces.to_pylist():
        if row["track"] is not None:
            height[row["is_subject"]].append(row["h"])
    assert len(height[True]) >= 18
    assert np.mean(height[True]) < 0.8 * np.mean(height[False])  # the larger one was found, and did not count


@pytest.mark.slow
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_video_that_lies_or_is_upside_down_keeps_its_faces(weights: Zoo, picture: Picture, quarters: int) -> None:
    shown = [picture("talking_1.mp4", 1.0), np.ascontiguousarray(np.rot90(picture("talking_1.mp4", 1.0), -quarters))]
    frames = [{"video_id": f"v{i}", "sample": 0, "jpeg": jpeg(p), "status": "ok"} for i, p in enumerate(shown)]
    table, _ = make(FACES, shard_of(frames, [], windows("v0", 0.2) + windows("v1", 0.2)), weights)
    upright, lying = table.to_pylist()
    assert lying["status"] == "ok"
    assert abs((lying["roll"] - upright["roll"] - 90 * quarters + 180) % 360 - 180) < 6
    assert np.abs(np.subtract(lying["blendshapes"], upright["blendshapes"])).max() < 0.2
    assert len(lying["keypoints"]) == 10


@pytest.mark.slow
def test_quiet_words_are_recognised(weights: Zoo, media: Path) -> None:
    sound = sound_of(media / "talking_1.mp4")
    quiet = np.round(sound * 10 ** (-40 / 20)).astype(np.int16)
    audio = [{"video_id": v, "flac": flac(s), "status": "ok"} for v, s in (("loud", sound), ("quiet", quiet))]
    seconds = len(sound) / 16_000
    shard = shard_of([], audio, windows("loud", seconds) + windows("quiet", seconds))
    make(SPEECH, shard, weights)
    table, _ = make(TRANSCRIPTS, shard, weights)
    words: dict[str, list[str]] = {"loud": [], "quiet": []}
    for row in table.to_pylist():
        words[row["video_id"]] += re.findall(r"\w+", (row["text"] or "").casefold())
    assert {"weaknesses", "asking", "better"} <= {*words["loud"]}
    assert {*words["quiet"]} == {*words["loud"]}


@pytest.mark.slow
def test_words_stand_in_every_window_that_holds_their_middle(weights: Zoo, media: Path) -> None:
    sound = sound_of(media / "talking_1.mp4")
    quiet = np.zeros(8 * 16_000, np.int16)
    audio = [
        {"video_id": "quiet", "flac": flac(quiet), "status": "ok"},
        {"video_id": "talk", "flac": flac(np.concatenate([sound, quiet])), "status": "ok"},
    ]
    segments = windows("quiet", 8.0) + windows("talk", len(sound) / 16_000 + 8)
    shard = shard_of([], audio, segments)
    speech, context = make(SPEECH, shard, weights)
    assert speech.column("status").to_pylist()[0] == "no_speech"
    assert context.counters["calls/silero_vad"] == 2
    table, _ = make(TRANSCRIPTS, shard, weights)
    words = table.to_pylist()
    assert [row["segment_id"] for row in words] == [row["segment_id"] for row in segments]
    assert {row["status"] for row in words if row["video_id"] == "quiet"} == {"no_speech"}
    talk = [row for row in words if row["video_id"] == "talk"]
    assert "asking for help" in talk[0]["text"]
    assert "do better at that" in talk[1]["text"]
    assert "when I need it" in talk[0]["text"]
    assert "when I need it" in talk[1]["text"]  # in the two seconds that both windows share
    assert talk[-1]["status"] == "no_speech"
    for row in talk:
        for word in row["words"] or ():
            assert 2 * row["segment"] <= (word["start_s"] + word["end_s"]) / 2 < 2 * row["segment"] + 4
