"""A small random Parakeet TDT in the form of its zoo entry."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetTDTConfig,
    ParakeetTokenizer,
)

from cer_pipeline.perception.speech.recognisers import PARAKEET

PIECES = (
    "<unk>",
    "<pad>",
    "▁the",
    "▁sad",
    "▁I",
    "ly",
    "ness",
    ".",
    ",",
    "▁happy",
    "▁am",
    "er",
    "▁it",
    "s",
    "?",
    "<blank>",
)
BLANK = len(PIECES) - 1


def tiny_parakeet(folder: Path, seed: int = 1) -> Path:
    """Write `<folder>/parakeet_tdt_06b` with the files of its zoo entry; return that folder."""
    torch.manual_seed(seed)
    encoder = ParakeetEncoderConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        subsampling_conv_channels=8,
        num_mel_bins=128,
        attention_bias=False,
        convolution_bias=False,
        scale_input=False,
    )
    config = ParakeetTDTConfig(
        vocab_size=len(PIECES),
        blank_token_id=BLANK,
        pad_token_id=1,
        decoder_hidden_size=16,
        encoder_config=encoder.to_dict(),
    )
    model = ParakeetForTDT(config)
    with torch.no_grad():  # larger weights, so that tokens and durations vary from state to state
        for name, parameter in model.named_parameters():
            if name.startswith(("encoder_projector", "decoder", "joint")):
                parameter.normal_(0, 1)
    model.generation_config.decoder_start_token_id = BLANK
    path = folder / PARAKEET
    model.save_pretrained(path)
    plain = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(PIECES)}, merges=[], unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    plain.decoder = decoders.Metaspace()
    tokenizer = ParakeetTokenizer(
        tokenizer_object=plain, unk_token="<unk>", pad_token="<pad>", additional_special_tokens=["<blank>"]
    )
    ParakeetProcessor(ParakeetFeatureExtractor(feature_size=128), tokenizer, decoder_type="tdt").save_pretrained(path)
    return path
