"""Parakeet TDT through transformers: English words with times.

Belongs here: loading, greedy decoding of a token-and-duration transducer, words from tokens. Does not belong here:
which sound is transcribed and which words are kept (`asr`), or NeMo (`parakeet_nemo`).

Sources: Xu et al. 2023, "Efficient Sequence Transduction by Jointly Predicting Tokens and Durations" (decoding); Rekesh
et al. 2023, "Fast Conformer with Linearly Scalable Attention for Efficient Speech Recognition" (encoder, one state for
80 ms). `generate` of transformers decodes in the same way, but returns no probabilities, and `asr` needs them to drop
invented words.

The encoder's attention is not limited here. The paper's limit of 128 states on each side is longer than any window, and
about 10 s; `transcripts_parakeet.runtime = "nemo"` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.perception.speech.language import ENGLISH
from cer_pipeline.perception.speech.word import Word
from cer_pipeline.sound_file import SAMPLE_RATE_HZ
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.torchvision_ops import prepare_torchvision

if TYPE_CHECKING:
    import torch

WORD_START: Final = "▁"  # SentencePiece marks the first piece of a word
SHORTEST: Final = 1600  # samples, 0.1 s: the features are normalised over time, for which one state is too few


@dataclass(frozen=True)
class Token:
    """A piece of a word with its probability, first state and the state after its last one."""

    piece: str
    probability: float
    start: int
    end: int


class Parakeet:
    """The recogniser.

    Args:
        folder: folder with config.json, model.safetensors, processor_config.json and the tokenizer.
        device: where the model runs.

    Raises:
        CerError: the folder holds no such model, or a model of another sampling rate.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        import torch

        prepare_torchvision()
        from transformers import ParakeetFeatureExtractor, ParakeetForTDT, ParakeetTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # a run shows its own
        logging.set_verbosity_error()  # the tensors are compared below
        loaded: Any
        try:
            self._features = ParakeetFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self._tokenizer: Any = ParakeetTokenizer.from_pretrained(folder, local_files_only=True)
            loaded = ParakeetForTDT.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CerError(f"Parakeet cannot be loaded ({reason})", str(folder), "run `cer models verify`") from None
        model, report = loaded
        if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]}):
            raise CerError(f"not the tensors of Parakeet: {wrong[0]}", str(folder), "run `cer models verify`")
        if self._features.sampling_rate != SAMPLE_RATE_HZ:
            rate = self._features.sampling_rate
            raise CerError(
                f"a model for sound at {rate} Hz, not {SAMPLE_RATE_HZ} Hz", str(folder), "run `cer models verify`"
            )
        self._model: Any = model.eval().to(device)
        self._device = device
        factor = model.config.encoder_config.subsampling_factor
        self._state_s = self._features.hop_length * factor / SAMPLE_RATE_HZ

    def __call__(self, sound: NDArray[np.float32], language: str = ENGLISH) -> list[Word]:  # noqa: ARG002
        """Words of a sound, with times from its start.

        Args:
            sound: mono, 16 kHz, -1..1.
            language: ignored; the model knows English only.
        """
        if len(sound) < SHORTEST:
            return []
        tokens = self._tokens(sound)
        return [
            Word(word.word, word.start_s, min(word.end_s, len(sound) / SAMPLE_RATE_HZ), word.probability)
            for word in words_of(tokens, self._state_s)
        ]

    def _tokens(self, sound: NDArray[np.float32]) -> list[Token]:
        import torch

        inputs = self._features([sound], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").to(self._device)
        with one_thread(), torch.inference_mode():
            encoded = self._model.get_audio_features(**inputs, output_attention_mask=True)
            states = encoded.pooler_output[:, : int(encoded.attention_mask.sum())]
            emitted = greedy(self._model, states)
        special = set(self._tokenizer.all_special_ids)
        pieces = self._tokenizer.convert_ids_to_tokens([token for token, *_ in emitted])
        return [
            Token(piece, probability, start, start + duration)
            for piece, (token, probability, start, duration) in zip(pieces, emitted, strict=True)
            if token not in special
        ]


def greedy(model: Any, states: torch.Tensor) -> list[tuple[int, float, int, int]]:
    """Decode a transducer greedily: at each state the likeliest token, then on by the likeliest duration.

    A blank advances by one state at least. After `max_symbols_per_step` tokens without an advance, decoding goes on to
    the next state, as in NeMo.

    Args:
        model: ParakeetForTDT.
        states: projected states of the encoder of one sound, [1, t, d].

    Returns:
        For each token but the blank: its id, its probability among the tokens, its state, its duration in states.
    """
    import torch
    from transformers.models.parakeet.generation_parakeet import ParakeetRNNTDecoderCache

    config = model.config
    start = model.generation_config.decoder_start_token_id
    token = config.blank_token_id if start is None else start
    cache = ParakeetRNNTDecoderCache(config)
    found: list[tuple[int, float, int, int]] = []
    at = without_advance = 0
    while at < states.shape[1]:
        predicted = model.decoder(torch.tensor([[token]], device=states.device), cache=cache)
        joint = model.joint(decoder_hidden_states=predicted, encoder_hidden_states=states[:, at : at + 1])[0, 0]
        probabilities = joint[: config.vocab_size].softmax(-1)
        token = int(probabilities.argmax())
        duration = int(config.durations[int(joint[config.vocab_size :].argmax())])
        if token == config.blank_token_id:
            duration = max(1, duration)
        else:
            found.append((token, float(probabilities[token]), at, duration))
        without_advance = 0 if duration else without_advance + 1
        if without_advance >= config.max_symbols_per_step:
            duration, without_advance = 1, 0
        at += duration
    return found


def words_of(tokens: Sequence[Token], state_s: float) -> list[Word]:
    """Tokens as words: a piece that begins with the mark of a word, and the pieces up to the next one.

    The probability of a word is the mean of its tokens', as faster-whisper has it. Punctuation does not lengthen a
    word: its duration is silence.

    Args:
        tokens: in order.
        state_s: time of a state, s.
    """
    groups: list[list[Token]] = []
    for token in tokens:
        if token.piece.startswith(WORD_START) or not groups:
            groups.append([])
        groups[-1].append(token)
    words = []
    for group in groups:
        text = "".join(token.piece for token in group).replace(WORD_START, " ")
        spoken = [token for token in group if any(c.isalnum() for c in token.piece)] or group
        mean = sum(token.probability for token in group) / len(group)
        if text.strip():
            words.append(Word(text, group[0].start * state_s, spoken[-1].end * state_s, mean))
    return words
