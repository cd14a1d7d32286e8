"""The captioner `transformers`: windows -> captions by a model in this process.

Belongs here: which windows are asked together, and the counters. Does not belong here: the model (`model`), prompts
(`captions.prompts`), or the captions of answers (`captions.answers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.perception.captions.answers import Request, windows_with_pictures
from cer_pipeline.perception.captions.captioner import Caption, Segment
from cer_pipeline.perception.captions.prompts import prompt_text
from cer_pipeline.perception.captions.qwen_vl.model import Question, load
from cer_pipeline.perception.captions.registry import QWEN_VL
from cer_pipeline.profiles import EXECUTION
from cer_pipeline.profiles.sections import CaptionsTransformers
from cer_pipeline.stage import StageContext
from cer_pipeline.torch_batches import choose_device
from cer_pipeline.torch_threads import one_thread


class QwenVLCaptioner:
    """Windows -> one caption a prompt."""

    def __init__(self, context: StageContext, settings: CaptionsTransformers) -> None:
        self._inputs = context.inputs
        self._counters = context.counters
        self._settings = settings
        self._batch: int = context.profile[EXECUTION]["batch"]
        device = choose_device(context.profile[EXECUTION]["device"])
        zoo = settings.model
        folder = context.weights.path(zoo)
        self._model = load(folder, context.weights.digest(zoo) or "", str(device), settings.precision)

    def __call__(self, segments: Sequence[Segment]) -> Iterator[Caption]:
        """One caption for each segment and prompt."""
        waiting: list[tuple[Request, Question]] = []
        for segment, pictures, status in windows_with_pictures(self._inputs, segments, self._settings.picture_px, _rgb):
            for prompt in self._settings.prompts:
                request = Request(segment, QWEN_VL[self._settings.model], prompt)
                if not pictures:
                    yield request.without_text(status, "the window has no picture")
                    continue
                text = prompt_text(prompt, len(pictures), segment.end_s - segment.start_s)
                waiting.append((request, Question(list(pictures.values()), text)))
                if len(waiting) >= self._batch:
                    yield from self._answered(waiting)
                    waiting = []
        yield from self._answered(waiting)

    def _answered(self, waiting: Sequence[tuple[Request, Question]]) -> Iterator[Caption]:
        with one_thread():  # a sum over threads would depend on their number; a GPU is not concerned
            replies, self._batch = self._model.answer([q for _, q in waiting], self._settings.max_tokens, self._batch)
        for (request, _), reply in zip(waiting, replies, strict=True):
            self._counters[f"calls/{self._settings.model}"] += 1
            self._counters["captions/prompt_tokens"] += reply.prompt_tokens
            self._counters["captions/completion_tokens"] += reply.completion_tokens
            yield request.caption(reply.text, reply.finish_reason, self._settings.longest_words, self._counters)


def _rgb(bgr: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(bgr[..., ::-1])
