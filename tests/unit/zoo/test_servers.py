"""Files come from the model hub or a web server, resume after an interruption, and each refusal is one line."""

from __future__ import annotations

import hashlib
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cer_pipeline.errors import CerError
from cer_pipeline.zoo import Entry, File, Hub, Progress, Zoo
from cer_pipeline.zoo.fetch import _hub_reason

DATA = b"weights on a server" * 1000


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Serves DATA at /m/model.bin, with ranges; `asked` holds the Range header of each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            if self.path != "/m/model.bin":
                self.send_error(404)
                return
            start = int(asked[-1].removeprefix("bytes=").removesuffix("-") or 0)
            if start >= len(DATA):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(DATA) - start))
            self.end_headers()
            self.wfile.write(DATA[start:])

        def log_message(self, *_: object) -> None:
            """Write no log."""

    asked: list[str] = []
    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.asked = asked  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


def zoo_of(tmp_path: Path, server: HTTPServer, *files: File) -> Zoo:
    files = files or (File("model.bin", len(DATA), hashlib.sha256(DATA).hexdigest()),)
    entry = Entry(id="m", title="m", purpose="testing", kind="model", licence="MIT", files=files, sources=())
    return Zoo(tmp_path / "cache", {"m": entry}, server=f"http://127.0.0.1:{server.server_port}")


def test_a_file_server_is_asked_first_and_progress_is_in_bytes(tmp_path: Path, server: HTTPServer) -> None:
    steps: list[Progress] = []
    zoo = zoo_of(tmp_path, server)
    zoo.pull(["m"], steps.append)
    assert zoo.path("m").read_bytes() == DATA
    assert (steps[-1].done, steps[-1].total) == (len(DATA), len(DATA))


@pytest.mark.parametrize("done", [1000, len(DATA)])
def test_a_download_goes_on_where_it_ended(tmp_path: Path, server: HTTPServer, done: int) -> None:
    part = tmp_path / "cache" / "downloads" / "m" / "server" / "model.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:done])
    zoo = zoo_of(tmp_path, server)
    zoo.pull(["m"])
    assert server.asked == [f"bytes={done}-"]  # type: ignore[attr-defined]
    assert zoo.path("m").read_bytes() == DATA


def test_what_a_server_lacks_or_changes_is_one_line(tmp_path: Path, server: HTTPServer) -> None:
    with pytest.raises(CerError, match="404"):
        zoo_of(tmp_path, server, File("other.bin", 1, "0" * 64)).pull(["m"])
    with pytest.raises(CerError, match="wrong SHA-256"):
        zoo_of(tmp_path, server, File("model.bin", len(DATA), "0" * 64)).pull(["m"])


def test_a_server_that_is_down_is_one_line(tmp_path: Path, server: HTTPServer) -> None:
    zoo = zoo_of(tmp_path, server)
    zoo.server = "http://127.0.0.1:9"
    with pytest.raises(CerError, match="cannot be reached") as caught:
        zoo.pull(["m"])
    assert "\n" not in caught.value.line()


class GatedRepoError(Exception):
    """As huggingface_hub raises it."""

    response = types.SimpleNamespace(status_code=403)


@pytest.mark.parametrize(
    ("error", "next_step"),
    [(GatedRepoError("Access to model x is restricted"), "HF_TOKEN"), (ConnectionError("no route"), "HF_ENDPOINT")],
)
def test_a_refusal_of_the_hub_names_the_next_step(error: Exception, next_step: str) -> None:
    reason = _hub_reason(Hub("owner/name", "0" * 40), File("f", 0, ""), error)
    assert next_step in reason
    assert "\n" not in reason
