"""The WavLM branches: the real configuration, the heads against naive versions, and the stages on real sound."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import WavLMConfig, WavLMModel

from cer_pipeline import tables
from cer_pipeline.branches.audio import wavlm_specs as specs
from cer_pipeline.branches.audio import wavlm_stages as stages
from cer_pipeline.branches.audio.sound_reader import reader_of
from cer_pipeline.branches.audio.wavlm import framed, load_encoder
from cer_pipeline.branches.audio.wavlm_heads import NETWORKS, WavlmHead, WavlmReBiLSTM, WavlmUncertainty
from cer_pipeline.branches.registry import branches
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import write_sound_file
from cer_pipeline.stage import StageContext
from cer_pipeline.zoo.head_file import load_head, save_head
from tests.helpers import tiny_wavlm as tiny
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.helpers.pictures import waveform_of
from tests.helpers.tiny_wavlm import SIZE, tiny_wavlm, tiny_wavlm_head

RATE = 16_000
BRANCHES = (specs.AUDIO_WAVLM_UNCERTAINTY, specs.AUDIO_WAVLM_BILSTM)
STAGES = {
    specs.UNCERTAINTY: (stages.UncertaintyFeatures, stages.UncertaintyProbabilities),
    specs.BILSTM: (stages.BilstmFeatures, stages.BilstmProbabilities),
}


# --- the real configuration -------------------------------------------------------------------------------------------


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of WavLM base (Chen et al. 2022, section IV: 12 layers of 768 with 12 heads, 94.38 M)."""
    yield "masked_spec_embed", (768,)
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        yield f"feature_extractor.conv_layers.{i}.conv.weight", (512, 512 if i else 1, kernel)
    for kind in ("weight", "bias"):
        yield f"feature_extractor.conv_layers.0.layer_norm.{kind}", (512,)
        yield f"feature_projection.layer_norm.{kind}", (512,)
        yield f"encoder.layer_norm.{kind}", (768,)
    yield "feature_projection.projection.weight", (768, 512)
    yield "feature_projection.projection.bias", (768,)
    yield "encoder.pos_conv_embed.conv.bias", (768,)
    yield "encoder.pos_conv_embed.conv.parametrizations.weight.original0", (1, 1, 128)
    yield "encoder.pos_conv_embed.conv.parametrizations.weight.original1", (768, 48, 128)
    yield "encoder.layers.0.attention.rel_attn_embed.weight", (320, 12)
    for i in range(12):
        layer = f"encoder.layers.{i}"
        yield f"{layer}.attention.gru_rel_pos_const", (1, 12, 1, 1)
        yield f"{layer}.attention.gru_rel_pos_linear.weight", (8, 64)
        yield f"{layer}.attention.gru_rel_pos_linear.bias", (8,)
        linear = {f"attention.{name}": (768, 768) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        linear |= {"feed_forward.intermediate_dense": (3072, 768), "feed_forward.output_dense": (768, 3072)}
        for name, shape in linear.items():
            yield f"{layer}.{name}.weight", shape
            yield f"{layer}.{name}.bias", shape[:1]
        for name in ("layer_norm", "final_layer_norm"):
            yield f"{layer}.{name}.weight", (768,)
            yield f"{layer}.{name}.bias", (768,)


def test_the_real_encoder_has_the_published_tensors_and_199_states_for_a_window() -> None:
    with torch.device("meta"):
        model = WavLMModel(WavLMConfig()).eval()
        states = model(torch.zeros(1, 4 * RATE)).last_hidden_state
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == dict(published_shapes())
    # 94.38 M parameters; in float32 that is the 378 MB of the hub's safetensors file.
    assert sum(p.numel() for p in model.parameters()) == 94_381_936
    assert states.shape == (1, 199, 768)
    model.load_state_dict({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, assign=True)


def count(*sizes: tuple[int, int]) -> int:
    """Parameters of linear layers."""
    return sum(a * b + b for a, b in sizes)


def test_the_real_heads_have_the_published_sizes() -> None:
    with torch.device("meta"):
        uncertainty, bilstm = (NETWORKS[name]("masked") for name in (specs.UNCERTAINTY, specs.BILSTM))
    attention = 3 * count((768, 3 * 768), (768, 768))
    blocks = count((2304, 512), (512, 256), (768, 256), (512, 256)) + 2 * (512 + 3 * 256)
    assert sum(p.numel() for p in uncertainty.parameters()) == attention + blocks + 2 * count((256, 8))
    lstm = 2 * (4 * 768 * (768 + 768) + 2 * 4 * 768)
    rest = count((1536, 768), (768, 768), (768, 1), (768, 512), (512, 256), (256, 8)) + 2 * (768 + 512 + 256)
    assert sum(p.numel() for p in bilstm.parameters()) == lstm + rest


# --- the heads --------------------------------------------------------------------------------------------------------


def through(sequence: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Linear-ReLU-LayerNorm blocks without dropout, written out."""
    for module in sequence.modules():
        if isinstance(module, torch.nn.Linear):
            x = torch.relu(x @ module.weight.T + module.bias)
        elif isinstance(module, torch.nn.LayerNorm):
            centred = x - x.mean(-1, keepdim=True)
            x = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * module.weight + module.bias
    return x


def attended(attention: torch.nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """Multi-head self-attention of one sequence [t, d], head by head."""
    q, k, v = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
    size = x.shape[-1] // attention.num_heads
    out = []
    for h in range(attention.num_heads):
        part = slice(h * size, (h + 1) * size)
        out.append(torch.softmax(q[:, part] @ k[:, part].T / size**0.5, -1) @ v[:, part])
    return torch.cat(out, -1) @ attention.out_proj.weight.T + attention.out_proj.bias


@pytest.mark.parametrize(("framing", "bounds"), [("masked", (0, 7, 14, 20)), ("published", (0, 6, 12, 18))])
def test_the_uncertainty_head_computes_the_published_formula(framing: str, bounds: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head, x = WavlmUncertainty(framing, SIZE).eval(), torch.randn(20, SIZE)
    thirds = [x[a:b] for a, b in pairwise(bounds)]
    related = torch.cat([attended(a, t).mean(0) for a, t in zip(head.attention, thirds, strict=True)])  # type: ignore[arg-type]
    naive = through(head.body, torch.cat([through(head.relations, related), through(head.whole, x.mean(0))]))
    vector = head.vector(x[None], torch.tensor([20]))
    torch.testing.assert_close(vector[0], naive, atol=1e-5, rtol=1e-4)
    means, log_variances = head(x[None], torch.tensor([20]))
    torch.testing.assert_close(means[0], naive @ head.last.weight.T + head.last.bias, atol=1e-5, rtol=1e-4)
    assert (log_variances >= -3).all()
    assert (log_variances <= 3).all()


def test_the_bilstm_head_computes_the_published_formula() -> None:
    torch.manual_seed(0)
    head, x = WavlmReBiLSTM("masked", SIZE).eval(), torch.randn(9, SIZE)
    directions = []
    for suffix, order in (("", range(9)), ("_reverse", range(8, -1, -1))):
        w, r, a, b = (getattr(head.lstm, f"{n}_l0{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = c = torch.zeros(SIZE)
        out = [torch.zeros(0)] * 9
        for t in order:
            i, f, g, o = (w @ x[t] + a + r @ h + b).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            out[t] = h
        directions.append(torch.stack(out))
    hidden = head.norm(x + head.project(torch.cat(directions, -1)))
    weights = torch.softmax(head.attention(hidden).squeeze(-1), 0)
    naive = through(head.body, (weights[:, None] * hidden).sum(0))
    torch.testing.assert_close(head.vector(x[None], torch.tensor([9]))[0], naive, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("branch", list(NETWORKS))
def test_states_behind_the_end_of_a_window_change_nothing(branch: str) -> None:
    torch.manual_seed(0)
    head, x = NETWORKS[branch]("masked", SIZE).eval(), torch.randn(2, 12, SIZE)
    steps = torch.tensor([12, 5])
    torch.testing.assert_close(head.vector(x, steps)[1], head.vector(x[1:, :5], steps[1:])[0])


# --- the encoder ------------------------------------------------------------------------------------------------------


def test_windows_keep_their_length_or_are_filled_with_zeros() -> None:
    sound = np.linspace(-1, 1, 3 * RATE, dtype=np.float32)
    assert (framed(sound, "masked") == sound).all()
    assert len(framed(np.ones(9, np.float32), "masked")) == 400
    assert len(framed(np.ones(5 * RATE, np.float32), "masked")) == 4 * RATE
    padded = framed(sound, "published")
    assert len(padded) == 4 * RATE
    assert (padded[: len(sound)] == sound).all()
    assert not padded[len(sound) :].any()


def test_the_encoder_is_loaded_with_the_tensors_that_training_changed(tmp_path: Path) -> None:
    folder = tiny_wavlm(tmp_path)
    name = "encoder.layers.1.attention.out_proj.weight"
    plain, changed = load_encoder(folder, {}), load_encoder(folder, {name: torch.ones(SIZE, SIZE)})
    assert not plain.training
    assert (changed.state_dict()[name] == 1).all()
    others = plain.state_dict().keys() - {name}
    assert all(torch.equal(plain.state_dict()[key], changed.state_dict()[key]) for key in others)
    with pytest.raises(CerError, match="a head trained for another encoder"):
        load_encoder(folder, {name: torch.ones(SIZE, 1)})
    with pytest.raises(CerError, match="a head trained for another encoder"):
        load_encoder(folder, {"encoder.layers.2.attention.out_proj.weight": torch.ones(SIZE, SIZE)})


def test_a_folder_that_holds_no_encoder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="WavLM cannot be loaded") as error:
        load_encoder(tmp_path, {})
    assert "\n" not in error.value.line()


# --- files of heads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"branch": "audio_bilstm"}, "branch 'audio_bilstm' instead of"),
        ({"encoder": "whisper_tiny_en"}, "encoder 'whisper_tiny_en' instead of"),
        ({"framing": "published"}, "framing 'published' instead of 'masked'"),
    ],
)
def test_a_head_trained_for_something_else_is_refused_in_one_line(tmp_path: Path, meta: dict, message: str) -> None:
    path = tiny_wavlm_head(tmp_path / "head.safetensors", specs.UNCERTAINTY, **meta)
    with pytest.raises(CerError, match=message) as error:
        WavlmHead.load(path, specs.UNCERTAINTY, "masked")
    assert "cer train audio_wavlm_uncertainty" in error.value.then


def test_a_head_with_other_tensors_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tiny_wavlm_head(tmp_path / "head.safetensors", specs.BILSTM, branch=specs.UNCERTAINTY)
    with pytest.raises(CerError, match="without the tensor") as error:
        WavlmHead.load(path, specs.UNCERTAINTY, "masked")
    assert "\n" not in error.value.line()


def test_a_head_of_another_form_names_the_tensor(tmp_path: Path) -> None:
    path = tiny_wavlm_head(tmp_path / "head.safetensors", specs.UNCERTAINTY)
    tensors, meta = load_head(path)
    save_head(path, tensors | {"head/last.weight": np.zeros((7, specs.VECTOR), np.float32)}, meta)
    with pytest.raises(CerError, match=r"a head of another form \(size mismatch for last.weight"):
        WavlmHead.load(path, specs.UNCERTAINTY, "masked")


def test_the_published_temperature_is_used_unless_the_file_has_another(tmp_path: Path) -> None:
    vector = np.random.default_rng(0).normal(size=(3, specs.VECTOR))
    cases: list[tuple[str, dict[str, Any], float]] = [
        (specs.UNCERTAINTY, {}, 1.5),
        (specs.BILSTM, {}, 1.0),
        (specs.BILSTM, {"temperature": 2.0}, 2.0),
    ]
    for branch, meta, temperature in cases:
        head = WavlmHead.load(tiny_wavlm_head(tmp_path / "head.safetensors", branch, **meta), branch, "masked")
        weight, bias = (p.detach().numpy().astype(float) for p in (head.network.last.weight, head.network.last.bias))
        powers = np.exp((vector @ weight.T + bias) / temperature)
        assert head.probabilities(vector) == pytest.approx(powers / powers.sum(-1, keepdims=True))


# --- the stages -------------------------------------------------------------------------------------------------------


class TinyWeights:
    """A zoo of tiny models."""

    def __init__(self, folder: Path, *, changed: bool = True) -> None:
        self.folder, self.changed = folder, changed
        tiny_wavlm(folder)

    def path(self, model: str) -> Path:
        if model == specs.ENCODER:
            return self.folder / model
        return tiny_wavlm_head(self.folder / model, model.removeprefix("head_"), changed=self.changed)

    def digest(self, model: str) -> str | None:
        return model


def shard(sound: np.ndarray) -> MemoryInputs:
    """Video a with speech from 0.5 to 2.1 s and from 4.2 s on, a silent video b, a video c without sound."""
    windows = [("a", 0, 0.0, 4.0), ("a", 1, 2.0, 5.1), ("b", 0, 0.0, 3.0), ("c", 0, 0.0, 2.0)]
    speech = [
        {"video_id": "a", "interval": 0, "start_s": 0.5, "end_s": 2.1},
        {"video_id": "a", "interval": 1, "start_s": 4.2, "end_s": 5.0},
        {"video_id": "b", "interval": 0, "status": "no_speech", "reason": "none"},
        {"video_id": "c", "interval": 0, "status": "no_audio", "reason": "no stream"},
    ]
    audio = [
        {"video_id": "a", "flac": write_sound_file(sound[: round(5.1 * RATE)], RATE)},
        {"video_id": "b", "flac": write_sound_file(np.zeros(3 * RATE, np.float32), RATE)},
        {"video_id": "c", "status": "no_audio", "reason": "no stream"},
    ]
    segments = [segment(v, i) | {"start_s": s, "end_s": e} for v, i, s, e in windows]
    return MemoryInputs(
        {
            "segments": rows(tables.SEGMENTS, segments),
            "audio": rows(tables.AUDIO, audio),
            "speech": rows(tables.SPEECH, speech),
        }
    )


def noise() -> np.ndarray:
    """Six seconds of sound."""
    return (np.random.default_rng(0).normal(size=6 * RATE) * 0.1).astype(np.float32)


def contexts(inputs: MemoryInputs, weights: TinyWeights, *overrides: str) -> StageContext:
    """A context under the profile `paper` on the CPU."""
    return StageContext(
        load_profile("paper", overrides=["execution.device=cpu", *overrides]), weights, inputs, Counter()
    )


def run(branch, context: StageContext) -> pa.Table:
    """The features and probabilities of a branch, put into the inputs; return the probabilities."""
    for spec, stage in zip((branch.features, branch.probabilities), STAGES[branch.name], strict=True):
        table = stage(context)(spec.plan(context.inputs, context.profile)).cast(spec.table.schema)
        table.validate(full=True)
        context.inputs.tables[spec.name] = table  # type: ignore[attr-defined]
    return table


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
@pytest.mark.parametrize("changed", [True, False])
def test_every_window_with_speech_has_a_distribution_and_the_others_a_reason(
    tmp_path: Path, branch, changed: bool
) -> None:
    context = contexts(shard(noise()), TinyWeights(tmp_path, changed=changed))
    out = run(branch, context).to_pylist()
    assert [(r["segment_id"], r["status"]) for r in out] == [
        ("a/0000", "ok"),
        ("a/0001", "ok"),
        ("b/0000", "no_speech"),
        ("c/0000", "no_audio"),
    ]
    assert out[3]["reason"] == "no stream"
    assert all(sum(r[c] for c in BASIC_COLUMNS) == pytest.approx(1, abs=1e-9) for r in out[:2])
    assert out[0]["model"] == f"head_{branch.name}"
    assert context.counters == {"calls/wavlm_base_plus_sd": 2}
    features = context.inputs.table(branch.features.name).to_pylist()
    assert features[0]["features"] != features[1]["features"]
    # A window that is computed alone gives the same row.
    plan = branch.features.plan(context.inputs, context.profile)
    assert STAGES[branch.name][0](context)(plan.slice(1, 1)).to_pylist() == features[1:2]


def test_the_features_are_the_head_on_the_states_of_the_window(tmp_path: Path) -> None:
    context = contexts(shard(noise()), TinyWeights(tmp_path))
    run(specs.AUDIO_WAVLM_UNCERTAINTY, context)
    head = WavlmHead.load(context.weights.path("head_audio_wavlm_uncertainty"), specs.UNCERTAINTY, "masked")
    encoder = load_encoder(tmp_path / specs.ENCODER, head.encoder)
    samples = np.round(noise() * 32768) / 32768  # stored with 16 bits
    sound = torch.from_numpy(samples[2 * RATE : round(5.1 * RATE)].astype(np.float32))
    with torch.inference_mode():
        states = encoder(sound[None]).last_hidden_state
        assert states.shape == (1, 154, SIZE)  # (49600 - 400) // 320 + 1
        naive = head.network.vector(states, torch.tensor([154]))[0]
    found = context.inputs.table("features/audio_wavlm_uncertainty").to_pylist()[1]["features"]
    assert found == pytest.approx(naive.tolist(), abs=1e-5)


def test_the_published_framing_takes_padding_for_sound(tmp_path: Path) -> None:
    masked = contexts(shard(noise()), TinyWeights(tmp_path))
    run(specs.AUDIO_WAVLM_UNCERTAINTY, masked)
    weights = TinyWeights(tmp_path)
    path = tiny_wavlm_head(tmp_path / "published", specs.UNCERTAINTY, framing="published")
    weights.path = lambda model: tmp_path / model if model == specs.ENCODER else path  # type: ignore[method-assign]
    published = contexts(shard(noise()), weights, "audio_wavlm.framing=published")
    run(specs.AUDIO_WAVLM_UNCERTAINTY, published)
    name = "features/audio_wavlm_uncertainty"
    first, second = (np.array(c.inputs.table(name).column("features").to_pylist()[:2]) for c in (masked, published))
    assert np.abs(first[0] - second[0]).max() < 0.5  # of a whole window only the thirds differ, by one state
    assert np.abs(first[1] - second[1]).max() > 1e-3


def test_a_head_for_an_encoder_of_another_size_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = TinyWeights(tmp_path, changed=False)
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "SIZE", 64)
        path = tiny_wavlm_head(tmp_path / "wide", specs.BILSTM, changed=False)
    weights.path = lambda model: tmp_path / model if model == specs.ENCODER else path  # type: ignore[method-assign]
    with pytest.raises(CerError, match="a head trained for other features: 64 values a state, not 32"):
        run(specs.AUDIO_WAVLM_BILSTM, contexts(shard(noise()), weights))


@pytest.mark.slow
@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
def test_real_speech_has_values(tmp_path: Path, media: Path, branch) -> None:
    out = run(branch, contexts(shard(waveform_of(media / "talking_1.mp4")), TinyWeights(tmp_path))).to_pylist()
    assert [r["status"] for r in out] == ["ok", "ok", "no_speech", "no_audio"]
    assert out[0]["p_neutral"] != out[1]["p_neutral"]


def test_the_branches_can_be_enabled_by_name() -> None:
    profile = load_profile("paper", overrides=['branches.enabled=["audio_wavlm_uncertainty", "audio_wavlm_bilstm"]'])
    assert branches(profile) == BRANCHES
    assert [branch.table1 for branch in BRANCHES] == [9, 10]
    assert not {branch.name for branch in BRANCHES} & {*load_profile()["branches"]["enabled"]}


# --- torchaudio -------------------------------------------------------------------------------------------------------


def test_a_torchaudio_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(CerError, match="torchaudio does not load") as error:
        reader_of("torchaudio")
    assert "audio_wavlm.reader" in error.value.then


def test_torchaudio_is_asked_for_mono_samples_at_16_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    stereo = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    functional = SimpleNamespace(resample=lambda samples, old, new: samples[:, :: old // new])
    module = SimpleNamespace(load=lambda file: (stereo.repeat_interleave(2, 1), 32_000), functional=functional)
    monkeypatch.setitem(sys.modules, "torchaudio", module)  # type: ignore[arg-type]
    assert reader_of("torchaudio")(b"").tolist() == [0.5, 1.0]
