"""Whether this machine can run the pipeline, and the one command that mends what is missing.

Belongs here: trying what a run needs. Does not belong here: mending it, or printing (`cli`). What is installed is
loaded, a database is opened, a file is decoded, models are loaded: nothing is called right by its name or version.
Native libraries are loaded in child processes, so that a crash of one is a finding too.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.machine.installation import DISTRIBUTION, LoadResult, load_all
from cer_pipeline.machine.trials import try_all
from cer_pipeline.store.home import Home, default_home
from cer_pipeline.zoo import State, Zoo, list_models, open_zoo

MINIMUM_PYTHON: Final = (3, 11)
SET_HOME: Final = "set CER_HOME to a folder that you may write in"
SET_HOME_LOCAL: Final = "set CER_HOME to a folder on a local disk"
GIGABYTE: Final = 1e9
HOME_SPACE: Final = 1.0  # GB; an hour of video makes about 0.9 GB of frames, twice (table and cache)
PULL_FACTOR: Final = 3  # as zoo.SPARE: a pull holds the wheel, what it took out, and the file itself at once
MEMORY: Final = 3.0  # GB; an estimate for the whole graph in one process

NVIDIA: Final = Path("/proc/driver/nvidia/gpus")  # one entry a GPU, made by the driver


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at.

    Args:
        name: what.
        ok: whether the pipeline can run with it as it is.
        detail: what was found, in a few words.
        remedy: the command or step that mends it; empty where it is ok.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def diagnose(
    profile: str = "embedded",
    *,
    home: Home | None = None,
    zoo: Zoo | None = None,
    load: Callable[[], Sequence[LoadResult]] = load_all,
    attempt: Callable[[Mapping[str, Path]], Mapping[str, str]] = try_all,
) -> list[CheckResult]:
    """Look at everything that a run needs.

    Args:
        profile: whose weights and devices count.
        home: the home folder; by default that of `default_home`.
        zoo: the weights; by default those of `open_zoo`.
        load: loads what is installed.
        attempt: tries decoding and models.
    """
    found = [python_version(), *installed(load)]
    try:
        home = home or default_home()
        zoo = zoo or open_zoo(heads=home.heads)
        wanted = list_models(zoo, profile)
    except CerError as error:
        return [*found, CheckResult("folders", False, f"{error.what}: {error.where}".strip(": "), error.then)]
    loads, judged = all(finding.ok for finding in found), weights(zoo, profile)
    found += [memory(), temporary_folder(), *folder_of_the_home(home.root), judged]
    if any(row.state is State.MISSING for row in wanted):
        found += [
            writable("folder of the weights", zoo.cache, "set XDG_CACHE_HOME to a folder that you may write in"),
            space("disk of the weights", zoo.cache, PULL_FACTOR * missing_bytes(zoo, profile) / GIGABYTE),
        ]
    if loads:  # or each trial fails for the reason that is named already
        verified = [row.entry.id for row in wanted if row.entry.kind == "model"] if judged.ok else []
        found += trials({model: zoo.path(model) for model in verified}, attempt)
    return [*found, gpu(profile)]


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> CheckResult:
    """Whether Python is new enough."""
    text = f"{version[0]}.{version[1]}"
    if version >= MINIMUM_PYTHON:
        return CheckResult("Python", True, text)
    return CheckResult("Python", False, f"{text}, 3.11 or newer is needed", "make install PYTHON=/path/to/python3.11")


def installed(load: Callable[[], Sequence[LoadResult]] = load_all) -> list[CheckResult]:
    """One finding for all direct dependencies that load, one for each that does not.

    Args:
        load: loads them.
    """
    try:
        results = load()
    except metadata.PackageNotFoundError:
        return [CheckResult("packages", False, f"{DISTRIBUTION} is not installed", "make install, or pip install .")]
    failed = [CheckResult(one.name, False, one.error, one.remedy) for one in results if one.error]
    return failed or [CheckResult("packages", True, f"all {len(results)} direct dependencies load")]


def trials(
    models: Mapping[str, Path], attempt: Callable[[Mapping[str, Path]], Mapping[str, str]] = try_all
) -> list[CheckResult]:
    """One finding for the decoding of media and all models that load, one for each that does not.

    Args:
        models: ids, and where their verified files lie.
        attempt: tries them.
    """
    errors = attempt(models)
    remedy = "cer doctor --packages; where that finds nothing, report it"
    failed = [CheckResult(name, False, error, remedy) for name, error in errors.items() if error]
    return failed or [CheckResult("trial", True, f"media can be decoded; these load: {', '.join(errors)}")]


def memory(available: float | None = None) -> CheckResult:
    """Whether enough memory is free.

    Args:
        available: bytes; by default what the kernel and the container's limit allow.
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
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("MemAvailable", "SwapFree"):
                limits.append(float(value.split()[0]) * 1024)
    except (OSError, ValueError, IndexError):
        return None
    free = sum(limits)
    group = Path("/sys/fs/cgroup")  # version 2
    with contextlib.suppress(OSError, ValueError):  # no limit, or version 1
        free = min(free, float((group / "memory.max").read_text()) - float((group / "memory.current").read_text()))
    return free


def folder_of_the_home(folder: Path) -> list[CheckResult]:
    """Whether the home folder can be written, its disk has room, and a database and a lock work there."""
    can_write = writable("home folder", folder)
    return (
        [can_write, database(folder), space("disk of the home folder", folder, HOME_SPACE)]
        if can_write.ok
        else [can_write]
    )


def writable(name: str, folder: Path, remedy: str = SET_HOME) -> CheckResult:
    """Whether files can be written in a folder (or in the nearest one above it that exists)."""
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return CheckResult(name, True, str(folder))
    except OSError as error:
        return CheckResult(name, False, f"{folder}: {error.strerror or error}", remedy)


def database(folder: Path) -> CheckResult:
    """Whether SQLite, in which Dagster keeps its state, and file locks work on the disk of a folder.

    Both fail on some network drives. Dagster 1.13 opens its databases with a write-ahead log.
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
    """Whether temporary files can be made: sound is decoded into one."""
    try:
        with tempfile.TemporaryFile():
            return CheckResult("temporary folder", True, tempfile.gettempdir())
    except OSError as error:
        return CheckResult("temporary folder", False, str(error), "set TMPDIR to a folder that you may write in")


def space(name: str, folder: Path, need: float) -> CheckResult:
    """Whether the disk of a folder has room.

    Args:
        name: of the finding.
        folder: need not exist yet.
        need: GB.
    """
    free = shutil.disk_usage(_nearest(folder)).free / GIGABYTE
    text = f"{free:.1f} GB free at {folder}"
    if free >= need:
        return CheckResult(name, True, text)
    return CheckResult(name, False, f"{text}, {need:.1f} GB are needed", "free some space, or move the folder")


def _nearest(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


def missing_bytes(zoo: Zoo, profile: str) -> int:
    """Size of the profile's models that are not on this machine, bytes."""
    rows = list_models(zoo, profile)
    return sum(row.entry.bytes for row in rows if row.state is not State.PRESENT and row.entry.kind == "model")


def weights(zoo: Zoo, profile: str) -> CheckResult:
    """Whether the models of a profile are here and are what they should be (this hashes them)."""
    verdicts = [zoo.verdict(row.entry.id) for row in list_models(zoo, profile) if row.entry.kind != "media"]
    by_state = {state: [v.model for v in verdicts if v.state is state] for state in State}
    parts = [f"{len(by_state[State.PRESENT])} of {len(verdicts)} present and verified"]
    parts += [f"{state}: {', '.join(models)}" for state, models in by_state.items() if models and state != "present"]
    pullable: Iterable[str] = (*by_state[State.MISSING], *by_state[State.WRONG_DIGEST])
    ok = len(by_state[State.PRESENT]) == len(verdicts)
    remedy = f"cer models pull {' '.join(pullable)}".strip() if not ok else ""
    if by_state[State.UNPINNED]:
        remedy = f"pin revision and SHA-256 in cer_pipeline/zoo/{profile}.toml, then cer models pull"
    return CheckResult("weights", ok, "; ".join(parts), remedy)


def gpu(profile: str, devices: Path = NVIDIA) -> CheckResult:
    """Whether an NVIDIA GPU and a torch that can use it are here; the embedded profile needs none.

    Args:
        profile: the paper profile needs one.
        devices: folder in which the driver lists its devices.
    """
    found = len(list(devices.iterdir())) if devices.is_dir() else 0
    if not found:
        ok = profile == "embedded"
        return CheckResult("GPU", ok, "none; the CPU is used", "" if ok else "use a machine with an NVIDIA GPU")
    torch = metadata.version("torch")
    if torch.endswith("+cpu"):
        ok = profile == "embedded"
        remedy = "" if ok else "install a CUDA build of the same torch version"
        return CheckResult("GPU", ok, f"{found} NVIDIA, but torch {torch} cannot use it", remedy)
    return CheckResult("GPU", True, f"{found} NVIDIA, torch {torch}")
