"""Whether everything that is installed loads: each direct dependency with its native parts, in a child process.

Belongs here: loading, and what an error of loading means. Does not belong here: whether the machine suffices
(`checks`), or installing.

A version that a resolver calls right may still not load: a wheel without its native library, one for another processor,
a system library that is missing. So nothing is judged by names or versions.
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

DISTRIBUTION: Final = "cer-pipeline"

# What is imported of a dependency where that is not its name with underscores: another name, or modules that the
# pipeline uses and that importing the package alone leaves unloaded.
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "av": ("av", "av.audio.resampler", "av.video.reformatter"),
    "dagster": ("dagster", "sqlalchemy", "grpc", "sqlite3"),
    "faster-whisper": ("faster_whisper", "ctranslate2"),
    "ffmpeg-python": ("ffmpeg",),
    "grpcio-health-checking": ("grpc_health.v1.health",),
    "matplotlib": ("matplotlib.backends.backend_agg", "PIL.Image"),
    "mediapipe": ("mediapipe.tasks.python.vision", "cv2"),
    "pyarrow": ("pyarrow.parquet", "pyarrow.csv"),
    "safetensors": ("safetensors.numpy",),
    "scikit-learn": ("sklearn.linear_model", "scipy.optimize"),
    "transformers": ("transformers.models.bert.modeling_bert",),
}


def _mediapipe() -> None:
    from mediapipe.tasks.python.core.mediapipe_c_bindings import load_raw_library

    load_raw_library()  # the import alone does not open it; it needs libEGL and libGLESv2


def _imageio_ffmpeg() -> None:
    from imageio_ffmpeg import get_ffmpeg_exe

    done = subprocess.run([get_ffmpeg_exe(), "-version"], check=False, capture_output=True)
    if done.returncode:
        raise OSError(f"its ffmpeg binary does not run (exit code {done.returncode})")


# What loads native parts that no import loads.
CALLS: Final[dict[str, Callable[[], None]]] = {"mediapipe": _mediapipe, "imageio-ffmpeg": _imageio_ffmpeg}


@dataclass(frozen=True)
class LoadResult:
    """How loading one distribution went.

    Args:
        name: of the distribution.
        error: what went wrong, in one line; empty where it loaded.
        remedy: the command or step that mends it.
    """

    name: str
    error: str = ""
    remedy: str = ""


def direct_dependencies() -> list[str]:
    """The distributions that the installed cer-pipeline requires, without its extras.

    Raises:
        importlib.metadata.PackageNotFoundError: cer-pipeline is not installed, only imported.
    """
    found = []
    for requirement in metadata.requires(DISTRIBUTION) or []:
        specifier, _, marker = requirement.partition(";")
        name = re.match(r"[\w.-]+", specifier)
        if name and "extra ==" not in marker:
            found.append(re.sub(r"[-_.]+", "-", name[0]).lower())
    return found


def load_all(names: Sequence[str] | None = None) -> list[LoadResult]:
    """Load distributions in child processes, one after the other.

    Args:
        names: of distributions; by default all direct dependencies.

    Raises:
        importlib.metadata.PackageNotFoundError: cer-pipeline is not installed, only imported.
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
    """The build that is installed, as "; wheel py3-none-any": a pure one where a native one is wanted explains much."""
    try:
        text = metadata.distribution(name).read_text("WHEEL") or ""
    except metadata.PackageNotFoundError:
        return ""
    tags = re.findall(r"^Tag: (.+)$", text, re.MULTILINE)
    return f"; wheel {tags[0]}" if tags else ""


def modules(name: str) -> tuple[str, ...]:
    """What is imported of a distribution."""
    return MODULES.get(name, (name.replace("-", "_"),))


def _load(name: str) -> None:
    metadata.distribution(name)  # raises PackageNotFoundError where another package of the same import name is there
    for module in modules(name):
        importlib.import_module(module)
    if name in CALLS:
        CALLS[name]()


if __name__ == "__main__":
    serve(sys.argv[1:], _load)
