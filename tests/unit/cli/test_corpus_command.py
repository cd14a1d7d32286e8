"""`cer corpus`: what it prints, which options it keeps, and which mistakes it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cer_pipeline.cli.app import app
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from tests.helpers import corpus_files as files
from tests.helpers.clips import make_tracks, tone

pytestmark = pytest.mark.usefixtures("tmp_home")


def cer(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_adding_captions_reports_splits_leaks_and_labels(tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts", dev={"000002000___Fear_0000.avi": "Fear"})
    done = cer("corpus", "add", "texts", root, "--format", "captions", "--json")
    added = json.loads(done.stdout)
    assert (added["videos"], added["splits"], added["excluded"]) == (8, {"dev": 1, "train": 6}, 1)
    assert (added["labels"], added["captions"], added["shards"]) == (True, True, ["texts-s000"])
    assert added["told"][0].startswith("1 videos are left out of their split")
    listed = json.loads(cer("corpus", "list", "--json").stdout)
    assert [(c["name"], c["format"], c["labels"]) for c in listed] == [("texts", "captions", True)]
    for word in ("captions", "dev 1, train 6", "yes"):
        assert word in cer("corpus", "list").stdout


def test_options_hold_until_they_are_given_again(tmp_path: Path) -> None:
    root = files.afew_captions(tmp_path / "texts", dev={"000002000___Fear_0000.avi": "Fear"})
    assert json.loads(cer("corpus", "add", "c", root, "--format", "captions", "--leaks", "keep", "--json").stdout)
    again = json.loads(cer("corpus", "add", "c", root, "--format", "captions", "--json").stdout)
    assert (again["excluded"], again["changed"]) == (0, [])
    last = json.loads(cer("corpus", "add", "c", root, "--format", "captions", "--leaks", "exclude", "--json").stdout)
    assert (last["excluded"], last["changed"]) == (1, ["000002000@train"])


def test_a_corpus_without_videos_names_the_training_that_takes_it(tmp_path: Path) -> None:
    rows = [("1001_IEO_NEU_XX", m, 1, 0, 0, 0, 4, 0) for m in ("voice", "face", "both")]
    path = files.write_csv(tmp_path / "votes.csv", ("fileName", "modality", *"ADFHNS"), rows)
    done = cer("corpus", "add", "votes", path, "--format", "votes")
    assert "1 clips of 1 actors" in done.stdout
    assert done.stdout.endswith("next: cer train mhpf --corpora votes\n")
    refused = cer("run", "votes")
    assert isinstance(refused.exception, CerError)
    assert refused.exception.line() == (
        "the corpus has no videos, it is for training: votes - run `cer train mhpf --corpora votes`"
    )
    for words in (("evaluate", "votes"), ("export", "votes", "--to", "csv"), ("export", "votes", "--to", "abaw")):
        refused = cer(*words)
        assert isinstance(refused.exception, CerError), words
        assert refused.exception.line() == (
            "the corpus has no videos, it is for training: votes - `cer train mhpf --corpora votes` prints scores"
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--format", "afew"), "does not exist"),
        (("--format", "magic"), "unknown corpus format: magic - choose one of: afew, affwild2, captions, cexpr"),
        (("--format", "votes", "--split", "dev"), "the format votes takes no --split"),
        (("--leaks", "ignore"), "does not exist"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = cer("corpus", "add", "x", tmp_path / "nowhere", *words)
    assert isinstance(done.exception, CerError)
    assert says in done.exception.line()


def test_a_sound_track_is_chosen_by_its_number(tmp_path: Path, tmp_home: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    make_tracks(root / "call.mkv", tone(1.0), tone(1.0))
    refused = cer("corpus", "add", "calls", root, "--audio-track", "3")
    assert isinstance(refused.exception, CerError)
    assert "no video has more than 2" in refused.exception.line()
    assert registry.names(tmp_home) == []
    kept = []
    for words in (("--audio-track", "2"), (), ("--audio-track", "0")):
        assert cer("corpus", "add", "calls", root, *words).exit_code == 0
        kept.append(registry.load(tmp_home, "calls").options["audio_track"])
    assert kept == [2, 2, 0]
