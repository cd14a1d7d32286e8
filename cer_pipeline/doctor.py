"""Whether this machine can run the pipeline, and the one command that mends what is missing.

Belongs here: looking at the machine. Does not belong here: mending it, or printing (`cli`). No model library is
imported: a missing system library must be named before anything is loaded or downloaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.store.home import Home, default_home
from cer_pipeline.zoo import State, Zoo, list_models, open_zoo

MINIMUM_PYTHON: Final = (3, 11)
GIGABYTE: Final = 1e9
HOME_SPACE: Final = 1.0  # GB; an hour of video makes about 0.9 GB of frames, twice (table and cache)
PULL_FACTOR: Final = 3  # as zoo.SPARE: a pull holds the wheel, what it took out, and the file itself at once
MEMORY: Final = 3.0  # GB; an estimate for the whole graph in one process
FFMPEG_SECONDS: Final = 20.0

SYSTEM_LIBRARIES: Final[tuple[tuple[str, str, str], ...]] = (
    # Shared objects that the wheels link to but do not carry (`ldd` on mediapipe 1.2.2 and opencv-contrib-python
    # 5.0.0.93), who needs each, and the package of Debian and Ubuntu that holds it.
    ("libEGL.so.1", "mediapipe", "libegl1"),
    ("libGLESv2.so.2", "mediapipe", "libgles2"),
    ("libGL.so.1", "opencv", "libgl1"),
    ("libglib-2.0.so.0", "opencv", "libglib2.0-0"),
    ("libgthread-2.0.so.0", "opencv", "libglib2.0-0"),
    ("libSM.so.6", "opencv", "libsm6"),
    ("libICE.so.6", "opencv", "libice6"),
    ("libX11.so.6", "opencv", "libx11-6"),
    ("libXext.so.6", "opencv", "libxext6"),
    ("libxcb.so.1", "opencv", "libxcb1"),
    ("libstdc++.so.6", "torch, mediapipe and opencv", "libstdc++6"),
)
NVIDIA: Final = Path("/proc/driver/nvidia/gpus")  # one entry a GPU, made by the driver


@dataclass(frozen=True)
class Finding:
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
    load: Callable[[str], object] = ctypes.CDLL,
) -> list[Finding]:
    """Look at everything that a run needs.

    Args:
        profile: whose weights and devices count.
        home: the home folder; by default that of `default_home`.
        zoo: the weights; by default those of `open_zoo`.
        load: opens a shared library by its name, or raises OSError.
    """
    home = home or default_home()
    try:
        zoo = zoo or open_zoo(heads=home.heads)
    except CerError as error:
        return [python_version(), *system_libraries(load), Finding("weights", False, error.what, error.then)]
    return [
        python_version(),
        *system_libraries(load),
        ffmpeg(),
        memory(),
        writable("home folder", home.root),
        space("disk of the home folder", home.root, HOME_SPACE),
        space("disk of the weights", zoo.cache, PULL_FACTOR * missing_bytes(zoo, profile) / GIGABYTE),
        weights(zoo, profile),
        gpu(profile),
    ]


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Whether Python is new enough."""
    text = f"{version[0]}.{version[1]}"
    if version >= MINIMUM_PYTHON:
        return Finding("Python", True, text)
    return Finding("Python", False, f"{text}, 3.11 or newer is needed", "make install PYTHON=/path/to/python3.11")


def system_libraries(load: Callable[[str], object] = ctypes.CDLL) -> list[Finding]:
    """One finding for all system libraries that are there, one for each that is not.

    Args:
        load: opens a shared library by its name, or raises OSError.
    """
    missing = [(name, user, package) for name, user, package in SYSTEM_LIBRARIES if not _loads(name, load)]
    if not missing:
        return [Finding("system libraries", True, f"all {len(SYSTEM_LIBRARIES)} are there")]
    packages = sorted({package for _, _, package in missing})
    root = "" if os.geteuid() == 0 else "sudo "
    command = f"{root}apt-get install -y {' '.join(packages)}"
    return [Finding(name, False, f"missing; {user} needs it", command) for name, user, _ in missing]


def _loads(name: str, load: Callable[[str], object]) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True


def ffmpeg() -> Finding:
    """Whether the FFmpeg binary that imageio-ffmpeg carries runs here."""
    folder = _package_folder("imageio_ffmpeg")
    binaries = sorted((folder / "binaries").glob("ffmpeg-*")) if folder else []
    if not binaries:
        return Finding("ffmpeg", False, "imageio-ffmpeg brought no binary", "make install")
    try:
        command = [str(binaries[0]), "-hide_banner", "-version"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=FFMPEG_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("ffmpeg", False, f"does not run ({error})", "install the imageio-ffmpeg of this platform")
    if done.returncode:
        return Finding("ffmpeg", False, f"does not run (exit code {done.returncode})", "make install")
    return Finding("ffmpeg", True, " ".join(done.stdout.split()[:3]))


def _package_folder(name: str) -> Path | None:
    """Folder of an installed package, without importing it."""
    spec = util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def memory(available: float | None = None) -> Finding:
    """Whether enough memory is free.

    Args:
        available: bytes; by default what the kernel and the container's limit allow.
    """
    available = _available_memory() if available is None else available
    if available is None:
        return Finding("memory", True, "not known on this system")
    text = f"{available / GIGABYTE:.1f} GB free"
    if available >= MEMORY * GIGABYTE:
        return Finding("memory", True, text)
    return Finding("memory", False, f"{text}, {MEMORY:.0f} GB are needed", "close other programs, or add swap space")


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


def writable(name: str, folder: Path) -> Finding:
    """Whether files can be written in a folder (or in the nearest one above it that exists)."""
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return Finding(name, True, str(folder))
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(name, False, f"{folder}: {why}", "set CER_HOME to a folder that you may write in")


def space(name: str, folder: Path, need: float) -> Finding:
    """Whether the disk of a folder has room.

    Args:
        name: of the finding.
        folder: need not exist yet.
        need: GB.
    """
    free = shutil.disk_usage(_nearest(folder)).free / GIGABYTE
    text = f"{free:.1f} GB free at {folder}"
    if free >= need:
        return Finding(name, True, text)
    return Finding(name, False, f"{text}, {need:.1f} GB are needed", "free some space, or move the folder")


def _nearest(folder: Path) -> Path:
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


def missing_bytes(zoo: Zoo, profile: str) -> int:
    """Size of the profile's models that are not on this machine, bytes."""
    rows = list_models(zoo, profile)
    return sum(row.entry.bytes for row in rows if row.state is not State.PRESENT and row.entry.kind == "model")


def weights(zoo: Zoo, profile: str) -> Finding:
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
    return Finding("weights", ok, "; ".join(parts), remedy)


def gpu(profile: str, devices: Path = NVIDIA) -> Finding:
    """Whether an NVIDIA GPU and a torch that can use it are here; the embedded profile needs none.

    Args:
        profile: the paper profile needs one.
        devices: folder in which the driver lists its devices.
    """
    found = len(list(devices.iterdir())) if devices.is_dir() else 0
    if not found:
        ok = profile == "embedded"
        return Finding("GPU", ok, "none; the CPU is used", "" if ok else "use a machine with an NVIDIA GPU")
    torch = metadata.version("torch")
    if torch.endswith("+cpu"):
        ok = profile == "embedded"
        remedy = "" if ok else "install a CUDA build of the same torch version"
        return Finding("GPU", ok, f"{found} NVIDIA, but torch {torch} cannot use it", remedy)
    return Finding("GPU", True, f"{found} NVIDIA, torch {torch}")
