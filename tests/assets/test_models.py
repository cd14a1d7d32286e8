"""Heads as assets: a training publishes what it made, by digest, or nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from assets.jobs import PROCESS_SHARD, TRAIN
from assets.keys import asset_key, model_key
from cer_pipeline.branches import registry
from cer_pipeline.cli.train import train as train_command
from cer_pipeline.corpora import registry as corpora
from cer_pipeline.definitions import build_definitions
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import load_profile
from cer_pipeline.store.home import Home
from cer_pipeline.trainers import trainer, trainers
from cer_pipeline.training.summary import headline, score_rows
from cer_pipeline.training.trainer import Request, training_key
from cer_pipeline.zoo import open_zoo
from cer_pipeline.zoo.head_file import save_head
from cer_pipeline.zoo.trained import publish, read_current
from resources.settings import Settings

BRANCH = "text_minilm"


def fake(request: Request) -> dict[str, Any]:
    """A training that counts its videos: enough to see what reaches it and what becomes of its files."""
    request.progress("counting", 1, 2)
    if request.options.get("fail"):
        raise CerError("no training sentence of a class", "Fear", "add sentences of it")
    count = sum(len(corpus.files) for corpus in request.corpora)
    save_head(request.out / f"{request.branch}.safetensors", {"w": np.full(2, float(count))}, {"branch": BRANCH})
    (request.out / f"{request.branch}.md").write_text(f"# {request.branch}\n\n{count} videos\n")
    scores = {"dev": {"macro_f1": [50.5, 48.0, 53.0], "uar": 49.0, "confusion": [[1, 2], [3, 4]]}}
    (request.out / f"{request.branch}.scores.json").write_text(json.dumps(scores))
    return scores


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("CER_HOME", str(tmp_path / "home"))
    counting = replace(trainer(load_profile(), BRANCH), function=f"{__name__}:fake", formats=("folder",), models=())
    counting = replace(counting, options=("epochs", "fail"))
    shipped = registry.shipped()
    shipped[BRANCH] = replace(shipped[BRANCH], trainers=(counting,))
    monkeypatch.setattr(registry, "shipped", lambda: shipped)
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"not a video, and never opened here")
    corpora.register(tmp_path / "home", "toy", folder)
    return Home(tmp_path / "home")


def launch(home: Home, **options: str) -> Any:
    definitions = build_definitions(Settings(home=str(home.root)))
    config = {"ops": {f"models__{BRANCH}": {"config": {"corpora": ["toy"], "options": options}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def(TRAIN).execute_in_process(
            instance=instance, asset_selection=[model_key(BRANCH)], run_config=config, raise_on_error=False
        )


def test_a_training_publishes_its_head_and_the_branch_uses_it(home):
    result = launch(home)
    assert result.success
    head = read_current(home.heads, BRANCH)
    assert head is not None
    assert open_zoo({}, home.heads).path(f"head_{BRANCH}") == head.weights
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["sha256"].value == head.sha256
    assert metadata["dev/macro_f1"].value == 50.5
    assert "1 videos" in metadata["card"].value
    assert event.materialization.tags is not None
    assert event.materialization.tags["dagster/data_version"] == head.sha256[:32]


def test_a_training_that_fails_publishes_nothing_and_leaves_the_earlier_head_in_use(home):
    launch(home)
    before = read_current(home.heads, BRANCH)
    assert not launch(home, fail="yes").success
    assert read_current(home.heads, BRANCH) == before


def test_the_launchpad_refuses_an_option_that_the_training_does_not_take(home):
    with pytest.raises(dg.DagsterInvalidConfigError, match=r'unexpected config entry "epoch".*Expected: .*epochs'):
        launch(home, epoch="3")


def test_the_tables_of_a_branch_depend_on_its_head_and_processing_a_corpus_never_trains():
    definitions = build_definitions()
    graph = definitions.resolve_asset_graph()
    assert model_key(BRANCH) in graph.get(asset_key(f"probabilities/{BRANCH}")).parent_keys
    processed = set(definitions.resolve_job_def(PROCESS_SHARD).asset_layer.executable_asset_keys)
    trained = set(definitions.resolve_job_def(TRAIN).asset_layer.executable_asset_keys)
    assert {key.path[0] for key in trained} == {"models"}
    assert {f"models/{name}" for name in trainers(load_profile())} == {key.to_user_string() for key in trained}
    assert not processed & trained


def test_a_head_that_was_trained_here_changes_what_its_tables_are_made_with(home):
    specs = {spec.name: spec for spec in _specs()}
    spec = specs[f"probabilities/{BRANCH}"]
    from cer_pipeline.profiles import load_profile
    from cer_pipeline.store.fingerprint import stage_fingerprint

    before = stage_fingerprint(spec, load_profile(), open_zoo({}, home.heads))
    launch(home)
    assert stage_fingerprint(spec, load_profile(), open_zoo({}, home.heads)) != before


def _specs() -> Any:
    from cer_pipeline.pipeline import stages
    from cer_pipeline.profiles import load_profile

    return stages(load_profile())


def test_the_command_trains_publishes_and_goes_back(home, capsys):
    train_command(BRANCH, "toy", json=True)
    printed = json.loads(capsys.readouterr().out)
    head = read_current(home.heads, BRANCH)
    assert head is not None
    assert (printed["sha256"], printed["scores"]["dev"]["uar"]) == (head.sha256, 49.0)
    train_command(BRANCH, retire=True)
    assert read_current(home.heads, BRANCH) is None


def test_the_command_says_a_mistake_in_the_data_in_one_line(home):
    with pytest.raises(CerError) as error:
        train_command(BRANCH, "toy", ["fail=1"], json=True)
    assert error.value.line() == "no training sentence of a class: Fear - add sentences of it"
    assert read_current(home.heads, BRANCH) is None


@pytest.mark.parametrize(
    ("branch", "names", "options", "says"),
    [
        ("nothing", "toy", [], "nothing of this name can be trained: nothing"),
        (BRANCH, "", [], "no corpus is named to train on"),
        (BRANCH, "toy,toy", [], "a corpus is named twice"),
        (BRANCH, "other", [], "no such corpus: other"),
        ("audio_bilstm", "toy", [], "a corpus of the format folder cannot train it: toy for audio_bilstm"),
        (BRANCH, "toy", ["epochs"], "a training option has the form name=value: epochs"),
        (BRANCH, "toy", ["epoch=3"], "no such option of the training of text_minilm: epoch - did you mean epochs"),
    ],
)
def test_the_command_refuses_a_mistake_before_anything_runs(home, branch, names, options, says):
    with pytest.raises(CerError, match=says):
        train_command(branch, names, options, json=True)


def test_a_training_of_other_data_or_options_starts_anew(home, tmp_path: Path):
    toy = corpora.load(home.root, "toy")
    key = training_key([toy], {})
    assert training_key([toy], {}) == key != training_key([toy], {"epochs": "2"})
    (tmp_path / "videos" / "a.mp4").write_bytes(b"another content")
    corpora.register(home.root, "toy", tmp_path / "videos")
    assert training_key([corpora.load(home.root, "toy")], {}) != key


def test_scores_are_shown_with_what_they_are_of():
    scores = {"macro_f1": 12.345, "dev": {"all views": {"uar": [1.0, 0.5, 2.0], "f1": {"Fear": 3.0}}}, "n": 4}
    assert headline(scores) == {"macro_f1": 12.35, "dev / all views / uar": 1.0}
    assert ("dev / all views", "uar", "1.00 [0.50, 2.00]") in score_rows(scores)


def test_a_head_cannot_be_published_under_a_branch_that_did_not_make_it(tmp_path):
    save_head(tmp_path / "out" / "other.safetensors", {"w": np.zeros(1)}, {})
    with pytest.raises(CerError, match="left no mhpf"):
        publish(tmp_path / "heads", "mhpf", tmp_path / "out")
