"""`cer ui`: the web server and the daemon of Dagster over the home folder.

Belongs here: starting both on this machine, and stopping both together. Does not belong here: any command that runs a
job (`launch`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Annotated

import typer

from cer_pipeline.cli.output import say
from cer_pipeline.errors import CerError

LOOPBACK = "127.0.0.1"
PORT = 3000
POLL_S = 0.5
STOP_S = 30.0  # Dagster stops its code servers first, which takes a few seconds
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ui(port: Annotated[int, typer.Option("--port", help="Port on this machine.")] = PORT) -> None:
    """Serve the asset graph to a browser on this machine, and run its schedules and sensors."""
    from cer_pipeline.cli.dagster_home import prepare, shipped
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    check_port(port)
    workspace = ["--workspace", str(shipped("workspace.yaml").resolve())]
    commands = {
        "web server": ["dagster_webserver", "--host", LOOPBACK, "--port", str(port), *workspace],
        "daemon": ["dagster._daemon", "run", *workspace],
    }
    say(f"http://{LOOPBACK}:{port} shows {home.root}; stop with Ctrl-C")
    # A script that starts this command in the background has Ctrl-C ignored; the children inherit the default.
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            children[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=home.dagster,
                env=os.environ | prepare(home),
                start_new_session=True,  # Ctrl-C of the terminal reaches this process alone, which sends it on once
            )
        wait(children)
    except KeyboardInterrupt:
        pass
    finally:
        stop(children)


def check_port(port: int) -> None:
    """Check that a port of this machine is free.

    Raises:
        CerError: it is not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            reason = f"the port cannot be used ({error})"
            raise CerError(reason, str(port), "choose another one, for example `cer ui --port 3001`") from error


def wait(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait until a child ends.

    Raises:
        CerError: one ended by itself.
        KeyboardInterrupt: this process is to stop.
    """
    while True:
        for name, child in children.items():
            if child.poll() is not None:
                raise CerError(f"the {name} of Dagster ended", f"exit code {child.returncode}", "see the lines above")
        time.sleep(POLL_S)


def stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Stop all children, with force those that do not end within `STOP_S`."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    for child in children.values():
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    for child in children.values():
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
