"""`cer ui`: Dagster's web page over the home folder.

Belongs here: starting it on this machine only.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from cer_pipeline.cli.output import say

LOOPBACK = "127.0.0.1"
PORT = 3000


def ui(port: Annotated[int, typer.Option("--port", help="Port on this machine.")] = PORT) -> None:
    """Open the asset graph in a browser (this machine only); also runs schedules and sensors."""
    from cer_pipeline.cli.dagster_home import prepare, shipped
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    os.environ.update(prepare(home))
    say(f"http://{LOOPBACK}:{port} shows {home.root}; stop with Ctrl-C")
    os.chdir(home.dagster)  # Dagster looks for dagster.yaml here too, and warns of a second one elsewhere
    command = ["-m", "dagster", "dev", "-w", str(shipped("workspace.yaml").resolve()), "-h", LOOPBACK, "-p", str(port)]
    # A script that starts this in the background leaves Ctrl-C ignored, and Dagster stops its processes by that signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - a fixed list, no shell
