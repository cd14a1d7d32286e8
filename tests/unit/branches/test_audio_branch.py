"""The stages of the audio branches: which windows are heard, and that a row depends on its window alone."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cer_pipeline import tables
from cer_pipeline.branches.audio import specs as audio
from cer_pipeline.branches.audio import stages as audio_stages
from cer_pipeline.branches.audio.ctranslate2_file import read_arrays
from cer_pipeline.branches.audio.whisper_encoder import SAMPLES_PER_STEP, WhisperStates, levelled
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import SAMPLE_RATE_HZ, write_sound_file
from cer_pipeline.stage import StageContext
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.unit.branches.test_audio_heads import head_file


def flac(sound: np.ndarray) -> bytes:
    """A FLAC file of samples."""
    return write_sound_file(sound, SAMPLE_RATE_HZ)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound."""
    return (
        (np.random.default_rng(seed).normal(size=round(seconds * SAMPLE_RATE_HZ)) * 0.1).clip(-1, 1).astype(np.float32)
    )


class FakeEncoder:
    """Says how loud each started 0.2 s is, in all values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        steps = max(1, -(-len(sound) // SAMPLES_PER_STEP))
        padded = np.pad(sound, (0, steps * SAMPLES_PER_STEP - len(sound)))
        level = np.abs(padded).reshape(steps, SAMPLES_PER_STEP).mean(1)
        return np.repeat(level[:, None], audio.STATE_SIZE, 1).astype(np.float32)


class Weights:
    """A zoo of one folder with random heads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, model: str) -> Path:
        if not model.startswith("head_"):
            return self.folder
        return head_file(self.folder, model.removeprefix("head_"), members=3)

    def digest(self, model: str) -> str | None:
        return model


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    """Three videos: 5.1 s with speech until 2.1 s; silent; without sound."""
    monkeypatch.setattr(audio_stages, "WhisperStates", FakeEncoder)
    windows = [("a", 0, 0.0, 4.0), ("a", 1, 2.0, 5.1), ("b", 0, 0.0, 3.0), ("c", 0, 0.0, 2.0)]
    inputs = MemoryInputs(
        {
            "segments": rows(tables.SEGMENTS, [segment(v, i) | {"start_s": s, "end_s": e} for v, i, s, e in windows]),
            "audio": rows(
                tables.AUDIO,
                [
                    {"video_id": "a", "flac": flac(noise(5.1))},
                    {"video_id": "b", "flac": flac(noise(3.0))},
                    {"video_id": "c", "status": "no_audio", "reason": "no stream"},
                ],
            ),
            "speech": rows(
                tables.SPEECH,
                [
                    {"video_id": "a", "interval": 0, "start_s": 0.5, "end_s": 2.1},
                    {"video_id": "b", "interval": 0, "status": "no_speech", "reason": "none"},
                    {"video_id": "c", "interval": 0, "status": "no_audio", "reason": "no stream"},
                ],
            ),
        }
    )
    return StageContext(load_profile(), Weights(tmp_path), inputs, Counter())


def run(stage, context: StageContext, spec) -> pa.Table:
    """All units of a stage."""
    return stage(context)(spec.plan(context.inputs, context.profile))


def test_only_windows_with_speech_are_heard(context: StageContext) -> None:
    out = run(audio_stages.States, context, audio.ENCODER_STATES).to_pylist()
    assert [(r["segment_id"], r["status"]) for r in out] == [
        ("a/0000", "ok"),
        ("a/0001", "no_speech"),  # 0.1 s of speech reach into it
        ("b/0000", "no_speech"),
        ("c/0000", "no_audio"),
    ]
    assert context.counters == {"calls/whisper_tiny_en": 1}
    assert out[0]["steps"] == 20
    assert out[3]["features"] is None
    assert out[3]["reason"] == "no stream"


def test_a_short_last_window_fills_fewer_steps(context: StageContext) -> None:
    speech = {"video_id": "a", "interval": 0, "start_s": 0.5, "end_s": 5.0}
    context.inputs.tables["speech"] = rows(tables.SPEECH, [speech])  # type: ignore[attr-defined]
    out = run(audio_stages.States, context, audio.ENCODER_STATES).to_pylist()
    assert [r["steps"] for r in out[:2]] == [20, 16]  # 3.1 s are 15.5 steps
    states = np.array(out[1]["features"]).reshape(audio.STEPS_PER_WINDOW, audio.STATE_SIZE)
    assert (states[:16] > 0).all()
    assert (states[16:] == 0).all()


@pytest.mark.parametrize(
    ("spec", "first", "second"),
    [
        (audio.AUDIO_BILSTM, audio_stages.BilstmFeatures, audio_stages.BilstmProbabilities),
        (audio.AUDIO_UNCERTAINTY, audio_stages.UncertaintyFeatures, audio_stages.UncertaintyProbabilities),
    ],
)
def test_every_segment_has_a_row_and_a_distribution_or_a_reason(context: StageContext, spec, first, second) -> None:
    store = context.inputs.tables  # type: ignore[attr-defined]
    store[audio.ENCODER_STATES.name] = run(audio_stages.States, context, audio.ENCODER_STATES)
    store[spec.features.name] = run(first, context, spec.features)
    out = run(second, context, spec.probabilities).to_pylist()
    assert [r["status"] for r in out] == ["ok", "no_speech", "no_speech", "no_audio"]
    assert sum(out[0][c] for c in BASIC_COLUMNS) == pytest.approx(1, abs=1e-9)
    assert out[0]["model"] == f"head_{spec.name}"
    assert all(r[c] is None for r in out[1:] for c in BASIC_COLUMNS)
    # One segment asked for alone gives the same row.
    plan = spec.features.plan(context.inputs, context.profile)
    assert first(context)(plan.slice(0, 1)).to_pylist() == store[spec.features.name].slice(0, 1).to_pylist()


def test_levelled_sound_does_not_depend_on_the_recording_level() -> None:
    sound = noise(1.0) * np.linspace(0, 1, SAMPLE_RATE_HZ, dtype=np.float32)
    assert levelled(sound) == pytest.approx(levelled(sound * np.float32(0.1)), abs=1e-6)
    assert (levelled(np.zeros(5, np.float32)) == 0).all()
    assert len(levelled(np.zeros(0, np.float32))) == 0


def test_pauses_do_not_count_for_the_level() -> None:
    sound = noise(1.0)
    paused = np.concatenate([np.zeros(SAMPLE_RATE_HZ * 2, np.float32), sound])
    assert np.abs(levelled(paused)[2 * SAMPLE_RATE_HZ :]).mean() == pytest.approx(
        np.abs(levelled(sound)).mean(), rel=0.02
    )


@pytest.mark.slow
def test_the_encoder_takes_windows_of_any_length(weights) -> None:
    encoder = WhisperStates(weights.path(audio.ENCODER))
    sound = noise(4.0)
    assert [len(encoder(sound[:n])) for n in (0, 1, SAMPLES_PER_STEP, SAMPLES_PER_STEP + 1, 4 * SAMPLE_RATE_HZ)] == [
        1,
        1,
        1,
        2,
        20,
    ]
    assert np.array_equal(encoder(sound), encoder(sound.copy()))
    assert encoder(sound).shape == (20, audio.STATE_SIZE)


@pytest.mark.slow
def test_all_layers_give_what_ctranslate2_gives(weights) -> None:
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor

    folder = weights.path(audio.ENCODER)
    sound = noise(3.0)
    mel = FeatureExtractor()(levelled(sound), padding=160)[:, :300]
    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None], dtype=np.float32))
    expected = np.array(model.encode(view, to_cpu=True))[0].reshape(15, 10, audio.STATE_SIZE).mean(1)
    assert WhisperStates(folder, layers=4)(sound) == pytest.approx(expected, abs=1e-4)


def test_a_model_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for content in (b"", b"\x05\0\0\0", b"\x06\0\0\0\x02\0W\0\x03\0\0\0\x01\0\0\0"):
        path.write_bytes(content)
        with pytest.raises(CerError, match="not a CTranslate2 model"):
            read_arrays(path, "encoder/")


def test_arrays_of_a_model_file_are_found_by_prefix(tmp_path: Path) -> None:
    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    def array(title: str, kind: int, values: np.ndarray) -> bytes:
        sizes = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        return name(title) + sizes + struct.pack("<BI", kind, values.nbytes) + values.tobytes()

    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    body = array("decoder/w", 0, np.ones(2, np.float32)) + array("encoder/w", 4, weight)
    (tmp_path / "model.bin").write_bytes(struct.pack("<I", 6) + name("Spec") + struct.pack("<II", 3, 2) + body)
    found = read_arrays(tmp_path / "model.bin", "encoder/")
    assert list(found) == ["w"]
    assert np.array_equal(found["w"], weight)
