"""Encoders of the model hub: their architectures, strict loading, features, heads, and the branches over texts."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from cer_pipeline import tables
from cer_pipeline.branches.encoders import clip, jina, roberta
from cer_pipeline.branches.encoders.heads import LinearHead
from cer_pipeline.branches.encoders.pretrained import Runner, change, load_pretrained
from cer_pipeline.branches.encoders.specs import CLIP, FIRST_STATE, JINA, MEAN, POOLED, PROJECTED, RECIPES, ROBERTA
from cer_pipeline.branches.registry import shipped
from cer_pipeline.branches.sentences.minilm import load_tokenizer
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.errors import CerError, ModelUnavailable
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageContext, StageSpec
from cer_pipeline.store.home import Home
from cer_pipeline.store.materialise import materialise
from cer_pipeline.store.parquet import read_table
from cer_pipeline.zoo import open_zoo
from cer_pipeline.zoo.entries import load_entries
from cer_pipeline.zoo.head_file import save_head
from cer_pipeline.zoo.weights import Zoo, sha256_of
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.helpers.tiny_encoders import (
    ADAPTER_ALPHA,
    ADAPTER_RANK,
    published_jina_names,
    tiny_clip_vit_b32,
    tiny_emotion_distilroberta,
    tiny_jina_v3,
)

PROFILE = load_profile("paper")
BRANCHES = [shipped()[name] for name in RECIPES]
TEXT = "The man appears angry."
LOADERS: dict[str, Callable[[Path, str, str], tuple[Any, Any]]] = {
    ROBERTA: roberta.load,
    JINA: jina.load,
    CLIP: clip.load,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny encoders, `<zoo id>/<file names>`."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_emotion_distilroberta(root / ROBERTA)
    tiny_jina_v3(root / JINA)
    tiny_clip_vit_b32(root / CLIP)
    return root


@dataclass
class Weights:
    """`stage.Weights` of folders, and of head files."""

    root: Path
    heads: dict[str, Path] = field(default_factory=dict)

    def path(self, model: str) -> Path:
        return self.heads.get(model, self.root / model)

    def digest(self, model: str) -> str | None:
        return sha256_of(self.heads[model]) if model in self.heads else None if model.startswith("head_") else model


def head_of(
    branch: str, folder: Path, *, dense: bool = False, changed: dict[str, Any] | None = None, **meta: Any
) -> Path:
    """Write a random head for a branch."""
    recipe, rng = RECIPES[branch], np.random.default_rng(3)
    tensors = {"linear.weight": rng.normal(size=(8, recipe.size)), "linear.bias": rng.normal(size=8)}
    if dense:
        tensors |= {
            "dense.weight": rng.normal(size=(recipe.size,) * 2) / 30,
            "dense.bias": rng.normal(size=recipe.size),
        }
    tensors |= {f"encoder.{name}": value for name, value in (changed or {}).items()}
    described = {"encoder": recipe.encoder, "features": recipe.features, "classes": list(BASIC)} | meta
    save_head(folder / f"{branch}.safetensors", tensors, described)
    return folder / f"{branch}.safetensors"


# --- architectures ---


def layer_names(prefix: str, layers: int, parts: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Weight and bias of every map of every layer; a bias has the rows of its weight."""
    names: dict[str, tuple[int, ...]] = {}
    for i in range(layers):
        for part, shape in parts.items():
            names |= {f"{prefix}{i}.{part}.weight": shape, f"{prefix}{i}.{part}.bias": shape[:1]}
    return names


def roberta_names() -> dict[str, tuple[int, ...]]:
    """distilroberta-base: 6 layers of width 768, 50265 tokens (Sanh et al. 2019; config.json of the repository)."""
    norm, square = (768,), (768, 768)
    names = {
        "embeddings.word_embeddings.weight": (50265, 768),
        "embeddings.position_embeddings.weight": (514, 768),
        "embeddings.token_type_embeddings.weight": (1, 768),
        "embeddings.LayerNorm.weight": norm,
        "embeddings.LayerNorm.bias": norm,
    }
    attention = {f"attention.self.{part}": square for part in ("query", "key", "value")}
    parts = attention | {
        "attention.output.dense": square,
        "attention.output.LayerNorm": norm,
        "intermediate.dense": (3072, 768),
        "output.dense": (768, 3072),
        "output.LayerNorm": norm,
    }
    return names | layer_names("encoder.layer.", 6, parts)


def jina_names() -> dict[str, tuple[int, ...]]:
    """jina-embeddings-v3: 24 layers of width 1024, 250002 tokens, rotary positions (config.json of the repository)."""
    norm, square = (1024,), (1024, 1024)
    names = {
        "embeddings.word_embeddings.weight": (250002, 1024),
        "embeddings.token_type_embeddings.weight": (1, 1024),
        "embeddings.LayerNorm.weight": norm,
        "embeddings.LayerNorm.bias": norm,
        "pooler.dense.weight": square,
        "pooler.dense.bias": norm,
    }
    parts = {f"self_attn.{part}_proj": square for part in "qkvo"}
    parts |= {"mlp.fc1": (4096, 1024), "mlp.fc2": (1024, 4096)}
    parts |= {"post_attention_layernorm": norm, "post_mlp_layernorm": norm}
    return names | layer_names("layers.", 24, parts)


def clip_names() -> dict[str, tuple[int, ...]]:
    """CLIP ViT-B/32: Radford et al. 2021, tables 19 and 20; names as in openai/clip-vit-base-patch32."""
    names: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "text_projection.weight": (512, 512),
        "visual_projection.weight": (512, 768),
        "text_model.embeddings.token_embedding.weight": (49408, 512),
        "text_model.embeddings.position_embedding.weight": (77, 512),
        "vision_model.embeddings.class_embedding": (768,),
        "vision_model.embeddings.patch_embedding.weight": (768, 3, 32, 32),
        "vision_model.embeddings.position_embedding.weight": (50, 768),
    }
    norms = {"text_model.final_layer_norm": 512, "vision_model.pre_layrnorm": 768, "vision_model.post_layernorm": 768}
    names |= {f"{norm}.{part}": (width,) for norm, width in norms.items() for part in ("weight", "bias")}
    for tower, width in (("text", 512), ("vision", 768)):
        parts = {f"self_attn.{part}": (width, width) for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
        parts |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        parts |= {"layer_norm1": (width,), "layer_norm2": (width,)}
        names |= layer_names(f"{tower}_model.encoder.layers.", 12, parts)
    return names


def real(encoder: str) -> torch.nn.Module:
    """The real configuration on the meta device."""
    from transformers.models.clip import CLIPConfig, CLIPModel
    from transformers.models.jina_embeddings_v3 import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model
    from transformers.models.roberta import RobertaConfig, RobertaModel

    with torch.device("meta"):
        if encoder == ROBERTA:
            config = RobertaConfig(
                vocab_size=50265, num_hidden_layers=6, max_position_embeddings=514, type_vocab_size=1
            )
            return RobertaModel(config, add_pooling_layer=False)
        if encoder == JINA:
            return JinaEmbeddingsV3Model(JinaEmbeddingsV3Config())
        return CLIPModel(CLIPConfig())


@pytest.mark.slow  # the first import of transformers takes seconds
@pytest.mark.parametrize(
    ("encoder", "names", "parameters"),
    [(ROBERTA, roberta_names(), 81_527_808), (JINA, jina_names(), 559_364_096), (CLIP, clip_names(), 151_277_313)],
)
def test_the_real_network_has_the_published_tensors_and_loads_them_strictly(
    encoder: str, names: dict[str, tuple[int, ...]], parameters: int
) -> None:
    network = real(encoder)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == names
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    network.load_state_dict({n: torch.empty(s, device="meta") for n, s in names.items()}, strict=True, assign=True)


def test_the_published_file_sizes_are_those_of_the_tensors() -> None:
    """A safetensors file is its tensors and a header of at most 0.1 MB; sizes of the hub's pages."""

    def values(names: dict[str, tuple[int, ...]]) -> int:
        return sum(int(np.prod(shape)) for shape in names.values())

    clip_file = next(f for f in load_entries()[CLIP].files if f.name == "model.safetensors")
    assert 0 < clip_file.bytes - 4 * values(clip_names()) < 100_000
    # The first publication of Jina v3 holds the adapters of its 5 tasks in the same file, all in bfloat16; there query,
    # key and value are one map.
    per_layer = [(1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024)]
    maps = [(250002, 1024), (1, 1024), (1024, 1024), *(24 * per_layer)]
    adapters = 5 * sum(ADAPTER_RANK * (a + b) for a, b in maps)
    assert 0 < 1_144_685_320 - 2 * (values(jina_names()) + adapters) < 100_000
    classifier = 768 * 768 + 768 + 7 * 768 + 7
    assert round(4 * (values(roberta_names()) + classifier) / 1e6) == 328  # "329 MB" with the header and rounding up


# --- loading ---


def test_files_under_older_names_give_the_features_of_the_plain_classes(tiny: Path) -> None:
    from transformers.models.roberta import RobertaConfig, RobertaModel

    network, model = roberta.load(tiny / ROBERTA, "float32", FIRST_STATE)
    plain = RobertaModel(RobertaConfig.from_json_file(tiny / ROBERTA / "config.json"), add_pooling_layer=False).eval()
    weights = load_file(tiny / ROBERTA / "model.safetensors")
    plain.load_state_dict({n: weights[f"roberta.{n}"] for n in plain.state_dict()})
    ids = torch.tensor([[0, 7, 9, 2]])
    with torch.inference_mode():
        states = plain(input_ids=ids).last_hidden_state
        assert torch.equal(model(ids), states[:, 0])
        mean = roberta.load(tiny / ROBERTA, "float32", MEAN)[1](ids)
    np.testing.assert_allclose(mean.numpy(), states.numpy().mean(1), atol=1e-6)
    assert not any(p.requires_grad for p in network.parameters()) and not network.training


def test_the_names_of_the_first_publication_of_jina_are_read(tiny: Path, tmp_path: Path) -> None:
    network, model = jina.load(tiny / JINA, "float32", FIRST_STATE)
    published = load_file(tiny / JINA / "model.safetensors")
    again = published_jina_names(network.state_dict())
    assert again.keys() == published.keys()
    assert all(torch.equal(again[n], published[n].float()) for n in again)
    shutil.copytree(tiny / JINA, tmp_path / JINA)
    save_file(dict(network.state_dict()), tmp_path / JINA / "model.safetensors", metadata={"format": "pt"})
    ids = torch.tensor([[0, 5, 2]])
    assert torch.equal(jina.load(tmp_path / JINA, "float32", FIRST_STATE)[1](ids), model(ids))  # the native names too


def test_the_adapter_is_merged_as_in_the_naive_formula(tiny: Path) -> None:
    plain, _ = jina.load(tiny / JINA, "float32", FIRST_STATE)
    merged, _ = jina.load(tiny / JINA, "float32", MEAN)
    before, after = plain.state_dict(), merged.state_dict()
    factors = load_file(tiny / JINA / "classification_adapter_model.safetensors")
    changed = {n.removeprefix("base_model.model.").split(".lora")[0] for n in factors}
    assert changed == {
        n.removesuffix(".weight") for n in before if n.endswith(".weight") and "ayer" not in n.split(".")[-2]
    } - {n.removesuffix(".weight") for n in before if "norm" in n.lower()}
    for module in changed:
        kind = "lora_embedding_{}" if "embeddings" in module else "lora_{}.weight"
        a, b = (factors[f"base_model.model.{module}.{kind.format(f)}"].double().numpy() for f in "AB")
        naive = np.einsum("or,ri->oi", b, a) * ADAPTER_ALPHA / ADAPTER_RANK
        naive = naive.T if "embeddings" in module else naive
        difference = (after[f"{module}.weight"] - before[f"{module}.weight"]).numpy()
        np.testing.assert_allclose(difference, naive, atol=1e-6)
        assert np.abs(naive).max() > 1e-3


def test_an_adapter_that_does_not_fit_is_told_in_a_line(tiny: Path, tmp_path: Path) -> None:
    file = "classification_adapter_model.safetensors"
    good = load_file(tiny / JINA / file)
    first = min(good)
    for number, (adapter, line) in enumerate(
        (
            ({n: v for n, v in good.items() if n != first}, "does not fit the encoder at"),
            (good | {"base_model.model.layers.0.q.bias": torch.zeros(2)}, "the adapter has the unknown tensor"),
            (
                good | {f"base_model.model.layers.9.mlp.fc1.lora_{f}.weight": torch.zeros(4, 4) for f in "AB"},
                "layers.9",
            ),
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(tiny / JINA, folder)
        save_file(adapter, folder / file)
        with pytest.raises(CerError, match=line) as caught:
            jina.load(folder, "float32", MEAN)
        assert "\n" not in caught.value.line()


@pytest.mark.parametrize("encoder", [ROBERTA, JINA, CLIP])
def test_a_file_that_does_not_fit_is_told_in_a_line(tiny: Path, tmp_path: Path, encoder: str) -> None:
    weights = load_file(tiny / encoder / "model.safetensors")
    wrong = next(n for n, v in weights.items() if v.ndim == 2 and "embeddings" in n and v.is_floating_point())
    cases = {
        "lacks": {n: v for n, v in weights.items() if n != wrong},
        "unknown tensor": weights | {"surplus.weight": torch.zeros(2)},
        "another shape": weights | {wrong: torch.zeros(3, 3, dtype=weights[wrong].dtype)},
    }
    for name, changed in cases.items():
        folder = tmp_path / name.split()[0]
        shutil.copytree(tiny / encoder, folder)
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CerError, match=name) as caught:
            LOADERS[encoder](folder, "float32", FIRST_STATE)
        assert "\n" not in caught.value.line()


def test_loading_prints_nothing_and_leaves_the_settings_of_transformers(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity()
    roberta.load(tiny / ROBERTA, "float32", MEAN)  # whose file holds a classifier that is not used
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == before


def test_bfloat16_is_near_float32(tiny: Path) -> None:
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    for features in (FIRST_STATE, MEAN):
        single, half = (jina.load(tiny / JINA, p, features)[1](ids).float() for p in ("float32", "bfloat16"))
        assert not torch.equal(single, half)
        assert torch.nn.functional.cosine_similarity(single, half).item() > 0.999


def test_a_text_is_cut_with_its_end_token_and_never_padded(tiny: Path) -> None:
    for encoder in LOADERS:
        tokenizer = load_tokenizer(tiny / encoder, 10)
        short, long = tokenizer.encode(TEXT).ids, tokenizer.encode("angry " * 50).ids
        assert len(short) < len(long) == 10
        assert (short[0], short[-1]) == (long[0], long[-1])


def test_clip_pools_the_end_token_so_that_tokens_behind_it_change_nothing(tiny: Path) -> None:
    ids = load_tokenizer(tiny / CLIP, 77).encode(TEXT).ids
    for features in (POOLED, PROJECTED):
        _, model = clip.load(tiny / CLIP, "float32", features)
        with torch.inference_mode():
            alone, padded = (model(torch.tensor([row])) for row in (ids, ids + [ids[-1]] * 5))
        assert torch.allclose(alone, padded, atol=1e-5)
    with torch.inference_mode():
        projected = clip.load_model(tiny / CLIP).get_text_features(input_ids=torch.tensor([ids])).pooler_output
    assert torch.allclose(model(torch.tensor([ids])), projected, atol=1e-6)


def test_items_of_different_lengths_keep_their_order_in_batches_of_equal_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [torch.full((n,), float(n)) for n in (3, 1, 3, 2, 1)]
    expected = np.array([[9.0], [1], [9], [4], [1]], np.float32)
    shapes: list[tuple[int, ...]] = []

    def model(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        return batch.sum(1, keepdim=True)

    run = Runner(torch.nn.Identity(), model, {"device": "cpu", "batch": 2, "threads": 2})
    assert np.array_equal(run(items), expected)
    assert all(shape[0] == 1 for shape in shapes)

    def in_batches(function: Any, part: list[torch.Tensor], size: int, _: torch.device) -> torch.Tensor:
        assert size == 2
        return function(torch.stack(part))

    shapes.clear()
    monkeypatch.setattr("cer_pipeline.branches.encoders.pretrained.run_in_batches", in_batches)
    run.device = torch.device("meta")  # any device but the CPU
    assert np.array_equal(run(items), expected)
    assert shapes == [(2, 3), (2, 1), (1, 2)]


# --- heads ---


@pytest.mark.parametrize("dense", [False, True])
def test_probabilities_equal_a_naive_computation(tmp_path: Path, dense: bool) -> None:
    recipe = RECIPES["scene_roberta"]
    classes = ["Happiness", "Neutral", "Anger"]
    rng = np.random.default_rng(5)
    tensors = {
        "linear.weight": rng.normal(size=(3, 768)).astype(np.float32),
        "linear.bias": np.array([1, 2, 3], np.float32),
    }
    if dense:
        tensors |= {"dense.weight": rng.normal(size=(768, 768)) / 30, "dense.bias": rng.normal(size=768)}
    meta = {"encoder": ROBERTA, "features": FIRST_STATE, "classes": classes}
    save_head(tmp_path / "h.safetensors", tensors, meta)
    x = rng.normal(size=768).astype(np.float32)
    hidden = x.astype(float)
    if dense:
        hidden = np.tanh(
            [sum(w * v for w, v in zip(row, hidden, strict=True)) for row in tensors["dense.weight"]]
            + tensors["dense.bias"]
        )
    naive = softmax([float(hidden @ tensors["linear.weight"][i]) + float(tensors["linear.bias"][i]) for i in range(3)])
    got = LinearHead.load(recipe, tmp_path / "h.safetensors").probabilities(x)
    assert got.sum() == pytest.approx(1)
    assert [got[BASIC.index(c)] for c in classes] == pytest.approx(list(naive))
    assert got[BASIC.index("Other")] == 0


@pytest.mark.parametrize(
    ("change_of", "line"),
    [
        (
            {"encoder": JINA},
            "the head reads first_state of jina_v3, scene_roberta has first_state of emotion_distilroberta",
        ),
        ({"features": MEAN}, "the head reads mean of emotion_distilroberta"),
        ({"classes": ["Joy"]}, "the head does not name its classes"),
        ({"classes": ["Anger", "Fear"]}, "do not fit 768 features and 2 classes"),
    ],
)
def test_a_head_of_another_encoder_is_refused_in_a_line(tmp_path: Path, change_of: dict, line: str) -> None:
    path = head_of("scene_roberta", tmp_path, **change_of)
    with pytest.raises(CerError, match=line) as caught:
        LinearHead.load(RECIPES["scene_roberta"], path)
    assert caught.value.line().endswith("run `cer train scene_roberta`")
    assert "\n" not in caught.value.line()


def test_changed_tensors_are_merged_strictly(tiny: Path) -> None:
    network, model = roberta.load(tiny / ROBERTA, "float32", MEAN)
    ids = torch.tensor([[0, 5, 2]])
    before = model(ids)
    name = "encoder.layer.0.output.dense.weight"
    new = np.asarray(network.state_dict()[name]) + 0.5
    change(network, {name: new.astype(np.float16)}, "head_x")
    assert torch.allclose(network.state_dict()[name], torch.from_numpy(new), atol=1e-3)
    assert not torch.allclose(model(ids), before)
    for wrong, line in (
        ({"nowhere": new}, "no such tensor"),
        ({name: new[:3]}, r"\[3, 32\], the encoder has \[768, 32\]"),
    ):
        with pytest.raises(CerError, match=line) as caught:
            change(network, wrong, "head_x")
        assert "\n" not in caught.value.line()


# --- stages ---

VIEW, ANOTHER = "qwen2.5-vl-7b_prompt1", "qwen2.5-vl-32b_prompt1"


def inputs_of(source: str, texts: list[dict[str, Any]]) -> MemoryInputs:
    spec = tables.CAPTIONS if source == "captions" else tables.TRANSCRIPTS
    return MemoryInputs({source: rows(spec, texts)})


def run(spec: StageSpec, inputs: MemoryInputs, weights: Weights, counters: Counter[str] | None = None) -> list[dict]:
    """The rows of a stage for its whole plan, kept in the inputs."""
    context = StageContext(PROFILE, weights, inputs, Counter() if counters is None else counters)
    made = spec.load()(context)(spec.plan(inputs, PROFILE))
    inputs.tables[spec.name] = made.cast(spec.table.schema)
    return made.to_pylist()


@pytest.mark.parametrize("name", RECIPES)
def test_every_text_gets_features_and_probabilities(name: str, tiny: Path, tmp_path: Path) -> None:
    branch, source = shipped()[name], shipped()[name].features.inputs[0]
    view = {"view": VIEW} if source == "captions" else {"language": "en"}
    texts = [TEXT, "She looks happy, in a place with other people.", "", TEXT]
    made = [segment("v", i) | view | {"text": text} for i, text in enumerate(texts)]
    inputs = inputs_of(source, [*made, segment("v", 4) | view | {"status": "no_speech", "reason": "silence"}])
    weights = Weights(tiny, {f"head_{name}": head_of(name, tmp_path)})
    counters: Counter[str] = Counter()
    features = run(branch.features, inputs, weights, counters)
    assert [row["status"] for row in features] == ["ok"] * 4 + ["no_speech"]
    assert features[0]["features"] == features[3]["features"] != features[1]["features"]
    assert counters == {f"calls/{RECIPES[name].encoder}": 3}
    predicted = run(branch.probabilities, inputs, weights)
    head = LinearHead.load(RECIPES[name], weights.path(f"head_{name}"))
    for row, known in zip(predicted[:4], features[:4], strict=True):
        assert row["model"] == f"head_{name}"
        p = head.probabilities(np.array(known["features"], np.float32))
        assert [row[c] for c in BASIC_COLUMNS] == pytest.approx(p.tolist())
    assert (predicted[4]["status"], predicted[4]["reason"]) == ("no_speech", "silence")


def test_several_views_have_the_mean_of_their_features_so_that_logits_are_averaged(tiny: Path, tmp_path: Path) -> None:
    branch = shipped()["scene_clip"]
    weights = Weights(tiny, {"head_scene_clip": head_of("scene_clip", tmp_path)})

    def features(*views: tuple[str, str]) -> np.ndarray:
        made = [segment("v", 0) | {"view": view, "text": text} for view, text in views]
        (row,) = run(branch.features, inputs_of("captions", made), weights)
        return np.array(row["features"])

    one, two = features((VIEW, TEXT)), features((ANOTHER, "The woman looks sad."))
    both = features((VIEW, TEXT), (ANOTHER, "The woman looks sad."), ("describer", "The eyes are closed."))
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)
    head = LinearHead.load(RECIPES["scene_clip"], weights.path("head_scene_clip"))
    geometric = np.sqrt(head.probabilities(one) * head.probabilities(two))  # the mean of logits
    np.testing.assert_allclose(head.probabilities(both), geometric / geometric.sum(), atol=1e-5)


@pytest.mark.parametrize(("name", "status"), [("text_jina", "ok"), ("text_roberta", "not_english")])
def test_only_jina_reads_other_languages_than_english(name: str, status: str) -> None:
    row = segment("v", 0) | {"text": "Ich bin traurig.", "language": "de"}
    (planned,) = shipped()[name].features.plan(inputs_of("transcripts", [row]), PROFILE).to_pylist()
    assert planned["status"] == status
    assert name == "text_jina" or planned["reason"] == "the words are de, and RoBERTa reads English only"


def test_a_fine_tuned_head_changes_the_features(tiny: Path, tmp_path: Path) -> None:
    branch = shipped()["scene_roberta"]
    inputs = inputs_of("captions", [segment("v", 0) | {"view": VIEW, "text": TEXT}])
    name = "encoder.layer.0.output.dense.bias"
    plain = run(branch.features, inputs, Weights(tiny))
    shifted = head_of("scene_roberta", tmp_path, dense=True, changed={name: np.linspace(-1, 1, 768)})
    tuned = run(branch.features, inputs, Weights(tiny, {"head_scene_roberta": shifted}))
    assert not np.allclose(plain[0]["features"], tuned[0]["features"], atol=0.01)
    (row,) = run(branch.probabilities, inputs, Weights(tiny, {"head_scene_roberta": shifted}))
    assert sum(row[c] for c in BASIC_COLUMNS) == pytest.approx(1)
    unknown = head_of("scene_roberta", tmp_path, changed={"layers.0.weight": np.zeros(2)})
    with pytest.raises(CerError, match="no such tensor"):
        run(branch.features, inputs, Weights(tiny, {"head_scene_roberta": unknown}))


def test_features_do_not_depend_on_threads_or_on_other_texts(tiny: Path) -> None:
    branch = shipped()["text_roberta"]
    texts = [TEXT, "I am happy.", "no", "you are afraid . " * 8]

    def features(profile_threads: int, chosen: list[str]) -> dict[str, list[float]]:
        profile = load_profile("paper", overrides=[f"execution.threads={profile_threads}"])
        made = [segment("v", i) | {"text": text, "language": "en"} for i, text in enumerate(chosen)]
        inputs = inputs_of("transcripts", made)
        context = StageContext(profile, Weights(tiny), inputs)
        table = branch.features.load()(context)(branch.features.plan(inputs, profile))
        return dict(zip(chosen, table.column("features").to_pylist(), strict=True))

    whole = features(1, texts)
    assert features(3, texts[::-1]) == dict(reversed(whole.items()))
    assert features(1, texts[:1]) == {TEXT: whole[TEXT]}


def test_the_section_of_the_branch_enters_the_key_of_its_features_alone() -> None:
    for branch in BRANCHES:
        assert branch.features.config == (branch.name,)
        assert branch.probabilities.config == ()
        assert branch.features.models == (RECIPES[branch.name].encoder,)
        assert branch.probabilities.models == (f"head_{branch.name}",)
    assert [branch.table1 for branch in BRANCHES] == [6, 7, 8, 11, 12, 13]
    assert [PROFILE[name]["max_tokens"] for name in RECIPES] == [192, 192, 77, 1024, 512, 77]


@pytest.fixture
def pinned(tiny: Path, tmp_path: Path) -> Zoo:
    """The zoo with the tiny encoders in a local folder, pinned as a user pins them; a public digest is replaced."""
    zoo = open_zoo({"CER_MODELS": str(tiny), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)})
    for encoder in LOADERS:
        entry = zoo.entries[encoder]
        files = [replace(f, bytes=0, sha256=sha256_of(tiny / encoder / f.name)) for f in entry.files]
        zoo.entries[encoder] = replace(entry, files=tuple(files))
    return zoo


def test_without_a_head_or_an_encoder_the_rows_say_what_is_missing_and_what_brings_it(
    tmp_path: Path, pinned: Zoo
) -> None:
    branch, home = shipped()["scene_roberta"], Home(tmp_path / "home")
    inputs = inputs_of("captions", [segment("v", 0) | {"view": VIEW, "text": TEXT}])

    def rows_of(spec: StageSpec, zoo: Zoo) -> list[dict]:
        materialise(spec, home, inputs, PROFILE, zoo, run_chunks, "run")
        inputs.tables[spec.name] = read_table(home.table(spec.name, "demo", "s000")).select(spec.table.schema.names)
        return inputs.tables[spec.name].to_pylist()

    bare = open_zoo({"XDG_CACHE_HOME": str(tmp_path / "none"), "HOME": str(tmp_path)})
    (absent,) = rows_of(branch.features, bare)
    assert absent["status"] == "model_unavailable" and "cer models pin emotion_distilroberta" in absent["reason"]
    (made,) = rows_of(branch.features, pinned)
    assert made["status"] == "ok"
    (untrained,) = rows_of(branch.probabilities, pinned)
    assert untrained["status"] == "model_unavailable" and "run `cer train scene_roberta`" in untrained["reason"]
    assert all(untrained[c] is None for c in BASIC_COLUMNS)


def test_a_wrong_digest_ends_in_a_line(pinned: Zoo, tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny / CLIP, tmp_path / "own" / CLIP)
    (tmp_path / "own" / CLIP / "config.json").write_text("{}")
    pinned.local = tmp_path / "own"
    with pytest.raises(CerError, match=r"wrong SHA-256: expected .*, found .*config\.json"):
        pinned.path(CLIP)
    with pytest.raises(ModelUnavailable, match="cer models pull jina_v3"):
        pinned.path(JINA)


def test_real_captions_pass_through_the_scene_branches(tiny: Path, tmp_path: Path, shared_data: Path) -> None:
    file = shared_data / "captions" / "AFEW" / "qwen2.5-vl-32b_prompt1_dev.csv"
    with file.open(encoding="utf-8", newline="") as handle:
        texts = [row["text"] for row, _ in zip(csv.DictReader(handle), range(12), strict=False)]
    made = [segment("v", i) | {"view": ANOTHER, "text": text} for i, text in enumerate(texts)]
    for name in ("scene_jina", "scene_roberta", "scene_clip"):
        inputs = inputs_of("captions", made)
        weights = Weights(tiny, {f"head_{name}": head_of(name, tmp_path)})
        features = run(shipped()[name].features, inputs, weights)
        predicted = run(shipped()[name].probabilities, inputs, weights)
        assert len({json.dumps(row["features"]) for row in features}) == len(set(texts)) == 12
        assert all(row["status"] == "ok" for row in predicted)


def test_the_options_of_loading_reach_the_network(tiny: Path) -> None:
    with pytest.raises(CerError, match="lacks pooler"):
        load_pretrained("roberta.RobertaModel", tiny / ROBERTA, "float32", roberta.UNUSED, add_pooling_layer=True)
