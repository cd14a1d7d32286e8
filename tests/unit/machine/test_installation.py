"""Installed packages are loaded in child processes; errors, crashes and hangs are reported with the package name."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from cer_pipeline.machine import child, installation, trials
from cer_pipeline.machine.system_libraries import REQUIRED, WINDOWS, missing, named_in, packages
from cer_pipeline.pipeline import models_of, stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.zoo import Zoo, list_models

ROOT = Path(__file__).resolve().parents[3]

ATTEMPTS = """
import os, signal, sys, time
from cer_pipeline.machine.child import serve
def attempt(name):
    print("noise on standard output", flush=True)
    os.write(1, b"noise of a library\\n")
    if name == "raises":
        raise OSError("two\\nlines")
    if name == "exits":
        sys.exit(3)
    if name == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "leaves":
        os._exit(7)
    if name == "hangs":
        time.sleep(60)
serve(sys.argv[1:], attempt)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules and distributions can be imported, here and in child processes."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def distribution(folder: Path, name: str, code: str, tag: str = "py3-none-any") -> str:
    """A made-up installed package."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    return name


# --- attempts in a child process ---


def test_every_attempt_is_answered_whatever_the_others_do(folder: Path) -> None:
    (folder / "some_attempts.py").write_text(ATTEMPTS)
    names = ["good", "raises", "crashes", "leaves", "exits", "also good"]
    errors = child.run_attempts("some_attempts", names)
    assert errors == {
        "good": "",
        "raises": "OSError: two lines",
        "crashes": "it ends the process (SIGSEGV)",
        "leaves": "it ends the process (exit code 7)",
        "exits": "SystemExit: 3",
        "also good": "",
    }


def test_a_hang_is_ended_and_named(folder: Path) -> None:
    (folder / "some_attempts.py").write_text(ATTEMPTS)
    errors = child.run_attempts("some_attempts", ["good", "hangs"], time_limit_s=3)
    assert errors == {"good": "", "hangs": "it ends the process (no answer within 3 s)"}


# --- packages ---


def test_the_direct_dependencies_are_those_of_the_project() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[=<>]", entry)[0] for entry in listed]
    assert sorted(installation.direct_dependencies()) == sorted(names)


def test_what_the_project_imports_is_what_is_tried() -> None:
    extras = [name for extra in ("gpu", "cuda", "asr") for name in installation.direct_dependencies(extra)]
    names = [*installation.direct_dependencies(), *extras, "torchvision"]  # which comes with the extra gpu
    tried = {m.split(".")[0] for name in names for m in installation.modules(name)}
    imported = set()
    for path in (p for part in ("cer_pipeline", "assets", "resources") for p in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    # pydantic is the interface of dagster; omegaconf comes with nemo_toolkit, whose module is named nemo.
    excluded = {"cer_pipeline", "assets", "resources", "pydantic", "nemo", "omegaconf"}
    assert imported - excluded - set(sys.stdlib_module_names) <= tried


def test_a_wheel_without_its_native_library_is_named_with_its_build_and_the_remedy(folder: Path) -> None:
    name = distribution(folder, "purepkg", "raise OSError(\"cannot load library 'libpure.so': not found\")")
    (loaded,) = installation.load_all([name])
    assert loaded.error == "OSError: cannot load library 'libpure.so': not found; wheel py3-none-any"
    assert loaded.remedy.endswith("-m pip install --force-reinstall --no-deps --no-cache-dir 'purepkg'")


def test_a_crash_is_named_and_the_packages_after_it_are_still_tried(folder: Path) -> None:
    crash = distribution(folder, "crashpkg", "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "cp311-avx512")
    good = distribution(folder, "goodpkg", "value = 1")
    first, second = installation.load_all([crash, good])
    assert (first.name, first.error) == ("crashpkg", "it ends the process (SIGILL); wheel cp311-avx512")
    assert (second.name, second.error) == ("goodpkg", "")


def test_a_missing_system_library_has_the_command_that_installs_it(folder: Path) -> None:
    text = "libEGL.so.1: cannot open shared object file: No such file or directory"
    known = distribution(folder, "knownpkg", f'raise ImportError("{text}")')
    other = distribution(folder, "otherpkg", f'raise ImportError("{text.replace("EGL", "Strange")}")')
    first, second = installation.load_all([known, other])
    assert first.remedy.removeprefix("sudo ") == "apt-get install -y --no-install-recommends libegl1"
    assert second.remedy == "install the system package that holds libStrange.so.1"


def test_a_package_that_is_absent_is_named_with_its_pinned_version(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["Absent_Pkg==4.2", "numpy==2", "ray==1; extra == 'ray'"]
    monkeypatch.setattr(installation.metadata, "requires", lambda _: requires)
    assert installation.direct_dependencies() == ["absent-pkg", "numpy"]
    absent, numpy = installation.load_all()
    assert "PackageNotFoundError" in absent.error
    assert absent.remedy.endswith("'Absent_Pkg==4.2'")
    assert numpy.error == ""


# --- libraries ---


def test_missing_libraries_are_found_by_loading_them() -> None:
    def load(name: str) -> object:
        if name == "libEGL.so.1":
            raise OSError(name)
        return object()

    assert missing(load=load) == ["libEGL.so.1"]
    assert missing(["libc.so.6", "libnothing.so.9"]) == ["libnothing.so.9"]


def test_each_library_has_a_package_and_two_may_share_one() -> None:
    assert packages([*REQUIRED, *WINDOWS, "libunknown.so"]) == sorted({*REQUIRED.values(), *WINDOWS.values()})
    message = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    assert named_in(message) == ["libGL.so.1"]
    assert named_in("ImportError: No module named 'x'") == []


# --- trials ---


def test_every_model_of_the_embedded_profile_is_tried(weights: Zoo) -> None:
    needed = list_models(weights, models_of(stages(load_profile())))
    assert set(trials.MODELS) == {row.entry.id for row in needed if row.entry.kind == "model"}


@pytest.mark.slow
def test_a_model_that_does_not_load_is_found_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken file"
    broken.write_bytes(b"no model")
    errors = trials.try_all({"face_landmarker": broken, "silero_vad": broken, "no such model": broken})
    assert errors.pop(trials.DECODING) == ""
    assert set(errors) == {"face_landmarker", "silero_vad"}
    assert all(errors.values())
