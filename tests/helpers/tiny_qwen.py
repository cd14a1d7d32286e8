"""A tiny Qwen2.5-VL or Qwen3-VL with the files of its zoo entry, which answers with one English sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText

from cer_pipeline.zoo.entries import load_entries

SENTENCE = "The person is smiling and their eyes look narrow with joy that lifts his cheeks."
"""No token of it occurs twice: the model maps every token to the next."""
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN = 128  # so many that random vectors of the few hundred tokens are nearly orthogonal


def tiny_qwen(folder: Path, model: str = "qwen25_vl_7b", *, ends: bool = True, seed: int = 0) -> Path:
    """Write the files of a zoo entry into a folder.

    Args:
        folder: made where it is not there.
        model: zoo id.
        ends: whether the model ends its answer; otherwise it repeats the sentence.
        seed: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    bpe = json.loads(tokenizer.to_str())["model"]
    pairs = [" ".join(m) if isinstance(m, list) else m for m in bpe["merges"]]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]))
    _write(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    )
    _write(folder, "chat_template.json", {"chat_template": TEMPLATE})
    third = model.startswith("qwen3")
    mean, std = (
        ([0.5] * 3, [0.5] * 3)
        if third
        else (
            [0.48145466, 0.4578275, 0.40821073],
            [0.26862954, 0.26130258, 0.27577711],
        )
    )
    picture = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 16 if third else 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": mean,
        "image_std": std,
    }
    _write(folder, "preprocessor_config.json", picture)
    ends_at = tokenizer.token_to_id("<|im_end|>")
    _write(folder, "generation_config.json", {"eos_token_id": [ends_at, tokenizer.token_to_id("<|endoftext|>")]})
    _write(folder, "config.json", _config(tokenizer, third))
    _write_weights(folder, model, tokenizer, ends, seed)
    names = {file.name for file in load_entries()[model].files}
    if "video_preprocessor_config.json" in names:
        _write(folder, "video_preprocessor_config.json", picture)
    assert names == {path.name for path in folder.iterdir()}
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, special_tokens=list(SPECIAL))  # type: ignore[call-arg]
    tokenizer.train_from_iterator([SENTENCE], trainer)
    return tokenizer


def _config(tokenizer: Tokenizer, third: bool) -> dict[str, Any]:
    ids = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    text = {
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": tokenizer.get_vocab_size(),
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [4, 6, 6]},
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": 16 if third else 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    text |= {"bos_token_id": None, "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    common = {name: tokenizer.token_to_id(token) for name, token in ids.items()}
    if third:
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16, "in_channels": 3}
        text |= {"head_dim": 32}
        kind = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]}
        return kind | common | {"text_config": text, "vision_config": vision, "tie_word_embeddings": False}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1], "in_chans": 3, "tokens_per_second": 2}
    kind = {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    return kind | common | text | {"vision_config": vision}  # the published form: text settings on the top level


def _write_weights(folder: Path, model: str, tokenizer: Tokenizer, ends: bool, seed: int) -> None:
    torch.manual_seed(seed)
    network: Any = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    weights = network.state_dict()
    vectors = torch.nn.functional.normalize(torch.randn(tokenizer.get_vocab_size(), HIDDEN), dim=1)
    weights["model.language_model.embed_tokens.weight"] = vectors
    # The largest logit after a token is that of the next one: layers of small random weights barely turn its vector.
    chain = [tokenizer.encode("\n").ids[-1], *tokenizer.encode(SENTENCE).ids]
    assert len(set(chain)) == len(chain)
    head = 0.01 * torch.randn(tokenizer.get_vocab_size(), HIDDEN)
    for token, after in zip(
        chain, [*chain[1:], tokenizer.token_to_id("<|im_end|>") if ends else chain[1]], strict=True
    ):
        head[after] += 10 * vectors[token]
    weights["lm_head.weight"] = head
    if not model.startswith("qwen3"):  # the published files have the names of an earlier version
        weights = {
            name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor
            for name, tensor in weights.items()
        }
    files = sorted(file.name for file in load_entries()[model].files if file.name.endswith(".safetensors"))
    index = {name: files[i % len(files)] for i, name in enumerate(weights)}
    for file in files:
        part = {name: tensor.clone().bfloat16() for name, tensor in weights.items() if index[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(2 * tensor.numel() for tensor in weights.values())
    _write(folder, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, indent=1))


def tiny_qwen_32b(folder: Path) -> None:
    """Write the files of the zoo entry of the 32B model."""
    tiny_qwen(folder, "qwen25_vl_32b")
