"""The caption of an answer of a vision-language model, and the pictures that it is asked about.

Belongs here: what every captioner with prompts does before and after its model. Does not belong here: the prompts
(`prompts`), what an answer is (`quality`), or a model (`endpoint`, `qwen_vl`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, TypeVar

import cv2
from numpy.typing import NDArray

from cer_pipeline.perception.captions.captioner import Caption, Segment, status_without_pictures, with_frames
from cer_pipeline.perception.captions.prompts import VERSION, view_name
from cer_pipeline.perception.captions.quality import STATUS, Answer, assess, labels_in
from cer_pipeline.perception.jpeg import decode_jpeg
from cer_pipeline.stage import Inputs
from cer_pipeline.status import Status

SHOWN_CHARACTERS: Final = 80  # of an answer that is no caption, in the reason of its row

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A window that a model is asked about.

    Args:
        segment: the window.
        model: name of the model in the tables, such as "Qwen/Qwen2.5-VL-7B-Instruct".
        prompt: id of the prompt.
    """

    segment: Segment
    model: str
    prompt: str

    def caption(
        self, text: str, finish_reason: str, longest_words: int, counters: Counter[str], *, refused: bool = False
    ) -> Caption:
        """The caption of an answer, or why it is none; counts what it is.

        Args:
            text: the answer with single blanks.
            finish_reason: "length" where the model reached the largest number of tokens.
            longest_words: words from which an answer is too long.
            counters: counts below "captions/".
            refused: whether the server marks the answer as a refusal.
        """
        kind = assess(text, finish_reason, longest_words, refused=refused)
        counters[f"captions/{kind}"] += 1
        if kind is not Answer.OK:
            return self.without_text(STATUS[kind], f"{kind}: {_shown(text)}")
        counters["captions/with_exactly_one_label"] += len(labels_in(text)) == 1
        return Caption(self.segment, self.view, text, f"{self.prompt}/{VERSION}", self.model)

    def without_text(self, status: str, reason: str) -> Caption:
        """A caption without a text."""
        return Caption(self.segment, self.view, None, f"{self.prompt}/{VERSION}", self.model, str(status), reason)

    @property
    def view(self) -> str:
        """The view of the model and the prompt."""
        return view_name(self.model, self.prompt)


def windows_with_pictures(
    inputs: Inputs, segments: Sequence[Segment], longest_px: int, convert: Callable[[NDArray[Any]], T]
) -> Iterator[tuple[Segment, dict[int, T], str]]:
    """Pair every window with its pictures; those of one window at a time lie in memory.

    Args:
        inputs: tables of the shard, `frames` among them.
        segments: windows, in key order.
        longest_px: longer side that pictures are shrunk to.
        convert: BGR uint8 [height, width, 3] -> what is wanted of a picture; windows overlap, and it is called once for
            each picture of the video.

    Yields:
        The window, its pictures by sample, and the status of a window without pictures.

    Raises:
        ValueError: a stored picture is no JPEG.
    """
    for _, group in groupby(segments, lambda s: s.video_id):
        before: dict[int, T] = {}
        for segment, frames in with_frames(inputs, list(group)):
            jpegs = {f["sample"]: f["jpeg"] for f in frames if f["status"] == Status.OK}
            before = {
                sample: before[sample] if sample in before else convert(_shrunk(decode_jpeg(jpeg), longest_px))
                for sample, jpeg in jpegs.items()
            }
            yield segment, before, "" if before else status_without_pictures(frames)


def _shrunk(image: NDArray[Any], longest_px: int) -> NDArray[Any]:
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _shown(text: str) -> str:
    """The start of an answer, for a reason."""
    return (
        text[:SHOWN_CHARACTERS] + ("..." if len(text) > SHOWN_CHARACTERS else "") if text else "the answer has no word"
    )
