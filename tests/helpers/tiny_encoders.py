"""Tiny random weights of the text and image encoders of the model hub, under the file names of their zoo entries.

The widths are the real ones, since the tables fix the number of features; there is one layer, and the words are few.
The tensors have the names of the published files, older ones included.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from cer_pipeline.branches.encoders.specs import RECIPES
from cer_pipeline.labels import BASIC
from cer_pipeline.zoo.head_file import save_head

WORDS = [
    "a",
    "photo",
    "of",
    "person",
    "with",
    "who",
    "is",
    "neutral",
    "calm",
    "angry",
    "disgusted",
    "fearful",
    "frightened",
    "afraid",
    "happy",
    "sad",
    "surprised",
    "face",
    "the",
    "man",
    "woman",
    "appears",
    "looks",
    "and",
    "in",
    "scene",
    "he",
    "she",
    "it's",
    "i",
    "am",
    "not",
    "you",
    "this",
    "that",
    "no",
    "yes",
    ".",
    ",",
    "other",
    "place",
    "people",
]
ADAPTER_RANK, ADAPTER_ALPHA = 4, 1  # as published
LAYERS = 1


def _tokenizer(folder: Path, start: str, end: str, padding: str, first: tuple[str, ...]) -> int:
    """Write tokenizer.json: words by white space, with a start and an end token; return the size of the vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    last = tuple(t for t in (start, end) if t not in first)  # CLIP's are the last of its vocabulary
    vocabulary = {token: i for i, token in enumerate((*first, "<unk>", *dict.fromkeys(WORDS), *last))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    if padding:
        tokenizer.enable_padding(pad_token=padding, pad_id=vocabulary[padding], length=40)  # to be switched off
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def _fill(folder: Path, names: tuple[str, ...]) -> None:
    """Write the files of an entry that nothing here reads."""
    for name in names:
        (folder / name).write_text("{}\n", "utf-8")


def tiny_emotion_distilroberta(folder: Path) -> None:
    """Write `emotion_distilroberta` as `RobertaForSequenceClassification` with 7 classes, as published."""
    from transformers.models.roberta import RobertaConfig, RobertaForSequenceClassification

    size = _tokenizer(folder, "<s>", "</s>", "<pad>", ("<s>", "<pad>", "</s>"))
    config = RobertaConfig(
        vocab_size=size, num_hidden_layers=LAYERS, intermediate_size=32, max_position_embeddings=514,
        type_vocab_size=1, bos_token_id=0, pad_token_id=1, eos_token_id=2, layer_norm_eps=1e-5,
    )  # fmt: skip
    config.num_labels = 7
    torch.manual_seed(0)
    weights = dict(RobertaForSequenceClassification(config).state_dict())
    weights["roberta.embeddings.position_ids"] = torch.arange(514)[None]  # a constant of older files
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json_string(), "utf-8")
    _fill(folder, ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"))


def tiny_jina_v3(folder: Path) -> None:
    """Write `jina_v3` under the tensor names of its first publication, and its adapter as PEFT writes it."""
    from transformers.models.jina_embeddings_v3 import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

    size = _tokenizer(folder, "<s>", "</s>", "<pad>", ("<s>", "<pad>", "</s>"))
    config = JinaEmbeddingsV3Config(vocab_size=size, num_hidden_layers=LAYERS, intermediate_size=32)
    torch.manual_seed(1)
    network = JinaEmbeddingsV3Model(config)
    weights = published_jina_names(network.state_dict())
    save_file({n: v.bfloat16() for n, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json_string(), "utf-8")
    adapter = {}
    for name, module in network.named_modules():
        embedding = isinstance(module, torch.nn.Embedding)
        if not embedding and not isinstance(module, torch.nn.Linear):
            continue
        rows, columns = module.weight.shape
        inputs, outputs = (rows, columns) if embedding else (columns, rows)
        factors = torch.randn(ADAPTER_RANK, inputs) / 10, torch.randn(outputs, ADAPTER_RANK) / 10
        endings = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        adapter |= {f"base_model.model.{name}.{e}": f.bfloat16() for e, f in zip(endings, factors, strict=True)}
    save_file(adapter, folder / "classification_adapter_model.safetensors", metadata={"format": "pt"})
    options = {"r": ADAPTER_RANK, "lora_alpha": ADAPTER_ALPHA, "peft_type": "LORA"}
    (folder / "classification_adapter_config.json").write_text(json.dumps(options), "utf-8")
    _fill(folder, ("tokenizer_config.json",))


def published_jina_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the native class under the names of jinaai/jina-embeddings-v3: query, key and value in one."""
    renamed = (
        ("embeddings.LayerNorm", "emb_ln"),
        ("layers.", "encoder.layers."),
        ("self_attn.o_proj", "mixer.out_proj"),
        ("post_attention_layernorm", "norm1"),
        ("post_mlp_layernorm", "norm2"),
    )
    out = {}
    for name, value in weights.items():
        new = name
        for own, published in renamed:
            new = new.replace(own, published)
        if "self_attn.q_proj" in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            out[new.replace("self_attn.q_proj", "mixer.Wqkv")] = torch.cat(parts)
        elif "self_attn." not in new:
            out[new] = value.clone()
    return out


def tiny_clip_vit_b32(folder: Path) -> None:
    """Write `clip_vit_b32`: both towers with one layer, pictures of 64 pixels in patches of 32."""
    from transformers.models.clip import CLIPConfig, CLIPModel

    size = _tokenizer(folder, "<|startoftext|>", "<|endoftext|>", "", ())
    text = {
        "vocab_size": size, "hidden_size": 512, "intermediate_size": 32, "num_hidden_layers": LAYERS,
        "num_attention_heads": 8, "bos_token_id": 0, "eos_token_id": 2, "projection_dim": 512,
    }  # fmt: skip
    vision = {
        "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 32, "projection_dim": 512,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    torch.manual_seed(2)
    weights = dict(CLIPModel(config).state_dict())
    weights["logit_scale"] = torch.tensor(4.6052)  # the published value: a factor of 100
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json_string(), "utf-8")
    _fill(folder, ("preprocessor_config.json",))


def tiny_linear_head(path: Path, branch: str) -> None:
    """Write a random linear head of a branch over texts."""
    recipe, rng = RECIPES[branch], np.random.default_rng(3)
    tensors = {"linear.weight": rng.normal(size=(len(BASIC), recipe.size)), "linear.bias": rng.normal(size=len(BASIC))}
    save_head(path, tensors, {"encoder": recipe.encoder, "features": recipe.features, "classes": list(BASIC)})
