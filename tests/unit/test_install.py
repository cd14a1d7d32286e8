"""uv installs from where pip would; a system that lacks something gets it, or is told what to type."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> Any:
    """A script of requirements/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"install_{name}", ROOT / "requirements" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


uv, libraries = script("uv"), script("libraries")


def test_variables_and_files_of_pip_are_read_in_its_own_order() -> None:
    listing = (
        ":env:.find-links='/wheels /more'\n"
        "global.find-links='/weaker'\n"
        "global.extra-index-url='\\nhttps://a.example\\nhttps://b.example'\n"
        "install.index-url='https://c.example'\n"
        "global.index-url='https://weaker.example'\n"
        "download.index-url='https://other.example'\n"
        "global.no-color='true'\n"
    )
    settings = uv.pip_settings(listing)
    assert uv.uv_environment({"HOME": "/h"}, settings) == {
        "HOME": "/h",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "https://c.example",
        "UV_EXTRA_INDEX_URL": "https://a.example https://b.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_without_settings_of_pip_uv_keeps_its_own_defaults() -> None:
    assert uv.uv_environment({"A": "b"}, uv.pip_settings("")) == {"A": "b"}


@pytest.mark.parametrize("own", [{"UV_DEFAULT_INDEX": "own"}, {"UV_INDEX_URL": "own"}])
def test_a_setting_of_uv_wins_over_that_of_pip(own: dict[str, str]) -> None:
    assert uv.uv_environment(own, {"index-url": "https://pip.example"}) == own


def test_uv_goes_on_without_a_cache_where_it_cannot_write_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for environment in (
        {"HOME": str(tmp_path / "file")},
        {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "file")},
        {"HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "file" / "uv")},
    ):
        assert uv.without_cache(environment) == {"UV_NO_CACHE": "1"}
    assert uv.without_cache({"HOME": str(tmp_path)}) == {}


def test_too_old_a_python_is_refused_with_the_next_step(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.9.2' && exit 0\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "requirements" / "venv.sh"],
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "found: Python 3.9.2" in done.stderr
    assert "make install PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


# --- system libraries ---


class System:
    """A made-up machine: which libraries it lacks, and what the commands that are run do to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lacking: list[str], *tools: str, root: bool = False) -> None:
        self.lacking = lacking
        self.lists_are_new = True
        self.asks_password = False
        self.commands: list[list[str]] = []
        monkeypatch.setattr(libraries, "libraries", lambda: self)
        monkeypatch.setattr(libraries.shutil, "which", lambda tool: f"/usr/bin/{tool}" if tool in tools else None)
        monkeypatch.setattr(libraries.os, "geteuid", lambda: 0 if root else 1000)
        monkeypatch.setattr(libraries.subprocess, "run", self.run)

    def missing(self) -> list[str]:
        return self.lacking

    def packages(self, names: list[str]) -> list[str]:
        return sorted({name.split(".")[0].lower() for name in names})

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(command)
        if "true" in command:
            return subprocess.CompletedProcess(command, int(self.asks_password))
        if "update" in command:
            self.lists_are_new = True
        elif not self.lists_are_new:
            return subprocess.CompletedProcess(command, 100, b"Reading\nE: Unable to locate package libegl\n")
        else:
            self.lacking = []
        return subprocess.CompletedProcess(command, 0, b"")


def test_where_the_libraries_load_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, [], "apt-get", "sudo", root=True)
    assert libraries.main() == 0
    assert system.commands == []


def test_root_gets_what_is_missing_without_fetching_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, ["libEGL.so.1", "libGLES.so.2"], "apt-get", root=True)
    assert libraries.main() == 0
    (command,) = system.commands
    assert command[:4] == ["apt-get", "install", "-y", "--no-install-recommends"]
    assert command[-2:] == ["libegl", "libgles"]


def test_old_lists_are_fetched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, ["libEGL.so.1"], "apt-get", root=True)
    system.lists_are_new = False
    assert libraries.main() == 0
    assert [command[1] for command in system.commands] == ["install", "update", "install"]


def test_sudo_is_taken_where_it_asks_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, ["libEGL.so.1"], "apt-get", "sudo")
    assert libraries.main() == 0
    assert system.commands[-1][:2] == ["/usr/bin/sudo", "-n"]


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        (
            ["apt-get", "sudo"],
            "run sudo apt-get install -y --no-install-recommends libegl, then the same command again",
        ),
        (["apt-get"], "run as root: apt-get install -y --no-install-recommends libegl, then the same command again"),
        ([], "install the packages that hold them, then run the same command again"),
    ],
)
def test_whoever_may_not_install_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tools: list[str], says: str
) -> None:
    system = System(monkeypatch, ["libEGL.so.1"], *tools)
    system.asks_password = True
    assert libraries.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: this system lacks libEGL.so.1, which mediapipe needs - {says}"
    assert not [command for command in system.commands if "install" in command]


def test_the_reason_of_apt_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    system = System(monkeypatch, ["libEGL.so.1"], "apt-get", root=True)
    monkeypatch.setattr(
        system, "run", lambda command, **_: subprocess.CompletedProcess(command, 100, b"E: no network\n")
    )
    monkeypatch.setattr(libraries.subprocess, "run", system.run)
    assert libraries.main() == 2
    assert "E: no network" in capsys.readouterr().err.splitlines()[-1]


def test_nothing_is_downloaded_or_made_before_the_libraries_are_there(tmp_path: Path) -> None:
    """The script of `make install` on a machine that lacks a library, for a user who may install nothing."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "cer_pipeline" / "machine").mkdir(parents=True)
    source = (ROOT / "cer_pipeline" / "machine" / "system_libraries.py").read_text()
    (tmp_path / "cer_pipeline" / "machine" / "system_libraries.py").write_text(
        source.replace("libEGL.so.1", "libNowhere.so.1")
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "env"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run(
        [tmp_path / "requirements" / "venv.sh"],
        env={"PATH": str(tools), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this system lacks libNowhere.so.1, which mediapipe needs - ")
    assert not (tmp_path / ".venv").exists()
