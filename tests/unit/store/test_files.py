"""Files appear whole or not at all, however long their names; a home is refused before anything is written."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.errors import CerError
from cer_pipeline.store.files import NAME_BYTES, commit_bytes, commit_tree, exclusive, file_name
from cer_pipeline.store.home import Home


@pytest.mark.parametrize("name", ["L" * NAME_BYTES, "\uac00" * 85])
def test_a_name_as_long_as_a_name_can_be_is_written_in_one_step(tmp_path, name):
    commit_bytes(tmp_path / name, b"one")
    commit_bytes(tmp_path / name, b"two")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"two")]


def test_a_path_that_is_too_long_is_reported_in_one_line(tmp_path):
    with pytest.raises(CerError, match="a name or path is longer than the system allows"):
        commit_bytes(tmp_path / ("L" * (NAME_BYTES + 1)), b"")
    assert not list(tmp_path.iterdir())


@given(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=400),
    st.sampled_from(["", ".txt"]),
)
def test_a_file_name_fits_keeps_what_fits_and_distinguishes_long_ones(text, ending):
    name = file_name(text, ending)
    size = len(os.fsencode(text + ending))
    assert len(os.fsencode(name)) <= NAME_BYTES
    assert name.endswith(ending)
    assert (name == text + ending) is (size <= NAME_BYTES)
    assert size <= NAME_BYTES or name != file_name(f"{text}x", ending)


def test_a_folder_that_does_not_exist_appears_in_one_step(tmp_path):
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("a")
        assert not (tmp_path / "new").exists()

    commit_tree(tmp_path / "new", write)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "sub" / "a.txt").read_text() == "a"


def test_a_lock_is_held_by_one_block_at_a_time(tmp_path):
    entered, order = threading.Event(), []

    def wait() -> None:
        entered.set()
        with exclusive(tmp_path / "locks" / "a.lock"):
            order.append("second")

    thread = threading.Thread(target=wait)
    with exclusive(tmp_path / "locks" / "a.lock"):
        thread.start()
        assert entered.wait(5)
        thread.join(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_folder_that_cannot_be_written_to_is_reported_with_the_step_of_the_caller(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    line = rf"cannot write here: {tmp_path} - set OTHER"
    with pytest.raises(CerError, match=line):
        commit_bytes(tmp_path / "a", b"", "set OTHER")
    with pytest.raises(CerError, match=line):
        commit_tree(tmp_path, lambda folder: None, "set OTHER")
    with pytest.raises(CerError, match=line), exclusive(tmp_path / "l", "set OTHER"):
        pass


def test_a_tree_is_written_beside_what_is_there(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/other.txt").write_text("kept")
    (tmp_path / "a.txt").write_text("old")

    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "a.txt").write_text("new")
        (folder / "sub" / ("b" * 251 + ".txt")).write_text("new")

    commit_tree(tmp_path, write)
    contents = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    assert contents == {"sub/other.txt": "kept", "a.txt": "new", f"sub/{'b' * 251}.txt": "new"}


def test_a_tree_that_fails_half_way_leaves_nothing_behind(tmp_path):
    def write(folder: Path) -> None:
        (folder / "a.txt").write_text("new")
        (folder / ("L" * 300)).write_text("never")

    with pytest.raises(CerError, match="longer than the system allows"):
        commit_tree(tmp_path / "new", write)
    assert not (tmp_path / "new").exists()
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(CerError, match="longer than the system allows"):
        commit_tree(tmp_path, write)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("name", ["100%", "%zz", "a b", "#", "&;:[]{}$~+*'=", "\u00e9"])
def test_a_home_may_have_any_other_character(tmp_path, name):
    assert Home(tmp_path / name).root == tmp_path / name


@pytest.mark.parametrize("name", ["q?x", "pct%20x", "100%25", "%ff", "x\udcff"])
def test_a_home_that_dagster_would_look_for_elsewhere_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(CerError, match=r"set CER_HOME to (a folder without them|another folder)"):
        Home(tmp_path / name)
    assert not list(tmp_path.iterdir())
