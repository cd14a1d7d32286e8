"""Training of the audio heads: variants, folds, resuming, and what is written. On a small made-up corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cer_pipeline.branches.audio import train as training
from cer_pipeline.branches.audio import whisper_encoder as audio_encoder
from cer_pipeline.branches.audio.augment import WINDOW, trimmed, variant
from cer_pipeline.branches.audio.heads import AudioHead
from cer_pipeline.branches.audio.specs import STATE_SIZE
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.formats.ravdess import EMOTIONS
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.sound_file import SAMPLE_RATE_HZ, write_sound_file
from cer_pipeline.store.home import Home
from cer_pipeline.training.trainer import Request

pytestmark = pytest.mark.slow  # whole graphs or trainings

SETTINGS = training.AudioSettings(width=16, epochs=8, variants=1, members=2, batch=16, rate=5e-3)


def tone(hz: float, seconds: float = 0.5) -> np.ndarray:
    """A tone between silences of 0.3 s."""
    t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    quiet = np.zeros(round(0.3 * SAMPLE_RATE_HZ))
    return np.concatenate([quiet, 0.3 * np.sin(2 * np.pi * hz * t), quiet]).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 actors, 2 clips of each of the 8 emotions; an emotion is a pitch."""
    folder = tmp_path_factory.mktemp("ravdess")
    for actor in range(1, 6):
        (folder / f"Actor_{actor:02d}").mkdir()
        for emotion in EMOTIONS:
            for take in (1, 2):
                name = f"Actor_{actor:02d}/03-01-{emotion:02d}-01-01-{take:02d}-{actor:02d}.flac"
                (folder / name).write_bytes(write_sound_file(tone(300 * emotion + actor + 0.3 * take), SAMPLE_RATE_HZ))
    return folder


class PitchEncoder:
    """States that tell the loudest frequency of each step."""

    calls = 0

    def __init__(self, folder: Path) -> None:
        pass

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        PitchEncoder.calls += 1
        steps = max(1, -(-len(sound) // 3200))
        parts = np.pad(sound, (0, steps * 3200 - len(sound))).reshape(steps, 3200)
        hz = np.abs(np.fft.rfft(parts, axis=1)).argmax(1) * 5.0
        centres = np.linspace(0, 3000, STATE_SIZE)
        return np.exp(-(((hz[:, None] - centres) / 150) ** 2)).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def pitch() -> Iterator[None]:
    few = ({"epochs": 4}, {"epochs": 6})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(audio_encoder, "WhisperStates", PitchEncoder)
        monkeypatch.setattr(training, "CANDIDATES", {"audio_bilstm": few, "audio_uncertainty": few})
        yield


def whisper(folder: Path) -> Path:
    """A folder with a file where Whisper's weights would be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(b"weights")
    return folder


def train(clips: Path, out: Path, progress=lambda *_: None) -> dict:
    """Train the faster branch."""
    return training.train_audio(clips, whisper(out), out, SETTINGS, ["audio_uncertainty"], progress)[
        "audio_uncertainty"
    ]


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory, pitch: None) -> tuple[Path, dict]:
    """The folder and the scores of an undisturbed training."""
    out = tmp_path_factory.mktemp("trained")
    return out, train(clips, out)


def test_heads_of_held_out_actors_are_scored_and_a_head_is_written(trained: tuple[Path, dict]) -> None:
    out, scores = trained
    assert scores["uar"][0] > 60  # pitches are easy; chance is 14
    assert scores["clips"] == 80
    assert json.loads((out / "audio_uncertainty.scores.json").read_text()) == scores
    assert "CC BY-NC-SA 4.0" in (out / "audio_uncertainty.md").read_text()
    table = pq.read_table(out / "audio_uncertainty.predictions.parquet").to_pandas()
    p = table[[c for c in table if c.startswith("p_")]].to_numpy()
    assert p.sum(1) == pytest.approx(1)
    assert (p[:, BASIC.index("Other")] == 0).all()
    assert (table.fold == (table.actor - 1) % 5).all()
    guess = [BASIC[i] for i in p.argmax(1)]
    recalls = [(np.array(guess)[table.label == BASIC[c]] == BASIC[c]).mean() for c in TRAINED_CLASSES]
    assert 100 * np.mean(recalls) == pytest.approx(scores["uar"][0], abs=0.01)
    head = AudioHead.load(out / "audio_uncertainty.safetensors")
    assert len(head.members) == 2
    assert (out / "audio_uncertainty.safetensors").stat().st_size < 2_000_000


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bytes(clips: Path, tmp_path: Path, trained: tuple[Path, dict]) -> None:
    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if "member 1 for fold 2" in what:
            raise Stop

    with pytest.raises(Stop):
        train(clips, tmp_path / "parts", stop)
    before = PitchEncoder.calls
    train(clips, tmp_path / "parts")
    assert PitchEncoder.calls == before  # no clip was encoded again
    name = "audio_uncertainty.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (trained[0] / name).read_bytes()


def test_the_held_out_actors_choose_nothing(clips: Path, tmp_path: Path) -> None:
    corpus = training.encode(training.read_ravdess(clips), whisper(tmp_path), tmp_path / "states", 1)
    first = training.choose(training.FitCache(corpus, "audio_uncertainty", tmp_path / "a"), SETTINGS, outer=2)
    wrong = corpus.labels.copy()
    wrong[training.folds_of(corpus.actors) == 2] = 0
    changed = training.Corpus(corpus.states, corpus.steps, wrong, corpus.actors, corpus.names, corpus.digest)
    assert training.choose(training.FitCache(changed, "audio_uncertainty", tmp_path / "b"), SETTINGS, outer=2) == first


@pytest.mark.parametrize("sentences", [2, 1])
def test_temperatures_come_from_unheard_actors_and_sentences(sentences: int, tmp_path: Path) -> None:
    names = [f"03-01-01-01-{k + 1:02d}-01-{actor:02d}" for actor in range(1, 11) for k in range(2)]
    names = [name.replace("-02-01-", "-01-01-") if sentences == 1 else name for name in names]
    actors, said = np.repeat(np.arange(1, 11), 2), np.array([name.split("-")[4] for name in names])
    states = torch.randn(2, 20, training.STEPS_PER_WINDOW, STATE_SIZE, generator=torch.Generator().manual_seed(0))
    steps = torch.full((2, 20), training.STEPS_PER_WINDOW)
    corpus = training.Corpus(states, steps, np.zeros(20, np.int64), actors, names, "")
    network = training.KINDS["audio_uncertainty"](width=16).eval()
    asked: list[np.ndarray] = []

    class Recording(training.FitCache):
        def get(self, rows: np.ndarray, settings: training.AudioSettings, seed: int):
            asked.append(rows)
            return network

    found = training.predict_new_sentences(
        Recording(corpus, "audio_uncertainty", tmp_path), [SETTINGS] * training.FOLDS
    )
    assert len(asked) == training.FOLDS * sentences
    assert found == pytest.approx(training.outputs(network, corpus, np.arange(20), version=1), abs=1e-5)
    for rows, (fold, sentence) in zip(asked, [(f, s) for f in range(5) for s in sorted(set(said))], strict=True):
        assert fold not in training.folds_of(actors[rows])
        assert sentences == 1 or sentence not in said[rows]
        assert len(rows) == (16 if sentences == 1 else 8)


def test_the_entry_takes_one_corpus_and_leaves_what_folds_choose(clips: Path, tmp_path: Path) -> None:
    class Weights:
        def path(self, model: str) -> Path:
            assert model == "whisper_tiny_en"
            return whisper(tmp_path)

        def digest(self, model: str) -> str | None:
            return None

    corpus = Corpus("ravdess", "ravdess", clips, 1, ())

    def request(options: dict[str, str], corpora: tuple[Corpus, ...] = (corpus,)) -> Request:
        home, out = Home(tmp_path), tmp_path / "out"
        return Request("audio_uncertainty", home, corpora, Weights(), out, options, lambda *_: None)

    few = {"width": "16", "variants": "0", "members": "1", "batch": "32"}
    assert training.train(request(few))["settings"]["width"] == 16
    assert (tmp_path / "out" / "audio_uncertainty.safetensors").is_file()
    for options, corpora, what in (
        ({"epochs": "3"}, (corpus,), "inner folds choose this option: epochs"),
        ({"depth": "3"}, (corpus,), "no such option of this training: depth"),
        ({}, (corpus, corpus), "trained on one corpus of recordings"),
    ):
        with pytest.raises(CerError, match=what):
            training.train(request(options, corpora))


def test_folds_hold_women_and_men() -> None:
    actors = np.arange(1, 21)
    folds = training.folds_of(actors)
    assert all(sorted(actors[folds == k] % 2) == [0, 0, 1, 1] for k in range(5))


def test_the_temperature_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(3000, 7)) * 1.5
    p = torch.from_numpy(honest).softmax(-1).numpy()
    labels = (p.cumsum(1) > rng.uniform(size=(3000, 1))).argmax(1)
    assert training.best_temperature([3 * honest], labels) == pytest.approx(3, abs=0.3)


def test_an_actor_without_a_class_and_a_broken_clip_are_told(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    (folder / "Actor_01").mkdir(parents=True)
    name = "03-01-01-01-01-01-01.flac"
    (folder / "Actor_01" / name).write_bytes(b"no sound")
    with pytest.raises(CerError, match="a fold has no clip of a class: Anger"):
        train(folder, tmp_path / "out")
    with pytest.raises(CerError, match="cannot be read as sound"):
        training.encode(training.read_ravdess(folder), whisper(tmp_path), tmp_path / "states", 0)
    (folder / "Actor_01" / name).write_bytes(write_sound_file(tone(300), 8000))
    with pytest.raises(CerError, match="8000 Hz"):
        training.encode(training.read_ravdess(folder), whisper(tmp_path), tmp_path / "states", 0)


def test_trimming_keeps_a_tenth_of_a_second_at_each_end() -> None:
    assert len(trimmed(tone(500))) == pytest.approx(
        0.7 * SAMPLE_RATE_HZ, abs=0.05 * SAMPLE_RATE_HZ
    )  # in frames of 25 ms
    assert len(trimmed(np.zeros(100, np.float32))) == 100


@pytest.mark.parametrize("seed", range(8))
def test_a_variant_is_sound_of_at_most_a_window(seed: int) -> None:
    sound = tone(500, 4.5)
    made = variant(sound, np.random.default_rng(seed))
    assert 3 * SAMPLE_RATE_HZ < len(made) <= WINDOW
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert np.array_equal(made, variant(sound, np.random.default_rng(seed)))
    assert not np.array_equal(made, variant(sound, np.random.default_rng(seed + 100)))
    spectrum = np.abs(np.fft.rfft(made[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ]))
    assert 430 < spectrum.argmax() < 570  # still the tone, up to 12 % higher or lower
