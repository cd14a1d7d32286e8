"""Parakeet: the real configuration, features and decoding against independent versions, and the stage on real sound."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import ParakeetEncoderConfig, ParakeetFeatureExtractor, ParakeetForTDT, ParakeetTDTConfig

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.perception.specs import TRANSCRIPTS, perception_stages, transcripts_stage
from cer_pipeline.perception.speech import asr
from cer_pipeline.perception.speech.parakeet import Parakeet, Token, greedy, words_of
from cer_pipeline.perception.speech.parakeet_nemo import NemoParakeet
from cer_pipeline.perception.speech.word import Word
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import write_sound_file
from cer_pipeline.stage import StageContext
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.helpers.pictures import waveform_of
from tests.helpers.tiny_parakeet import BLANK, PIECES, tiny_parakeet

RATE = 16_000
CPU = torch.device("cpu")


# --- the real configuration -------------------------------------------------------------------------------------------


def real_config() -> ParakeetTDTConfig:
    """Parakeet TDT 0.6B v2: 128 bands, 24 layers of 1024, no biases in the encoder, 1024 pieces and the blank."""
    encoder = ParakeetEncoderConfig(num_mel_bins=128, attention_bias=False, convolution_bias=False, scale_input=False)
    return ParakeetTDTConfig(vocab_size=1025, blank_token_id=1024, encoder_config=encoder.to_dict())


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes after Rekesh et al. 2023 (Fast Conformer, size XL) and Xu et al. 2023 (five durations)."""
    subsampling = {0: (256, 1, 3, 3), 2: (256, 1, 3, 3), 3: (256, 256, 1, 1), 5: (256, 1, 3, 3), 6: (256, 256, 1, 1)}
    for i, shape in subsampling.items():
        yield f"encoder.subsampling.layers.{i}.weight", shape
        yield f"encoder.subsampling.layers.{i}.bias", (256,)
    yield "encoder.subsampling.linear.weight", (1024, 256 * 128 // 8)
    yield "encoder.subsampling.linear.bias", (1024,)
    for i in range(24):
        layer = f"encoder.layers.{i}"
        for block in ("feed_forward1", "feed_forward2"):
            yield f"{layer}.{block}.linear1.weight", (4096, 1024)
            yield f"{layer}.{block}.linear2.weight", (1024, 4096)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj", "relative_k_proj"):
            yield f"{layer}.self_attn.{name}.weight", (1024, 1024)
        for name in ("bias_u", "bias_v"):
            yield f"{layer}.self_attn.{name}", (8, 128)
        yield f"{layer}.conv.pointwise_conv1.weight", (2048, 1024, 1)
        yield f"{layer}.conv.depthwise_conv.weight", (1024, 1, 9)
        yield f"{layer}.conv.pointwise_conv2.weight", (1024, 1024, 1)
        for name in ("weight", "bias", "running_mean", "running_var"):
            yield f"{layer}.conv.norm.{name}", (1024,)
        yield f"{layer}.conv.norm.num_batches_tracked", ()
        for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            yield f"{layer}.norm_{name}.weight", (1024,)
            yield f"{layer}.norm_{name}.bias", (1024,)
    yield "encoder_projector.weight", (640, 1024)
    yield "encoder_projector.bias", (640,)
    yield "decoder.embedding.weight", (1025, 640)
    for i in range(2):
        for name in ("weight_ih", "weight_hh"):
            yield f"decoder.lstm.{name}_l{i}", (2560, 640)
        for name in ("bias_ih", "bias_hh"):
            yield f"decoder.lstm.{name}_l{i}", (2560,)
    yield "decoder.decoder_projector.weight", (640, 640)
    yield "decoder.decoder_projector.bias", (640,)
    yield "joint.head.weight", (1025 + 5, 640)
    yield "joint.head.bias", (1025 + 5,)


def test_the_real_model_has_the_published_tensors() -> None:
    with torch.device("meta"):
        model = ParakeetForTDT(real_config())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == dict(published_shapes())
    model.load_state_dict({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, assign=True)
    # In float32, with the filters and the window of NeMo's features, at most 0.1 % less than the 2,472,222,720 bytes of
    # the publisher's archive, which also holds the tokenizer.
    size = 4 * (sum(math.prod(shape) for shape in shapes.values()) + 128 * 257 + 400)
    assert 0 < 2_472_222_720 - size < 2_472_223


# --- features ---------------------------------------------------------------------------------------------------------


def slaney(bands: int) -> NDArray[np.float64]:
    """Triangular filters [bands, 257] of unit area on Slaney's mel scale, 0 to 8000 Hz, at 31.25 Hz a bin."""

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) / (math.log(6.4) / 27)

    def hz(value: float) -> float:
        return value * 200 / 3 if value < 15 else 1000 * math.exp((value - 15) * math.log(6.4) / 27)

    edges = [hz(mel(8000) * i / (bands + 1)) for i in range(bands + 2)]
    filters = np.zeros((bands, 257))
    for band in range(bands):
        low, centre, high = edges[band : band + 3]
        for k in range(257):
            rising, falling = (k * 31.25 - low) / (centre - low), (high - k * 31.25) / (high - centre)
            filters[band, k] = max(0.0, min(rising, falling)) * 2 / (high - low)
    return filters


def log_mel(sound: NDArray[np.float32], bands: int = 128) -> NDArray[np.float64]:
    """Features of one sound [frames, bands], frame by frame."""
    x = np.append(sound[0], sound[1:].astype(float) - 0.97 * sound[:-1])
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    padded = np.pad(x, 256)
    frames = [padded[160 * i : 160 * i + 512] * window for i in range(len(x) // 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    values = np.log(power @ slaney(bands).T + 2.0**-24)
    return (values - values.mean(0)) / (values.std(0, ddof=1) + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [4.0, 1.234])
def test_the_features_equal_a_naive_version_on_real_sound(media: Path, seconds: float) -> None:
    sound = waveform_of(media / "talking_1.mp4")[: round(seconds * RATE)]
    found = ParakeetFeatureExtractor(feature_size=128)([sound], sampling_rate=RATE, return_tensors="pt")
    valid = int(found["attention_mask"].sum())
    naive = log_mel(sound)
    assert valid == len(naive)
    assert np.abs(found["input_features"][0, :valid].numpy() - naive).max() < 0.02  # float32 at -16.6, digital silence
    assert np.abs(found["input_features"][0, :valid].numpy() - naive).mean() < 1e-4


# --- decoding ---------------------------------------------------------------------------------------------------------


def noise(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Sound."""
    return (np.random.default_rng(seed).normal(size=round(seconds * RATE)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_decoding_gives_the_tokens_and_durations_of_generate(tmp_path: Path, seed: int) -> None:
    recogniser = Parakeet(tiny_parakeet(tmp_path, seed), CPU)
    model, inputs = recogniser._model, recogniser._features([noise(4)], sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        states = model.get_audio_features(**inputs, output_attention_mask=True).pooler_output[:, :50]
        durations = list(range(len(PIECES), len(PIECES) + 5))  # their logits stand behind those of the tokens
        expected = model.generate(**inputs, suppress_tokens=durations, max_new_tokens=500)
        found = greedy(model, states)
    steps = zip(expected.sequences[0, 1:].tolist(), expected.durations[0, 1:].tolist(), strict=True)
    at, naive = 0, []
    for token, duration in steps:
        if token != BLANK:
            naive.append((token, at, duration))
        at += duration
    assert [(token, start, duration) for token, _, start, duration in found] == naive
    assert len(found) > 5
    assert all(0 < probability <= 1 for _, probability, *_ in found)


class Stuck:
    """A transducer that always emits token 1 with the duration 0."""

    config = SimpleNamespace(
        blank_token_id=2,
        vocab_size=3,
        durations=(0, 1),
        max_symbols_per_step=4,
        decoder_hidden_size=1,
        num_decoder_layers=1,
    )
    generation_config = SimpleNamespace(decoder_start_token_id=None)

    def decoder(self, token: torch.Tensor, cache: object) -> torch.Tensor:
        return torch.zeros(1, 1, 1)

    def joint(self, **_: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[[0.0, 9.0, 0.0, 5.0, 0.0]]])


def test_a_transducer_that_never_advances_is_moved_on() -> None:
    found = greedy(Stuck(), torch.zeros(1, 3, 1))
    assert [start for _, _, start, _ in found] == [0] * 4 + [1] * 4 + [2] * 4


def test_pieces_make_words_with_times_and_the_mean_probability() -> None:
    tokens = [Token("▁sad", 0.8, 2, 4), Token("ness", 0.6, 4, 7), Token(".", 0.9, 7, 9), Token("▁I", 1.0, 10, 11)]
    first, second = words_of(tokens, 0.08)
    assert (first.word, second.word) == (" sadness.", " I")
    assert (first.start_s, first.end_s) == pytest.approx((0.16, 0.56))  # the full stop lasts no time
    assert first.probability == pytest.approx((0.8 + 0.6 + 0.9) / 3)
    assert (second.start_s, second.end_s) == pytest.approx((0.8, 0.88))
    assert words_of([Token("▁", 1.0, 0, 1)], 0.08) == []
    assert words_of([], 0.08) == []


def test_the_times_are_those_of_the_processor(tmp_path: Path) -> None:
    from transformers import ParakeetProcessor

    folder = tiny_parakeet(tmp_path)
    recogniser = Parakeet(folder, CPU)
    sound = noise(4)
    processor: Any = ParakeetProcessor.from_pretrained(folder)
    tokens = recogniser._tokens(sound)
    ids = [PIECES.index(token.piece) for token in tokens]
    frames = torch.tensor([[token.end - token.start for token in tokens]])
    starts = [token.start for token in tokens]
    assert starts == [sum(frames[0, :i].tolist()) for i in range(len(starts))]  # this seed emits no blank
    text, stamps = processor.decode(torch.tensor([ids]), durations=frames)
    words = recogniser(sound)
    assert "".join(word.word for word in words).split() == text[0].split()
    assert words[1].start_s in [pytest.approx(stamp["start"]) for stamp in stamps[0]]
    assert recogniser(sound) == words
    assert recogniser(sound[:1599]) == []


# --- the stage --------------------------------------------------------------------------------------------------------


def test_the_choice_of_the_recogniser_decides_the_keys_and_the_weights() -> None:
    assert transcripts_stage(load_profile()) is TRANSCRIPTS
    assert TRANSCRIPTS.config == ("transcripts", "loudness")
    assert TRANSCRIPTS.models == ("whisper_tiny_en", "whisper_base")
    chosen = transcripts_stage(load_profile(overrides=["transcripts.model=parakeet_tdt_06b"]))
    assert chosen.models == ("parakeet_tdt_06b", "whisper_base")
    assert chosen.config == ("transcripts", "loudness", "transcripts_parakeet")
    assert chosen.code_version != TRANSCRIPTS.code_version
    nemo = transcripts_stage(load_profile("gpu", overrides=["transcripts_parakeet.runtime=nemo"]))
    assert nemo.models == ("parakeet_tdt_06b_nemo", "whisper_base")
    assert load_profile("gpu")["transcripts_parakeet"]["scope"] == "video"
    assert load_profile("paper")["transcripts_parakeet"]["scope"] == "window"


def test_an_unknown_recogniser_is_refused_with_the_graph() -> None:
    with pytest.raises(CerError, match=r"no such recogniser: transcripts\.model = whisper_giant") as error:
        perception_stages(load_profile(overrides=["transcripts.model=whisper_giant"]))
    assert "parakeet_tdt_06b" in error.value.then


def test_a_folder_that_holds_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="Parakeet cannot be loaded") as error:
        Parakeet(tmp_path, CPU)
    assert "\n" not in error.value.line()


class FakeDetector:
    """Predicts English for quiet sound and German for loud sound."""

    def languages(self, sound: NDArray[np.float32]) -> dict[str, float]:
        english = 0.99 if np.abs(sound).max() < 0.8 else 0.01
        return {"en": english, "de": 1 - english}


class Weights:
    """A zoo of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, model: str) -> Path:
        return self.folder / model

    def digest(self, model: str) -> str | None:
        return model


def shard(sound: NDArray[np.float32], speech: list[tuple[float, float]]) -> MemoryInputs:
    """A video with windows of 4 s, 2 s apart."""
    seconds = len(sound) / RATE
    count = max(1, math.ceil((seconds - 4) / 2) + 1)
    windows = [
        segment("v", i) | {"start_s": 2.0 * i, "end_s": min(2.0 * i + 4, seconds), "is_tail": i == count - 1}
        for i in range(count)
    ]
    return MemoryInputs(
        {
            "videos": rows(tables.VIDEOS, [{"video_id": "v", "path": "v", "sha256": "v"}]),
            "segments": rows(tables.SEGMENTS, windows),
            "audio": rows(tables.AUDIO, [{"video_id": "v", "flac": write_sound_file(sound, RATE)}]),
            "speech": rows(
                tables.SPEECH,
                [{"video_id": "v", "interval": i, "start_s": a, "end_s": b} for i, (a, b) in enumerate(speech)],
            ),
        }
    )


def transcripts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, inputs: MemoryInputs, *overrides: str
) -> tuple[list[dict[str, Any]], StageContext]:
    """The rows of the stage under the profile `gpu`, and its context."""
    monkeypatch.setattr(asr, "Whisper", lambda *_, **__: FakeDetector())
    profile = load_profile("gpu", overrides=["execution.device=cpu", *overrides])
    spec, context = transcripts_stage(profile), StageContext(profile, Weights(folder), inputs, Counter())
    made = spec.load()(context)(spec.plan(inputs, profile)).cast(spec.table.schema)
    made.validate(full=True)
    return made.to_pylist(), context


@pytest.mark.parametrize("scope", ["video", "window"])
def test_every_window_with_speech_has_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scope: str) -> None:
    tiny_parakeet(tmp_path)
    inputs = shard(noise(10.5), [(0.0, 7.5)])
    settings = (f"transcripts_parakeet.scope={scope}", "transcripts.loop_keep=99")  # a random model repeats itself
    found, context = transcripts(monkeypatch, tmp_path, inputs, *settings)
    assert [row["status"] for row in found] == ["ok", "ok", "ok", "ok", "no_speech"]
    assert {row["model"] for row in found} == {"parakeet_tdt_06b"}
    assert all(row["text"] and row["language"] == "en" for row in found[:4])
    for row in found[:4]:
        for word in row["words"]:
            assert 2 * row["segment"] <= (word["start_s"] + word["end_s"]) / 2 <= 2 * row["segment"] + 4
    assert context.counters["calls/parakeet_tdt_06b"] == (1 if scope == "video" else 4)
    # The words of a window are those of its sound alone in one scope only.
    alone = Parakeet(tmp_path / "parakeet_tdt_06b", CPU)(
        asr.read_sound(inputs.tables["audio"].column("flac")[0].as_py())[2 * RATE : 6 * RATE]
    )
    same = [f" {word['word']}" for word in found[1]["words"]] == [f" {word.word.strip()}" for word in alone]
    assert same == (scope == "window")


class Recorder:
    """A recogniser that notes what it is given and returns a word a second."""

    def __init__(self) -> None:
        self.given: list[float] = []

    def __call__(self, sound: NDArray[np.float32], language: str) -> list[Word]:
        assert language == "en"
        self.given.append(len(sound) / RATE)
        return [Word(f" w{k}", k + 0.2, k + 0.8, 0.9) for k in range(len(sound) // RATE)]


def test_a_window_is_transcribed_alone_and_keeps_no_word_of_another_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sound = np.full(12 * RATE, 0.1, np.float32)
    sound[5 * RATE :] = 0.9  # German from 5.5 s on
    recorder = Recorder()
    monkeypatch.setattr(asr.Transcripts, "_load_parakeet", lambda _: recorder)
    inputs = shard(sound, [(0.0, 4.5), (5.5, 12.0)])
    found, _ = transcripts(monkeypatch, tmp_path, inputs, "transcripts_parakeet.scope=window")
    assert [row["status"] for row in found] == ["ok", "ok", "ok", "not_english", "not_english"]
    assert recorder.given == [4.0, 4.0, 4.0]  # the last two windows hold no English
    assert found[1]["text"] == "w0 w1 w2"  # from 2 s to 5 s; the word from 5.2 s on is German
    assert "parakeet_tdt_06b knows English only" in found[3]["reason"]


@pytest.mark.slow
def test_real_speech_has_a_row_for_every_window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, media: Path) -> None:
    tiny_parakeet(tmp_path)
    sound = waveform_of(media / "talking_1.mp4")
    inputs = shard(sound, [(0.0, len(sound) / RATE)])
    found, _ = transcripts(monkeypatch, tmp_path, inputs, "transcripts_parakeet.scope=window")
    assert {row["status"] for row in found} == {"ok"}
    assert all(row["words"] for row in found)


# --- NeMo -------------------------------------------------------------------------------------------------------------


def test_a_missing_nemo_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nemo", None)
    with pytest.raises(CerError, match="nemo_toolkit does not load") as error:
        transcripts(monkeypatch, tmp_path, shard(noise(2), [(0.0, 2.0)]), "transcripts_parakeet.runtime=nemo")
    assert "cer-pipeline[asr]" in error.value.then


class FakeNemo:
    """The interface of NeMo's model that is used, which records its calls."""

    def __init__(self, confidences: list[float] | None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.cfg = SimpleNamespace(decoding=SimpleNamespace())
        self.confidences = confidences

    def restore_from(self, restore_path: str, map_location: torch.device) -> FakeNemo:
        self.calls.append(("restore_from", (restore_path, map_location)))
        return self

    def change_attention_model(self, *arguments: Any) -> None:
        self.calls.append(("attention", arguments))

    def change_subsampling_conv_chunking_factor(self, factor: int) -> None:
        self.calls.append(("chunking", factor))

    def change_decoding_strategy(self, decoding: Any) -> None:
        self.calls.append(("decoding", decoding.confidence_cfg["aggregation"]))

    def eval(self) -> FakeNemo:
        return self

    def transcribe(self, sounds: list[NDArray[np.float32]], **_: Any) -> list[SimpleNamespace]:
        assert len(sounds) == 1
        words = [{"word": "I", "start": 0.08, "end": 0.16}, {"word": "am.", "start": 0.24, "end": 0.4}]
        return [SimpleNamespace(timestamp={"word": words}, word_confidence=self.confidences)]


@pytest.fixture
def nemo(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float] | None], FakeNemo]:
    """Install a fake NeMo whose words have these confidences."""

    def install(confidences: list[float] | None) -> FakeNemo:
        model = FakeNemo(confidences)
        names = ("nemo", "nemo.collections", "nemo.collections.asr", "omegaconf")
        modules: dict[str, Any] = {name: ModuleType(name) for name in names}
        modules["nemo.collections.asr"].models = SimpleNamespace(ASRModel=model)
        modules["nemo"].collections = modules["nemo.collections"]
        modules["nemo.collections"].asr = modules["nemo.collections.asr"]
        modules["omegaconf"].open_dict = lambda _: nullcontext()
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return model

    return install


def test_nemo_runs_with_the_local_attention_of_the_paper(nemo: Callable[..., FakeNemo]) -> None:
    model = nemo([0.9, torch.tensor(0.5)])
    attention = load_profile()["transcripts_parakeet"]["local_attention"]
    recogniser = NemoParakeet(Path("a.nemo"), attention, CPU)
    assert model.calls == [
        ("restore_from", ("a.nemo", CPU)),
        ("attention", ("rel_pos_local_attn", [128, 128])),
        ("chunking", 1),
        ("decoding", "mean"),
    ]
    assert recogniser(noise(1)) == [Word(" I", 0.08, 0.16, 0.9), Word(" am.", 0.24, 0.4, 0.5)]
    assert recogniser(noise(0.05)) == []


def test_a_nemo_without_word_probabilities_is_refused(nemo: Callable[..., FakeNemo]) -> None:
    nemo(None)
    with pytest.raises(CerError, match="no probability for every word"):
        NemoParakeet(Path("a.nemo"), [128, 128], CPU)(noise(1))
