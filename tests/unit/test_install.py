"""uv installs from where pip would, and an unsuitable Python is refused in words."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("install_uv", ROOT / "requirements" / "uv.py")
assert _spec
assert _spec.loader
uv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(uv)


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
