"""Qwen2.5-VL and Qwen3-VL through transformers: pictures and a text -> an answer, in batches.

Belongs here: loading, preprocessing, greedy decoding. Does not belong here: windows and rows (`captioner`), prompts
(`captions.prompts`).

Source of model and preprocessing: Qwen2.5-VL Technical Report, arXiv 2502.13923, section 2, and the published classes
in transformers. Pictures go through the PIL processor everywhere, so that machines with and without torchvision give
equal inputs. transformers builds its own processor class only with torchvision, so the text is put together here: the
model's chat template, with one placeholder for each merged patch of a picture.

Decoding is greedy: the highest logit, after the repetition penalty that the publisher's generation_config.json states,
as vLLM applies it too. On a GPU the answer to a request may differ with the batch that it is in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.torchvision_ops import prepare_torchvision

if TYPE_CHECKING:
    import torch

MODEL_TYPES: Final = ("qwen2_5_vl", "qwen3_vl")  # `model_type` of config.json
IMAGE: Final = "<|image_pad|>"  # placeholder of a merged patch, in the tokenizer of both models


@dataclass(frozen=True)
class Question:
    """What a model is given.

    Args:
        pictures: RGB uint8 [height, width, 3], in time order, at least one.
        text: the prompt.
    """

    pictures: Sequence[NDArray[np.uint8]]
    text: str


@dataclass(frozen=True)
class Reply:
    """What a model answers.

    Args:
        text: the answer with single blanks.
        finish_reason: "stop" where the model ended it, "length" where it reached the largest number of tokens.
        prompt_tokens: tokens of the request, pictures included.
        completion_tokens: tokens of the answer.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@lru_cache(maxsize=1)
def load(folder: Path, digest: str, device: str, precision: str) -> QwenVL:  # noqa: ARG001 - the digest is a cache key
    """The model of a folder; loaded once a process, whatever number of shards ask for it.

    Args:
        folder: files of the zoo entry.
        digest: of the files.
        device: a torch device.
        precision: number type of the weights, a name of torch.

    Raises:
        CerError: the folder holds another kind of model or other tensors than the model's, or the memory of the device
            does not suffice.
    """
    return QwenVL(folder, device, precision)


class QwenVL:
    """One model on one device. See `load` for arguments and errors."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        import torch
        from safetensors import SafetensorError

        prepare_torchvision()
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # `cer run` shows its own
        again = "run `cer models verify`, or pull the model again"
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if config.model_type not in MODEL_TYPES:
                raise CerError(f"the model is a {config.model_type}, not one of {', '.join(MODEL_TYPES)}", str(folder))
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, precision),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            model, report = loaded
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
            self._processor: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
            self._template: str = json.loads((folder / "chat_template.json").read_text("utf-8"))["chat_template"]
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CerError(f"the model cannot be loaded ({_first_line(error)})", str(folder), again) from None
        if wrong := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"]), *report["unexpected_keys"]}):
            raise CerError(f"{len(wrong)} tensors are not those of the model, {wrong[0]} first", str(folder), again)
        if self._tokenizer.convert_tokens_to_ids(IMAGE) != config.image_token_id:
            raise CerError(f"the tokenizer is not that of the model: it has another {IMAGE}", str(folder), again)
        try:
            self._model: Any = model.to(device).eval()
        except torch.OutOfMemoryError:
            raise CerError("the model does not fit into the memory of the GPU", device, _SMALLER) from None
        self._device = device

    def answer(self, questions: Sequence[Question], max_tokens: int, batch: int) -> tuple[list[Reply], int]:
        """Answer questions, several at a time where the device is no CPU.

        A batch for which the memory does not suffice is halved.

        Args:
            questions: any number.
            max_tokens: longest answer.
            batch: questions at a time on a device other than the CPU.

        Returns:
            One reply for each question, and the batch that fitted, for the next call.

        Raises:
            CerError: one question alone does not fit into the memory of the device.
        """
        import torch

        size = 1 if self._device == "cpu" else batch
        replies: list[Reply] = []
        while len(replies) < len(questions):
            try:
                replies += self._generate(questions[len(replies) : len(replies) + size], max_tokens)
            except torch.OutOfMemoryError:
                if size == 1:
                    line = "one window does not fit into the memory of the GPU"
                    raise CerError(
                        line, self._device, f"lower captions_transformers.picture_px, or {_SMALLER}"
                    ) from None
                size //= 2
                if self._device != "cpu":
                    torch.cuda.empty_cache()
        return replies, size

    def inputs(self, questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        """Tensors of the model for some questions, on the CPU; texts are padded on their left."""
        images = [picture for question in questions for picture in question.pictures]
        pixels = self._processor(images=images, return_tensors="pt", input_data_format="channels_last")
        merged = self._processor.merge_size**2
        counts = iter((pixels["image_grid_thw"].prod(1) // merged).tolist())
        texts = [self._text(question, [next(counts) for _ in question.pictures]) for question in questions]
        tokens = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        # 1 marks the tokens of pictures, from which the model computes its three-dimensional positions.
        kinds = (tokens["input_ids"] == self._tokenizer.convert_tokens_to_ids(IMAGE)).int()
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "mm_token_type_ids": kinds,
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }

    def _text(self, question: Question, patches: Sequence[int]) -> str:
        """The text of a question in the form of the model, with a placeholder for each merged patch."""
        content = [*({"type": "image"} for _ in question.pictures), {"type": "text", "text": question.text}]
        text: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
        )
        first, *others = text.split(IMAGE)
        if len(others) != len(patches):
            raise CerError("the chat template of the model has no place for every picture", f"{len(patches)} pictures")
        return first + "".join(IMAGE * n + after for n, after in zip(patches, others, strict=True))

    def _generate(self, questions: Sequence[Question], max_tokens: int) -> list[Reply]:
        import torch

        inputs = {name: tensor.to(self._device) for name, tensor in self.inputs(questions).items()}
        with torch.inference_mode():
            ids = self._model.generate(
                **inputs, max_new_tokens=max_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
            )
        ends = self._model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        lengths = inputs["attention_mask"].sum(1).tolist()
        answers = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._reply(answer, ends, length) for answer, length in zip(answers, lengths, strict=True)]

    def _reply(self, ids: list[int], ends: set[int], prompt_tokens: int) -> Reply:
        """The reply of generated tokens: those before the first that ends an answer."""
        count = next((i for i, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:count], skip_special_tokens=True)
        finish = "length" if count is None else "stop"
        return Reply(" ".join(text.split()), finish, prompt_tokens, len(ids) if count is None else count + 1)


_SMALLER: Final = "choose a smaller captions_transformers.model, or a server (captions.backend=endpoint)"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
