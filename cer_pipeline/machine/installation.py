"""Load each direct dependency with its native parts in a child process.

Belongs here: loading, and the remedy for each error. Does not belong here: other checks of the machine (`checks`), or
installing.

A package may not load although its version is right: its wheel lacks the native library or is for another processor, or
a system library is missing. So packages are checked by loading them, not by names or versions.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from cer_pipeline.machine.child import run_attempts, serve
from cer_pipeline.machine.system_libraries import named_in, packages
from cer_pipeline.torchvision_ops import prepare_torchvision

DISTRIBUTION: Final = "cer-pipeline"

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "av": ("av", "av.audio.resampler", "av.video.reformatter"),
    "dagster": ("dagster", "sqlalchemy", "grpc", "sqlite3"),
    "faster-whisper": ("faster_whisper", "ctranslate2"),
    "ffmpeg-python": ("ffmpeg",),
    "grpcio-health-checking": ("grpc_health.v1.health",),
    "matplotlib": ("matplotlib.backends.backend_agg", "PIL.Image"),
    "mediapipe": ("mediapipe.tasks.python.vision", "cv2"),
    "open-clip-torch": ("open_clip",),
    "pyarrow": ("pyarrow.parquet", "pyarrow.csv"),
    "safetensors": ("safetensors.numpy",),
    "scikit-learn": ("sklearn.linear_model", "scipy.optimize"),
    "transformers": ("transformers.models.bert.modeling_bert",),
}
"""Modules to import for a distribution, if they differ from its name with underscores: another name, or modules that
the pipeline uses and that the package itself does not import."""


OVER_TORCHVISION: Final = frozenset({"open-clip-torch", "transformers", "ultralytics"})
"""Distributions that import torchvision where it is installed."""


def _mediapipe() -> None:
    from mediapipe.tasks.python.core.mediapipe_c_bindings import load_raw_library

    load_raw_library()  # importing the package does not load it; it needs libEGL and libGLESv2


def _imageio_ffmpeg() -> None:
    from imageio_ffmpeg import get_ffmpeg_exe

    done = subprocess.run([get_ffmpeg_exe(), "-version"], check=False, capture_output=True)
    if done.returncode:
        raise OSError(f"its ffmpeg binary does not run (exit code {done.returncode})")


CALLS: Final[dict[str, Callable[[], None]]] = {"mediapipe": _mediapipe, "imageio-ffmpeg": _imageio_ffmpeg}
"""Functions that load native parts which no import loads."""


@dataclass(frozen=True)
class LoadResult:
    """Result of loading one distribution.

    Args:
        name: name of the distribution.
        error: error in one line; empty if it loaded.
        remedy: command or step that corrects the error.
    """

    name: str
    error: str = ""
    remedy: str = ""


def direct_dependencies() -> list[str]:
    """Return the distributions that the installed cer-pipeline requires, without its extras.

    Raises:
        importlib.metadata.PackageNotFoundError: cer-pipeline is imported without being installed.
    """
    names = []
    for requirement in metadata.requires(DISTRIBUTION) or []:
        specifier, _, marker = requirement.partition(";")
        name = re.match(r"[\w.-]+", specifier)
        if name and "extra ==" not in marker:
            names.append(re.sub(r"[-_.]+", "-", name[0]).lower())
    return names


def load_all(names: Sequence[str] | None = None) -> list[LoadResult]:
    """Load distributions in child processes, one after the other.

    Args:
        names: names of distributions; by default all direct dependencies.

    Raises:
        importlib.metadata.PackageNotFoundError: cer-pipeline is imported without being installed.
    """
    errors = run_attempts(__name__, direct_dependencies() if names is None else names)
    return [
        LoadResult(name, error + _tag(name), _remedy(name, error)) if error else LoadResult(name)
        for name, error in errors.items()
    ]


def _remedy(name: str, error: str) -> str:
    libraries = named_in(error)
    if not libraries:
        return _reinstall(name)
    known = packages(libraries)
    if not known:
        return f"install the system package that holds {', '.join(libraries)}"
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y --no-install-recommends {' '.join(known)}"


def _reinstall(name: str) -> str:
    pinned = next((r.partition(";")[0].strip() for r in metadata.requires(DISTRIBUTION) or [] if _is(r, name)), name)
    python = sys.executable
    return f"'{python}' -m pip install --force-reinstall --no-deps --no-cache-dir '{pinned}'"


def _is(requirement: str, name: str) -> bool:
    return bool(re.match(rf"{name.replace('-', '[-_.]')}(?![\w.-])", requirement, re.IGNORECASE))


def _tag(name: str) -> str:
    """Return the tag of the installed wheel, as "; wheel py3-none-any": a pure wheel may lack its native library."""
    try:
        text = metadata.distribution(name).read_text("WHEEL") or ""
    except metadata.PackageNotFoundError:
        return ""
    tags = re.findall(r"^Tag: (.+)$", text, re.MULTILINE)
    return f"; wheel {tags[0]}" if tags else ""


def modules(name: str) -> tuple[str, ...]:
    """Return the modules to import for a distribution."""
    return MODULES.get(name, (name.replace("-", "_"),))


def _load(name: str) -> None:
    metadata.distribution(name)  # raises PackageNotFoundError if a package of another name provides the module
    if name in OVER_TORCHVISION:
        prepare_torchvision()
    for module in modules(name):
        importlib.import_module(module)
    if name in CALLS:
        CALLS[name]()


if __name__ == "__main__":
    serve(sys.argv[1:], _load)
