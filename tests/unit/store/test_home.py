"""Where the home folder is: named by the user, beside the working copy, or among the user's data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cer_pipeline.cli.app import app
from cer_pipeline.errors import CerError
from cer_pipeline.store import home
from cer_pipeline.store.home import checkout, default_home, writable_home
from cer_pipeline.zoo import default_cache

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were installed by itself."""
    monkeypatch.setattr(home, "checkout", lambda: None)


def test_in_a_working_copy_the_home_lies_in_it() -> None:
    assert checkout() == ROOT
    assert default_home({}).root == ROOT / ".cer"


def test_what_the_user_names_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_home({"CER_HOME": "here"}).root == tmp_path / "here"
    assert default_home({"CER_HOME": "~/there"}).root == Path.home() / "there"


@pytest.mark.usefixtures("wheel")
def test_elsewhere_it_lies_among_the_users_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home({"XDG_DATA_HOME": "/data"}).root == Path("/data/cer-pipeline")
    for environment in ({}, {"XDG_DATA_HOME": ""}, {"XDG_DATA_HOME": "relative"}):
        assert default_home(environment).root == tmp_path / ".local" / "share" / "cer-pipeline"


@pytest.mark.usefixtures("wheel")
def test_a_user_without_a_home_folder_reads_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    def empty() -> Path:
        return Path()

    for folder in (unknown, empty):
        monkeypatch.setattr(Path, "home", folder)
        with pytest.raises(CerError, match="set CER_HOME"):
            default_home({})
        with pytest.raises(CerError, match="set XDG_CACHE_HOME"):
            default_cache({})


def test_a_home_that_cannot_be_made_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CER_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(CerError, match="set CER_HOME to a folder that you may write in"):
        writable_home()
    monkeypatch.setenv("CER_HOME", str(tmp_path / "new" / "home"))
    assert writable_home().root.is_dir()


@pytest.mark.parametrize("words", [["demo"], ["corpus", "add", "x", "."], ["run", "x"], ["ui"]])
def test_commands_that_write_check_the_home_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CER_HOME", str(tmp_path / "file"))
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, CerError)
    assert error.what.startswith("the home folder cannot be written")


def test_a_command_with_a_home_that_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from cer_pipeline.cli import main; main()", "run", "x"],
        env=os.environ | {"CER_HOME": str(tmp_path / "file"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: the home folder cannot be written")
    assert line.endswith("set CER_HOME to a folder that you may write in")
