"""Parakeet TDT through NeMo (extra `asr`): English words with times, with local attention.

Belongs here: loading and one transcription. Does not belong here: which sound is transcribed and which words are kept
(`asr`), or Parakeet through transformers (`parakeet`).

NeMo is imported where the model is loaded, since it is not part of the core set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.perception.speech.language import ENGLISH
from cer_pipeline.perception.speech.parakeet import SHORTEST
from cer_pipeline.perception.speech.word import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class NemoParakeet:
    """The recogniser.

    Args:
        archive: the file parakeet-tdt-0.6b-v2.nemo.
        local_attention: states that the encoder attends to, before and after each; the paper has 128 and 128.
        device: where the model runs.

    Raises:
        CerError: NeMo is not installed.
    """

    def __init__(self, archive: Path, local_attention: Sequence[int], device: torch.device) -> None:
        try:
            import nemo.collections.asr as nemo_asr  # pyright: ignore[reportMissingImports]
            from omegaconf import open_dict  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            where = 'transcripts_parakeet.runtime = "nemo"'
            then = "install the extra asr: pip install 'cer-pipeline[asr]'"
            raise CerError(f"nemo_toolkit does not load ({error})", where, then) from None
        model: Any = nemo_asr.models.ASRModel.restore_from(restore_path=str(archive), map_location=device)
        # As in the published code: local attention, and no chunks in the convolutions.
        model.change_attention_model("rel_pos_local_attn", list(local_attention))
        model.change_subsampling_conv_chunking_factor(1)
        decoding = model.cfg.decoding
        with open_dict(decoding):  # word probability: mean over the tokens of the greatest probability
            decoding.preserve_alignments = True
            decoding.confidence_cfg = {
                "preserve_token_confidence": True,
                "preserve_word_confidence": True,
                "exclude_blank": True,
                "aggregation": "mean",
                "method_cfg": {"name": "max_prob"},
            }
        model.change_decoding_strategy(decoding)
        self._model = model.eval()

    def __call__(self, sound: NDArray[np.float32], language: str = ENGLISH) -> list[Word]:  # noqa: ARG002
        """Words of a sound, with times from its start.

        Args:
            sound: mono, 16 kHz, -1..1.
            language: ignored; the model knows English only.

        Raises:
            CerError: this version of NeMo returns no word probabilities.
        """
        if len(sound) < SHORTEST:
            return []
        (found,) = self._model.transcribe([sound], batch_size=1, return_hypotheses=True, timestamps=True, verbose=False)
        stamps, confidences = found.timestamp["word"], found.word_confidence
        if confidences is None or len(confidences) != len(stamps):
            what = "this version of NeMo returns no probability for every word"
            raise CerError(what, 'transcripts_parakeet.runtime = "nemo"', 'set it to "transformers"')
        return [
            Word(f" {stamp['word']}", float(stamp["start"]), float(stamp["end"]), float(confidence))
            for stamp, confidence in zip(stamps, confidences, strict=True)
        ]
