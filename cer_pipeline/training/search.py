"""Search for settings: Optuna over the ranges that the paper searched, resumable, on a score that the caller gives.

Belongs here: ranges, the study, going on after a stop. Does not belong here: what a trial trains, or which rows it
sees: the score is taken on inner folds of the rows that it may learn from, so that held-out rows choose nothing.

A study is a journal file: every finished trial is appended. A trial that was cut off is counted as failed and tried
again. The sampler of trial k is seeded from k and fed with the finished trials alone, so a stopped search chooses what
an undisturbed one would have chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from cer_pipeline.errors import CerError
from cer_pipeline.training.progress import Progress, quiet

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Choice:
    """One of some values, without an order between them that the sampler would use."""

    values: tuple[int | float | str, ...]


@dataclass(frozen=True)
class Span:
    """A number between two, both included; whole where both are whole, and by its logarithm where `log` is set."""

    low: int | float
    high: int | float
    log: bool = False


Space = Mapping[str, Choice | Span]
"""Field of the settings -> what is tried."""


@dataclass(frozen=True)
class SearchResult(Generic[Settings]):
    """Result of a search.

    Args:
        settings: of the best trial.
        score: its score.
        trials: finished trials in order: what was tried, and "score".
    """

    settings: Settings
    score: float
    trials: list[dict[str, Any]]


def search(
    settings: Settings,
    space: Space,
    score: Callable[[Settings, int], float],
    trials: int,
    journal: Path,
    seed: int = 0,
    progress: Progress = quiet,
) -> SearchResult[Settings]:
    """Try settings and keep the best.

    Args:
        settings: a dataclass; what the space does not name stays as it is.
        space: what is tried.
        score: (settings, number of the trial) -> score on inner folds; the higher, the better. Of equal ones the
            earlier wins.
        trials: finished trials in all, those of an earlier, stopped search included.
        journal: file of the study.
        seed: of the sampler.
        progress: called with the best score so far and the trials.

    Raises:
        CerError: the space names no field of the settings, there is no trial, or the journal is of another search.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    if trials < 1:
        raise CerError("a search needs at least one trial", str(trials))
    unknown = set(space) - {field.name for field in fields(settings)}  # type: ignore[arg-type]
    if unknown:
        raise CerError("the search names settings that do not exist", ", ".join(sorted(unknown)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    identity = repr((settings, sorted(space.items()), seed))
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise CerError("the journal belongs to another search", str(journal), "remove it to begin anew")
    study.set_user_attr("identity", identity)
    for cut in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(cut.number, state=TrialState.FAIL)
    while (done := len(study.get_trials(states=(TrialState.COMPLETE,)))) < trials:
        study.sampler = optuna.samplers.TPESampler(seed=seed * 100_003 + done)
        trial = study.ask()
        given = {name: _suggest(trial, name, what) for name, what in space.items()}
        study.tell(trial, score(replace(settings, **given), done))  # type: ignore[type-var]
        progress(f"search: best score {study.best_value:.2f}", done + 1, trials)
    finished = study.get_trials(states=(TrialState.COMPLETE,))[:trials]
    best = max(finished, key=lambda t: (t.value, -t.number))
    records = [{**t.params, "score": t.value} for t in finished]
    return SearchResult(replace(settings, **best.params), float(best.value), records)  # type: ignore[type-var, arg-type]


def _suggest(trial: Any, name: str, what: Choice | Span) -> int | float | str:
    if isinstance(what, Choice):
        return trial.suggest_categorical(name, what.values)
    if isinstance(what.low, int) and isinstance(what.high, int):
        return trial.suggest_int(name, what.low, what.high, log=what.log)
    return trial.suggest_float(name, what.low, what.high, log=what.log)
