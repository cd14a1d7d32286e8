"""The wheel, installed by itself into an environment of its own and started from any folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import duckdb
import pytest

from cer_pipeline.zoo import State, Zoo, ids_of

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
UI_START_S = 240.0


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a user who has nothing yet."""

    folder: Path
    user: Path
    start: Path
    cache: Path

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CER_", "PYTHON", "XDG_", "DAGSTER_"))}
        return kept | {"HOME": str(self.user), "XDG_CACHE_HOME": str(self.cache)}

    @property
    def data(self) -> Path:
        return self.user / ".local" / "share" / "cer-pipeline"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            env=self.env,
            cwd=self.start,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def json(self, *words: str) -> Any:
        done = self.run("cer", *words, "--json")
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, weights: Zoo) -> Installed:
    clips = [m for m in ids_of(weights, "media") if weights.state(m) is not State.PRESENT]
    if clips:
        pytest.skip(f"the demonstration clips are not on this machine: run `cer models pull {' '.join(clips)}`")
    base = tmp_path_factory.mktemp("wheel of two words")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", base, REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = base.glob("*.whl")
    folder = base / "environment"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies are those of this environment. A path file names their folder but does not read the path files in
    # it, so the editable installation of the working copy does not come along.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    user, start = base / "user", base / "elsewhere"
    user.mkdir()
    start.mkdir()
    return Installed(folder, user, start, weights.cache.parents[1])


def test_the_wheel_is_what_is_started_and_no_working_copy(installed: Installed) -> None:
    code = "import cer_pipeline, assets, resources; print(cer_pipeline.__file__, assets.__file__, resources.__file__)"
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(installed.folder)) == 3
    assert str(REPOSITORY) not in done.stdout


def test_the_doctor_finds_nothing_to_mend(installed: Installed) -> None:
    findings = {f["name"]: f for f in installed.json("doctor")}
    assert all(f["ok"] for f in findings.values())
    assert findings["home folder"]["detail"] == str(installed.data)


def test_the_demonstration_runs_in_the_folder_of_the_user(installed: Installed) -> None:
    done = installed.run("cer", "demo")
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(installed.data) in done.stdout
    rows = f"read_parquet('{installed.data}/tables/fused/*/*/data.parquet', hive_partitioning = true)"
    query = f"select count(*), count(*) filter (status = 'ok'), max(corpus) from {rows}"
    (found,) = duckdb.connect().execute(query).fetchall()
    assert found[0] == found[1] > 0
    assert found[2] == "demo"
    again = installed.json("run", "demo")
    assert (again["runs"], again["decodes"], again["model_calls"]) == ([], 0, 0)


def test_a_corpus_is_added_run_and_shown(installed: Installed) -> None:
    clips = installed.start / "my videos"
    clips.mkdir()
    grey_clip(clips / "grey.mkv")
    assert installed.json("corpus", "add", "mine", "my videos")["videos"] == 1
    report = installed.json("run", "mine", "--select", "+frames")
    assert (report["decodes"], report["counters"]["decoded/frames"], report["broken"]) == (1, 25, {})
    status = installed.json("status", "mine")
    assert status["home"] == str(installed.data)
    assert status["corpora"]["mine"]["tables"]["frames"]["states"] == {"current": 1}
    assert [p.name for p in installed.start.iterdir()] == ["my videos"], "nothing lies where it was started"


def grey_clip(path: Path) -> None:
    """A second of grey."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))


IN_THE_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$0" "$@"']
"""Starts a program with Ctrl-C ignored, as scripts do that start it in the background."""


def test_the_graph_is_shown_until_it_is_ended(installed: Installed) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*IN_THE_BACKGROUND, installed.folder / "bin" / "cer", "ui", "--port", str(port)],
        env=installed.env,
        cwd=installed.start,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    query = json.dumps({"query": "{assetNodes {groupName} repositoriesOrError {__typename}}"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", query, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        answer = wait(request)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)
    groups = {node["groupName"] for node in answer["data"]["assetNodes"]}
    assert {"ingest", "perception", "fusion", "predictions"} <= groups


def wait(request: urllib.request.Request) -> Any:
    end = time.monotonic() + UI_START_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer within {UI_START_S:.0f} s")
