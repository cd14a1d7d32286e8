"""`cer ui` runs its two processes together: both stop when it is told to stop, and when one of them ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cer_pipeline.cli import ui
from cer_pipeline.cli.app import app
from cer_pipeline.errors import CerError

WAITS = "import time; time.sleep(60)"
ENDS = "raise SystemExit(3)"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ui.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def children(
    request: pytest.FixtureRequest, tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> list[subprocess.Popen[bytes]]:
    """The processes that the command starts; each runs a line of Python in place of Dagster."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        code = getattr(request, "param", WAITS) if "dagster._daemon" in command else WAITS
        started.append(
            real([sys.executable, "-I", "-S", "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
        )
        return started[-1]

    monkeypatch.setattr(ui.subprocess, "Popen", start)
    return started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("children", [ENDS], indirect=True)
def test_both_processes_stop_when_one_ends_by_itself(children: list[subprocess.Popen[bytes]]) -> None:
    done = CliRunner().invoke(app, ["ui", "--port", str(free_port())])
    assert isinstance(done.exception, CerError)
    assert done.exception.line() == "the daemon of Dagster ended: exit code 3 - see the lines above"
    assert [child.poll() is not None for child in children] == [True, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_both_processes_and_the_command_succeeds(
    children: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(ui, "wait", lambda _: signal.raise_signal(number))
    done = CliRunner().invoke(app, ["ui", "--port", str(free_port())])
    assert done.exit_code == 0, done.output
    assert [child.poll() is not None for child in children] == [True, True]


def test_a_port_that_is_in_use_is_refused_before_anything_is_started(children: list[subprocess.Popen[bytes]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = CliRunner().invoke(app, ["ui", "--port", str(taken.getsockname()[1])])
    assert isinstance(done.exception, CerError)
    assert done.exception.line().endswith("choose another one, for example `cer ui --port 3001`")
    assert children == []
