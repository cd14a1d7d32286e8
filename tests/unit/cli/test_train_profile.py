"""`cer train` takes the graph of a profile that has the branch."""

from __future__ import annotations

from pathlib import Path

import pytest

from cer_pipeline.cli import train
from cer_pipeline.store.home import Home

EMBEDDED = ["face_emo_mamba"]
PAPER = ["scene_jina"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    def profile(name: str, _: Path) -> dict[str, dict[str, list[str]]]:
        return {"branches": {"enabled": PAPER if name == "paper" else EMBEDDED}}

    monkeypatch.setattr(train, "load_profile", profile)
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("branch", "given", "chosen"),
    [
        ("face_emo_mamba", "embedded", "embedded"),
        ("scene_jina", "embedded", "paper"),
        ("scene_jina", "paper", "paper"),
        ("mhpf", "paper", "paper"),
    ],
)
def test_a_head_is_trained_in_the_graph_of_a_profile_with_its_branch(
    home: Home, branch: str, given: str, chosen: str
) -> None:
    assert train.profile_of(home, branch, given) == chosen
