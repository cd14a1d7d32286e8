"""The captioner behind servers: windows -> requests with pictures -> captions, several at a time.

Belongs here: what is asked for a window, back-pressure, and the cost. Does not belong here: HTTP (`client`), prompts
(`prompts`), or the captions of answers (`answers`).

Pictures are read and encoded only when a request may be sent, so that memory holds those of `captions.connections`
windows. A window without an answer is `failed`, and the next run asks for it again; all other windows of its video are
then answered from the cache. Of equal requests, such as those of a still video, one is sent.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final

from numpy.typing import NDArray

from cer_pipeline.perception.captions.answers import Request, windows_with_pictures
from cer_pipeline.perception.captions.captioner import Caption, Segment
from cer_pipeline.perception.captions.endpoint.client import (
    AnswerCache,
    ChatClient,
    Completion,
    EndpointError,
    Limits,
    WrongModel,
    problem_of,
    serve_command,
)
from cer_pipeline.perception.captions.prompts import prompt_text
from cer_pipeline.perception.jpeg import encode_jpeg
from cer_pipeline.profiles.sections import CaptionsEndpoint
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import digest_json
from cer_pipeline.store.home import default_home

JPEG_QUALITY: Final = 85  # of 100: no visible block edges, half the bytes of 95
SEED: Final = 0  # with temperature 0 a server's answers are as repeatable as it can make them
CACHE: Final = "answers"  # folder below the home

GIVE_UP_AFTER: Final = 8
"""Requests that fail in a row, each after its retries, before a model is not asked for the rest of the run."""

_Pending = dict[Future[Completion], list[Request]]


@dataclass
class _Server:
    """One model and the server that has it.

    Args:
        model: name of the model on the server.
        url: address of the server.
        client: connection to it.
        price: price of a million tokens, of requests and of answers.
        checked: whether the server was asked for its models.
        failures: failed requests in a row.
        down: why no request can succeed in this run; empty while one may.
    """

    model: str
    url: str
    client: ChatClient
    price: tuple[float, float]
    checked: bool = False
    failures: int = 0
    down: str = ""

    def cannot_answer(self) -> bool:
        """Whether no request can succeed; the server is asked for its models before the first request."""
        if not self.checked:
            self.checked = True
            try:
                served = self.client.models()
            except EndpointError as error:
                self.give_up(error)
            else:
                self.down = problem_of(self.url, served, self.model)
        return bool(self.down)

    def failed(self, error: EndpointError) -> None:
        """Note a failed request, and give up where the next ones cannot succeed either."""
        self.failures += 1
        if error.down or isinstance(error, WrongModel) or self.failures >= GIVE_UP_AFTER:
            self.give_up(error)

    def give_up(self, error: EndpointError) -> None:
        """Ask no more in this run."""
        start = f": start one (`{serve_command(self.model)}`) or set captions.url, then run again"
        self.down = f"{error}{start if error.down else ''}"


class EndpointCaptioner:
    """Windows -> one caption for each of `captions_endpoint.models` and each prompt."""

    def __init__(self, context: StageContext, settings: CaptionsEndpoint) -> None:
        reach = context.profile["captions"]
        self._inputs = context.inputs
        self._counters = context.counters
        self._settings = settings
        self._connections: int = reach["connections"]
        limits = Limits(reach["timeout_s"], reach["retries"], reach["backoff_s"], self._connections)
        key = os.environ.get(reach["key_variable"], "")
        self._servers: dict[str, _Server] = {}
        for model in settings.models:
            url = reach["urls"].get(model, reach["url"])
            price = reach["prices"].get(model, (0.0, 0.0))
            self._servers[model] = _Server(model, url, ChatClient(url, key, limits), tuple(price))
        self._cache = AnswerCache(default_home().root / CACHE)

    def __call__(self, segments: Sequence[Segment]) -> Iterator[Caption]:
        """One caption for each segment, model and prompt, in the order in which answers arrive."""
        pending: _Pending = {}
        sent: dict[str, Future[Completion]] = {}
        for request, payload in self._requests(segments):
            if isinstance(payload, Caption):
                yield payload
                continue
            key = digest_json(payload)
            if (future := sent.get(key)) in pending:
                self._counters["captions/duplicates"] += 1
                pending[future].append(request)
            elif (answer := self._cache.get(key)) is not None:
                self._counters["captions/from_cache"] += 1
                yield self._caption(request, answer)
            elif self._servers[request.model].cannot_answer():
                yield self._failed(request, self._servers[request.model].down)
            else:
                sent[key] = _in_thread(self._ask, request.model, key, payload)
                pending[sent[key]] = [request]
                while len(pending) >= self._connections:
                    yield from self._finished(pending)
        while pending:
            yield from self._finished(pending)

    def _requests(self, segments: Sequence[Segment]) -> Iterator[tuple[Request, dict[str, Any] | Caption]]:
        """What is asked, with the body of the request, or with the caption where there is no picture to send."""
        windows = windows_with_pictures(self._inputs, segments, self._settings.picture_px, _base64)
        for segment, pictures, status in windows:
            for model in self._settings.models:
                for prompt in self._settings.prompts:
                    request = Request(segment, model, prompt)
                    if pictures:
                        yield request, self._payload(request, pictures)
                    else:
                        yield request, request.without_text(status, "the window has no picture")

    def _payload(self, request: Request, pictures: dict[int, str]) -> dict[str, Any]:
        seconds = request.segment.end_s - request.segment.start_s
        text = {"type": "text", "text": prompt_text(request.prompt, len(pictures), seconds)}
        payload = {
            "model": request.model,
            "max_tokens": self._settings.max_tokens,
            "temperature": 0,
            "seed": SEED,
        }
        if self._settings.pictures == "video":
            content, extra = _video(request.segment, pictures)
            return payload | extra | {"messages": [{"role": "user", "content": [content, text]}]}
        images = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{p}"}} for p in pictures.values()]
        return payload | {"messages": [{"role": "user", "content": [*images, text]}]}

    def _ask(self, model: str, key: str, payload: dict[str, Any]) -> Completion:
        """Answer of the server; kept at once, since it is paid for whatever becomes of the run."""
        answer = self._servers[model].client.complete(payload)
        self._cache.put(key, answer)
        return answer

    def _finished(self, pending: _Pending) -> Iterator[Caption]:
        """Captions of the requests that have finished; waits for at least one."""
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            requests = pending.pop(future)
            server = self._servers[requests[0].model]
            self._counters["calls/captions_endpoint"] += 1
            try:
                answer = future.result()
            except EndpointError as error:
                server.failed(error)
                for request in requests:
                    yield self._failed(request, server.down or str(error))
                continue
            server.failures = 0
            for name in ("prompt_tokens", "completion_tokens", "retries"):
                self._counters[f"captions/{name}"] += getattr(answer, name)
            self._counters["captions/cost_millionths"] += round(
                answer.prompt_tokens * server.price[0] + answer.completion_tokens * server.price[1]
            )
            for request in requests:
                yield self._caption(request, answer)

    def _caption(self, request: Request, answer: Completion) -> Caption:
        longest = self._settings.longest_words
        return request.caption(answer.text, answer.finish_reason, longest, self._counters, refused=answer.refused)

    def _failed(self, request: Request, reason: str) -> Caption:
        self._counters["captions/without_answer"] += 1
        return request.without_text(Status.FAILED, reason)


def _in_thread(call: Callable[..., Completion], *arguments: Any) -> Future[Completion]:
    """The call in a daemon thread; an executor would keep an interrupted process until all answers have come."""
    future: Future[Completion] = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except Exception as error:  # noqa: BLE001 - whoever reads the result gets it
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _base64(image: NDArray[Any]) -> str:
    return base64.b64encode(encode_jpeg(image, JPEG_QUALITY)).decode()


def _video(segment: Segment, pictures: dict[int, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pictures as one video in vLLM's form: JPEGs between commas, and their times beside the messages.

    Source of the form: "Multimodal Inputs" of vLLM's documentation, video inputs, `media_io_kwargs`.
    """
    rate = segment.samples / (segment.end_s - segment.start_s)
    metadata = {
        "fps": rate,
        "frames_indices": [sample - segment.first_sample for sample in pictures],
        "total_num_frames": segment.samples,
        "duration": segment.end_s - segment.start_s,
        "do_sample_frames": False,
    }
    url = f"data:video/jpeg;base64,{','.join(pictures.values())}"
    return {"type": "video_url", "video_url": {"url": url}}, {"media_io_kwargs": {"video": metadata}}
