"""A client of OpenAI-compatible chat completions: requests, retries, time limits, and a cache of answers.

Belongs here: HTTP and the cache. Does not belong here: prompts (`prompts`), pictures and rows (`captioner`).

Retries are urllib3's: exponential back-off with jitter on 429, 5xx and failed connections; `Retry-After` is obeyed.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from cer_pipeline.store.files import commit_bytes

CONNECT_S: Final = 10.0  # a server that does not accept a connection in that time is taken for down
RETRIED: Final = (408, 409, 429, 500, 502, 503, 504)  # HTTP statuses of a server that is busy or starting
LARGEST_BYTES: Final = 1 << 22  # of an answer: a caption has some kilobytes
CHUNK_BYTES: Final = 1 << 16
SHOWN_CHARACTERS: Final = 160  # of a server's error message
PICTURES: Final = 20  # of a window: 4 s at 5 Hz
HEALTH_S: Final = 10.0  # for the list of models, which needs no computation
DATED: Final = r"-\d{4}-?\d{2}-?\d{2}"  # "gpt-4o" answers as "gpt-4o-2024-08-06"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class EndpointError(Exception):
    """The server gave no answer; the message is one line.

    Args:
        message: what happened.
        down: whether the server could not be reached at all.
    """

    def __init__(self, message: str, *, down: bool = False) -> None:
        super().__init__(" ".join(message.split()))
        self.down = down


class WrongModel(EndpointError):
    """The server has, or has answered with, another model than the one that was asked for."""


@dataclass(frozen=True)
class Completion:
    """An answer.

    Args:
        text: the answer with single blanks, maybe empty.
        finish_reason: why the model stopped: "stop", "length", "content_filter", ...
        refused: whether the server marks the answer as a refusal.
        prompt_tokens: tokens of the request, pictures included; 0 where the server does not count.
        completion_tokens: tokens of the answer; 0 where the server does not count.
        retries: requests that failed before this one.
    """

    text: str
    finish_reason: str
    refused: bool
    prompt_tokens: int
    completion_tokens: int
    retries: int = 0


@dataclass(frozen=True)
class Limits:
    """How long and how often the client tries.

    Args:
        timeout_s: time for one request, from sending it to the end of its answer, s.
        retries: further requests after one that failed.
        backoff_s: waiting time before the first of them, doubled with each, plus as much at random, s.
        connections: requests at a time.
    """

    timeout_s: float
    retries: int
    backoff_s: float
    connections: int


class ChatClient:
    """One server. Methods may be called from several threads; a context manager.

    Args:
        url: address up to and with the version, such as "http://127.0.0.1:8000/v1".
        key: bearer token; empty for none.
        limits: see `Limits`.
    """

    def __init__(self, url: str, key: str, limits: Limits) -> None:
        self._url = url.rstrip("/")
        self._limits = limits
        retry = Retry(
            total=limits.retries,
            allowed_methods=None,  # POST as well: asking again has no effect but its cost
            status_forcelist=RETRIED,
            backoff_factor=limits.backoff_s,
            backoff_jitter=limits.backoff_s,
            retry_after_max=int(limits.timeout_s),
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.trust_env = urlsplit(url).hostname not in LOOPBACK  # no proxy between this machine and itself
        self._session.auth = _Bearer(key)  # set even without a key: else ~/.netrc would be sent
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=limits.connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def models(self) -> list[str] | None:
        """Names of the models that the server has; None where it does not list them.

        Raises:
            EndpointError: no server, or one that refuses the key.
        """
        status, body, _ = self._send("GET", "/models", None)
        if status in (401, 403):
            raise EndpointError(_refusal(status, body))
        try:
            return [model["id"] for model in _json(body)["data"]] if status == requests.codes.ok else None
        except (ValueError, KeyError, TypeError):
            return None

    def complete(self, payload: dict[str, Any]) -> Completion:
        """Send a chat completion.

        Args:
            payload: the body of POST /chat/completions.

        Raises:
            EndpointError: no answer after all retries, or one that is no chat completion.
            WrongModel: another model than `payload["model"]` has answered.
        """
        status, body, retries = self._send("POST", "/chat/completions", payload)
        if status != requests.codes.ok:
            raise EndpointError(_refusal(status, body))
        try:
            answer = _json(body)
            if not same_model(payload.get("model"), answer.get("model")):
                raise WrongModel(
                    f"{self._url} answered with {_shown(str(answer['model']).encode())}, not {payload['model']}"
                )
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            message = choice["message"]
            content = message.get("content") or ""
            if not isinstance(content, str):
                raise TypeError("content is no text")
            return Completion(
                text=" ".join(content.split()),
                finish_reason=str(choice.get("finish_reason") or ""),
                refused=bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter",
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                completion_tokens=int(usage.get("completion_tokens") or 0),
                retries=retries,
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise EndpointError(f"the answer of {self._url} is no chat completion: {_shown(body)}") from None

    def _send(self, method: str, path: str, payload: dict[str, Any] | None) -> tuple[int, bytes, int]:
        """HTTP status, body and number of retries.

        urllib3 asks again where an answer has not begun; an answer that was cut off is asked for again here.
        """
        limits = self._limits
        for attempt in range(limits.retries + 1):
            try:
                status, body, retries = self._send_once(method, self._url + path, payload)
                return status, body, retries + attempt
            except requests.exceptions.ChunkedEncodingError:
                if attempt < limits.retries:
                    time.sleep(limits.backoff_s * 2**attempt)
        raise EndpointError(f"the answer of {self._url} was cut off")

    def _send_once(self, method: str, url: str, payload: dict[str, Any] | None) -> tuple[int, bytes, int]:
        limits = self._limits
        try:
            with self._session.request(
                method, url, json=payload, timeout=(CONNECT_S, limits.timeout_s), stream=True, allow_redirects=False
            ) as response:
                history = getattr(response.raw.retries, "history", ())
                return response.status_code, _body(response, limits.timeout_s), len(history)
        except requests.exceptions.ChunkedEncodingError:
            raise
        except (requests.ConnectTimeout, requests.ConnectionError) as error:
            timed_out = "timed out" in str(error) and not isinstance(error, requests.ConnectTimeout)
            if timed_out:
                raise EndpointError(f"no answer from {self._url} within {limits.timeout_s:g} s") from None
            raise EndpointError(f"no server answers at {self._url}", down=True) from None
        except requests.Timeout:
            raise EndpointError(f"no answer from {self._url} within {limits.timeout_s:g} s") from None
        except requests.RequestException as error:
            raise EndpointError(f"{url}: {type(error).__name__}: {error}") from None


def same_model(asked: Any, answered: Any) -> bool:
    """Whether a server that names `answered` has used the model `asked`.

    A server that names no model is trusted. Hosted models answer with the date of their version behind the name.
    """
    return not answered or answered == asked or bool(re.fullmatch(rf"{re.escape(str(asked))}{DATED}", str(answered)))


def problem_of(url: str, served: Sequence[str] | None, model: str) -> str:
    """Why a server cannot answer for a model, in one line; empty where it can.

    Args:
        url: address of the server.
        served: names of its models; None where it does not list them.
        model: the wanted one.
    """
    if served is None or model in served:
        return ""
    return f"{url} serves {', '.join(served) or 'no model'}, not {model}: set captions_endpoint.models"


def serve_command(model: str) -> str:
    """The command that starts vLLM with a model for requests of one window."""
    return f"vllm serve {model} --limit-mm-per-prompt '{{\"image\": {PICTURES}}}'"


def health(url: str, model: str, key: str) -> str:
    """One line on a server that can answer for a model.

    Args:
        url: address up to and with the version.
        model: the wanted one.
        key: bearer token; empty for none.

    Raises:
        EndpointError: no server answers, or it refuses the key.
        WrongModel: it serves other models.
    """
    with ChatClient(url, key, Limits(HEALTH_S, 0, 0, 1)) as client:
        served = client.models()
    if problem := problem_of(url, served, model):
        raise WrongModel(problem)
    return f"{url} serves {model}" if served is not None else f"{url} answers, and does not list its models"


class _Bearer(AuthBase):
    """Authorization by a bearer token; none for an empty one."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _body(response: requests.Response, timeout_s: float) -> bytes:
    """The body, within a time limit for all of it: the library's limits are for each read alone."""
    until = time.monotonic() + timeout_s
    parts: list[bytes] = []
    for part in response.iter_content(CHUNK_BYTES):
        parts.append(part)
        if time.monotonic() > until:
            raise requests.Timeout
        if sum(map(len, parts)) > LARGEST_BYTES:
            raise requests.RequestException(f"the answer has more than {LARGEST_BYTES} bytes")
    return b"".join(parts)


def _refusal(status: int, body: bytes) -> str:
    """One line on an HTTP status that is not 200, with the server's own message where it has one."""
    message = ""
    with contextlib.suppress(ValueError, AttributeError):
        error = _json(body)
        error = error.get("error") or error.get("message") or error.get("detail") or ""
        message = str(error.get("message") if isinstance(error, dict) else error)
    hint = "; is the key right?" if status in (401, 403) else ""
    return f"the server answered HTTP {status}: {_shown(message.encode() or body)}{hint}"


def _json(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        ValueError: there is none, or one of too many levels.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("too many levels") from None


def _shown(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())[:SHOWN_CHARACTERS] or "(empty)"


class AnswerCache:
    """Answers on disk by the digest of their request, so that none is paid for twice; addresses do not count.

    Args:
        folder: one file an answer, written whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Completion | None:
        """The kept answer to a request; None where there is none, or its file is damaged."""
        try:
            return Completion(**json.loads(self._file(key).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: str, answer: Completion) -> None:
        """Keep an answer."""
        commit_bytes(self._file(key), json.dumps(asdict(answer), ensure_ascii=False).encode())

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
