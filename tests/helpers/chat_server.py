"""A server on loopback that speaks the OpenAI protocol of chat completions, as well or badly as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
CAPTION = "The brows of the person are raised and the mouth opens; the surroundings of the room are dark."
Reply = Callable[["Server", dict[str, Any], int], Any]


def answer(text: str | None = CAPTION, finish: str = "stop", model: str = MODEL, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    return {"model": model, "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}


class Server:
    """A chat completions server; `reply` maps (server, payload, index of the request) to status, body and headers."""

    def __init__(self, reply: Reply = lambda *_: (200, answer()), models: tuple[str, ...] = (MODEL,), port: int = 0):
        self.reply, self.names = reply, models
        self.payloads: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.respond(200, {"data": [{"id": name} for name in server.names]})

            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    index = len(server.payloads)
                    server.payloads.append(payload)
                    server.headers.append(dict(self.headers))
                    server.active += 1
                    server.most_active = max(server.most_active, server.active)
                try:
                    self.respond(*server.reply(server, payload, index))
                finally:
                    with server.lock:
                        server.active -= 1

            def respond(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...  # a client that hangs up is part of the tests

        self.http = Quiet(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
