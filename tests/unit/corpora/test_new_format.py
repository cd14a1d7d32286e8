"""A plug-in adds a corpus format: the example of docs/examples/corpus_format.py, installed as a distribution."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cer_pipeline.cli.app import app
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.annotations import read_labels
from cer_pipeline.corpora.formats.registry import FORMATS, GROUP, format_of
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "corpus_format.py"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry_point: str) -> None:
    """Install the example as `pip install` does: a module, and metadata with an entry point."""
    metadata = folder / "listed-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: listed\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_point}\n")
    shutil.copy(EXAMPLE, folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "corpus_format", raising=False)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(name.encode())
    (folder / "labels.csv").write_text("video,label,split\na.mp4,Happiness,train\nb.mp4,Anger,dev\n")
    return folder


def test_the_example_registers_videos_with_labels_and_splits(tmp_path, clips, monkeypatch):
    install(tmp_path / "site", monkeypatch, "listed = corpus_format:LISTED")
    home = tmp_path / "home"
    changes = registry.register(home, "clips", clips, "listed")
    assert changes.added == ("a", "b")
    corpus = registry.load(home, "clips")
    assert {file.video_id: file.split for file in corpus.files} == {"a": "train", "b": "dev"}
    assert (corpus.has_media, corpus.format_classes) == (True, BASIC)
    labels = read_labels(corpus.annotations, "s000")
    assert {video: [BASIC[i] for i in label.classes] for video, label in labels.items()} == {
        "a": ["Happiness"],
        "b": ["Anger"],
    }


def test_a_mistake_in_a_file_of_the_example_names_the_row(tmp_path, clips, monkeypatch):
    install(tmp_path / "site", monkeypatch, "listed = corpus_format:LISTED")
    (clips / "labels.csv").write_text("video,label,split\na.mp4,Joy,train\n")
    with pytest.raises(CerError, match=r"unknown label 'Joy': row 2 of .*labels\.csv - use one of: Neutral"):
        registry.register(tmp_path / "home", "clips", clips, "listed")


def test_a_corpus_is_listed_and_removed_without_its_plug_in(tmp_path, tmp_home, clips, monkeypatch):
    with monkeypatch.context() as installed:
        install(tmp_path / "site", installed, "listed = corpus_format:LISTED")
        registry.register(tmp_home, "clips", clips, "listed")
    listed = CliRunner().invoke(app, ["corpus", "list"])
    assert (listed.exit_code, "listed" in listed.stdout) == (0, True)
    with pytest.raises(CerError, match=r"unknown corpus format: listed .* or install the plug-in"):
        registry.register(tmp_home, "clips", clips, "listed")
    registry.remove(tmp_home, "clips")
    assert registry.names(tmp_home) == []


def test_an_unknown_format_is_refused_with_all_known_names(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "listed = corpus_format:LISTED")
    with pytest.raises(CerError) as caught:
        format_of("list")
    line = caught.value.line()
    assert line.startswith("unknown corpus format: list - choose one of: ")
    assert all(name in line for name in (*FORMATS, "listed"))


@pytest.mark.parametrize("value", ["corpus_format:scan", "corpus_format:NONE", "no_such_module:LISTED"])
def test_a_plug_in_without_a_format_is_refused_in_one_line(tmp_path, monkeypatch, value):
    install(tmp_path, monkeypatch, f"listed = {value}")
    with pytest.raises(CerError, match=rf"the plug-in .*: listed = {value}"):
        format_of("listed")


def test_a_plug_in_cannot_replace_a_format_of_the_project(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "folder = corpus_format:LISTED")
    assert format_of("folder") is FORMATS["folder"]


def test_the_example_has_fewer_than_60_lines():
    assert len(EXAMPLE.read_text("utf-8").splitlines()) < 60
