"""The search for settings: ranges, going on after a stop, and that held-out rows choose nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from cer_pipeline.branches.face.specs import MAMBA, TRANSFORMER
from cer_pipeline.branches.face.train import SEARCH_SPACES
from cer_pipeline.errors import CerError
from cer_pipeline.training import search
from cer_pipeline.training.search import Choice, Span


@dataclass(frozen=True)
class Settings:
    width: int = 1
    rate: float = 0.5
    kind: str = "a"
    kept: int = 7


SPACE = {"width": Span(1, 8), "rate": Span(1e-3, 1.0, log=True), "kind": Choice(("a", "b"))}


def score(settings: Settings, number: int) -> float:
    return settings.width + (settings.kind == "b") - settings.rate


def test_the_best_of_what_was_tried_is_found_inside_the_ranges(tmp_path: Path) -> None:
    found = search.search(Settings(), SPACE, score, 12, tmp_path / "s.log")
    assert len(found.trials) == 12
    assert all(1 <= t["width"] <= 8 and 1e-3 <= t["rate"] <= 1 and t["kind"] in "ab" for t in found.trials)
    assert found.score == max(t["score"] for t in found.trials) == score(found.settings, 0)
    assert found.settings.kept == 7
    assert len({t["width"] for t in found.trials}) > 2


def test_a_search_that_was_cut_off_inside_a_trial_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    whole = search.search(Settings(), SPACE, score, 14, tmp_path / "whole.log")
    calls: list[int] = []

    def cut(settings: Settings, number: int) -> float:
        calls.append(number)
        if len(calls) == 12:
            raise KeyboardInterrupt  # what a kill leaves: a trial that never ends
        return score(settings, number)

    with pytest.raises(KeyboardInterrupt):
        search.search(Settings(), SPACE, cut, 14, tmp_path / "cut.log")
    again = search.search(Settings(), SPACE, cut, 14, tmp_path / "cut.log")
    assert again == whole
    assert calls == [*range(12), 11, 12, 13]
    more = search.search(Settings(), SPACE, cut, 14, tmp_path / "cut.log")
    assert more == whole
    assert len(calls) == 15  # a finished search tries nothing


def test_of_equal_trials_the_earlier_wins(tmp_path: Path) -> None:
    found = search.search(Settings(), SPACE, lambda settings, number: 1.0, 4, tmp_path / "s.log")
    assert found.settings.width == found.trials[0]["width"]
    assert found.settings.rate == found.trials[0]["rate"]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="settings that do not exist: depth"):
        search.search(Settings(), {"depth": Span(1, 2)}, score, 1, tmp_path / "s.log")
    with pytest.raises(CerError, match="at least one trial"):
        search.search(Settings(), SPACE, score, 0, tmp_path / "s.log")
    search.search(Settings(), SPACE, score, 1, tmp_path / "s.log")
    with pytest.raises(CerError, match="belongs to another search"):
        search.search(Settings(kept=8), SPACE, score, 1, tmp_path / "s.log")


def test_the_ranges_are_those_of_the_paper() -> None:
    sizes = {"hidden": Choice((128, 256, 512)), "middle": Choice((128, 256, 512)), "layers": Span(1, 4)}
    assert SEARCH_SPACES[TRANSFORMER] == {**sizes, "heads": Choice((2, 4, 8, 16))}
    assert SEARCH_SPACES[MAMBA] == {**sizes, "states": Span(4, 16), "kernel": Span(1, 7)}
