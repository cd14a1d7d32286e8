"""The captioner behind a server: windows -> requests with pictures -> captions, several at a time.

Belongs here: what is asked for a window, back-pressure, and the rows that come of answers. Does not belong here: HTTP
(`client`), prompts (`prompts`), what an answer is (`quality`).

Pictures are read and encoded only when a request may be sent, so that memory holds those of `captions.connections`
windows. A window without an answer is `failed`, and the next run asks for it again; all other windows of its video are
then answered from the cache.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import groupby
from threading import Thread
from typing import Any, Final

import cv2

from cer_pipeline.perception.captions.captioner import Caption, Segment, status_without_pictures, with_frames
from cer_pipeline.perception.captions.endpoint.client import AnswerCache, ChatClient, Completion, EndpointError, Limits
from cer_pipeline.perception.captions.prompts import VERSION, prompt_text, view_name
from cer_pipeline.perception.captions.quality import STATUS, Answer, assess, labels_in
from cer_pipeline.perception.jpeg import decode_jpeg, encode_jpeg
from cer_pipeline.profiles.sections import CaptionsEndpoint
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status
from cer_pipeline.store.home import default_home

JPEG_QUALITY: Final = 85  # of 100: no visible block edges, half the bytes of 95
SEED: Final = 0  # with temperature 0 a server's answers are as repeatable as it can make them
CACHE: Final = "answers"  # folder below the home

GIVE_UP_AFTER: Final = 8
"""Requests that fail in a row, each after its retries, before the rest of the run is not asked for."""

_Pending = dict[Future[Completion], tuple[Segment, str]]


class EndpointCaptioner:
    """Windows -> one caption a prompt, by the model of `captions_endpoint.model`."""

    def __init__(self, context: StageContext, settings: CaptionsEndpoint) -> None:
        reach = context.profile["captions"]
        self._context = context
        self._settings = settings
        self._connections: int = reach["connections"]
        limits = Limits(reach["timeout_s"], reach["retries"], reach["backoff_s"], self._connections)
        self._client = ChatClient(reach["url"], os.environ.get(reach["key_variable"], ""), limits)
        self._url: str = reach["url"]
        self._cache = AnswerCache(default_home().root / CACHE)
        self._checked = False
        self._failures = 0  # in a row
        self._down = ""  # why no request can succeed in this run; empty while one may

    def __call__(self, segments: Sequence[Segment]) -> Iterator[Caption]:
        """One caption for each segment and prompt, in the order in which answers arrive."""
        pending: _Pending = {}
        for segment, prompt, payload in self._requests(segments):
            if isinstance(payload, Caption):
                yield payload
            elif (answer := self._cache.get(payload)) is not None:
                self._count("captions/from_cache")
                yield self._caption(segment, prompt, answer)
            elif self._cannot_answer():
                yield self._failed(segment, prompt, self._down)
            else:
                pending[_in_thread(self._ask, payload)] = segment, prompt
                while len(pending) >= self._connections:
                    yield from self._finished(pending)
        while pending:
            yield from self._finished(pending)

    def _requests(self, segments: Sequence[Segment]) -> Iterator[tuple[Segment, str, Any]]:
        """Segment, prompt, and the request, or the caption where there is no picture to send."""
        for _, group in groupby(segments, lambda s: s.video_id):
            encoded: dict[int, str] = {}
            for segment, frames in with_frames(self._context.inputs, list(group)):
                shown = {f["sample"]: f["jpeg"] for f in frames if f["status"] == Status.OK}
                # Windows overlap: what the window before has sent is not encoded again.
                encoded = {k: encoded.get(k) or _picture(shown[k], self._settings.picture_px) for k in shown}
                pictures = list(encoded.values())
                for prompt in self._settings.prompts:
                    if pictures:
                        yield segment, prompt, self._payload(prompt, pictures, segment.end_s - segment.start_s)
                    else:
                        status, reason = status_without_pictures(frames), "the window has no picture"
                        yield segment, prompt, self._without_text(segment, prompt, status, reason)

    def _payload(self, prompt: str, pictures: Sequence[str], seconds: float) -> dict[str, Any]:
        text = {"type": "text", "text": prompt_text(prompt, len(pictures), seconds)}
        images = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        return {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": [*images, text]}],
            "max_tokens": self._settings.max_tokens,
            "temperature": 0,
            "seed": SEED,
        }

    def _ask(self, payload: dict[str, Any]) -> Completion:
        """Answer of the server; kept at once, since it is paid for whatever becomes of the run."""
        answer = self._client.complete(payload)
        self._cache.put(payload, answer)
        return answer

    def _cannot_answer(self) -> bool:
        """Whether no request can succeed; the server is asked for its models before the first request."""
        if not self._checked:
            self._checked = True
            wanted = self._settings.model
            try:
                served = self._client.models()
            except EndpointError as error:
                self._give_up(error)
            else:
                if served is not None and wanted not in served:
                    names = ", ".join(served) or "no model"
                    self._down = f"{self._url} serves {names}, not {wanted}: set captions_endpoint.model"
        return bool(self._down)

    def _give_up(self, error: EndpointError) -> None:
        start = f": start one (`vllm serve {self._settings.model}`) or set captions.url, then run again"
        self._down = f"{error}{start if error.down else ''}"

    def _finished(self, pending: _Pending) -> Iterator[Caption]:
        """Captions of the requests that have finished; waits for at least one."""
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            segment, prompt = pending.pop(future)
            self._count("calls/captions_endpoint")
            try:
                answer = future.result()
            except EndpointError as error:
                self._failures += 1
                if error.down or self._failures >= GIVE_UP_AFTER:
                    self._give_up(error)
                yield self._failed(segment, prompt, self._down or str(error))
                continue
            self._failures = 0
            for name in ("prompt_tokens", "completion_tokens", "retries"):
                self._count(f"captions/{name}", getattr(answer, name))
            yield self._caption(segment, prompt, answer)

    def _caption(self, segment: Segment, prompt: str, answer: Completion) -> Caption:
        settings = self._settings
        kind = assess(answer.text, answer.finish_reason, settings.longest_words, refused=answer.refused)
        self._count(f"captions/{kind}")
        if kind is Answer.OK:
            self._count("captions/with_exactly_one_label", len(labels_in(answer.text)) == 1)
            view = view_name(settings.model, prompt)
            return Caption(segment, view, answer.text, f"{prompt}/{VERSION}", settings.model)
        return self._without_text(segment, prompt, STATUS[kind], f"{kind}: {_shown(answer.text)}")

    def _failed(self, segment: Segment, prompt: str, reason: str) -> Caption:
        self._count("captions/without_answer")
        return self._without_text(segment, prompt, Status.FAILED, reason)

    def _without_text(self, segment: Segment, prompt: str, status: str, reason: str) -> Caption:
        view = view_name(self._settings.model, prompt)
        return Caption(segment, view, None, f"{prompt}/{VERSION}", self._settings.model, str(status), reason)

    def _count(self, name: str, n: int = 1) -> None:
        self._context.counters[name] += int(n)


def _in_thread(call: Callable[[dict[str, Any]], Completion], payload: dict[str, Any]) -> Future[Completion]:
    """The call in a daemon thread; an executor would keep an interrupted process until all answers have come."""
    future: Future[Completion] = Future()

    def run() -> None:
        try:
            future.set_result(call(payload))
        except Exception as error:  # noqa: BLE001 - whoever reads the result gets it
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _picture(jpeg: bytes, longest_px: int) -> str:
    """A stored picture as a data URL, shrunk to at most `longest_px` on its longer side.

    Raises:
        ValueError: the picture is no JPEG.
    """
    image = decode_jpeg(jpeg)
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, JPEG_QUALITY)).decode()


def _shown(text: str) -> str:
    """The start of an answer, for a reason."""
    return text[:80] + ("..." if len(text) > 80 else "") if text else "the answer has no word"
