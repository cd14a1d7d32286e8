"""The doctor names what fails, with one command that mends it, and loads no model library into its own process."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from cer_pipeline.errors import CerError
from cer_pipeline.machine import checks as doctor
from cer_pipeline.machine import gpu_checks
from cer_pipeline.machine.checks import CheckResult, diagnose
from cer_pipeline.machine.installation import LoadResult
from cer_pipeline.machine.system_libraries import REQUIRED, WINDOWS
from cer_pipeline.store.home import Home
from cer_pipeline.zoo import Entry, File, Zoo, list_models

EVERY_GLIBC = re.compile(r"(lib(c|m|dl|rt|pthread|gcc_s|util|mvec)\.so.*|ld-linux.*)")  # python itself needs these
BUNDLED_ZLIB = "libz.so.1"  # Python's own zlib needs it too


def zoo_of(tmp_path: Path, content: bytes | None) -> Zoo:
    """A zoo of one model of the bytes "weights"; on this machine lies `content` (None: nothing)."""
    files = (File("m", 7, hashlib.sha256(b"weights").hexdigest()),)
    if content is not None:
        (tmp_path / "models" / "m").mkdir(parents=True)
        (tmp_path / "models" / "m" / "m").write_bytes(content)
    return Zoo(
        tmp_path / "cache",
        {"m": Entry("m", "m", "testing", "model", "MIT", files, ())},
        tmp_path / "models",
    )


def weights_of(zoo: Zoo) -> CheckResult:
    return doctor.weights(zoo, list_models(zoo))


def test_packages_that_load_get_one_good_line() -> None:
    (result,) = doctor.installed(lambda: [LoadResult("numpy"), LoadResult("torch")])
    assert (result.ok, result.detail, result.remedy) == (True, "all 2 direct dependencies load", "")


def test_each_package_that_does_not_load_is_named_with_its_remedy() -> None:
    results = doctor.installed(
        lambda: [LoadResult("numpy"), LoadResult("av", "OSError: no", "pip"), LoadResult("h5py", "x", "y")]
    )
    assert results == [CheckResult("av", False, "OSError: no", "pip"), CheckResult("h5py", False, "x", "y")]


def test_an_import_from_a_folder_is_no_installation() -> None:
    def load() -> list[LoadResult]:
        raise metadata.PackageNotFoundError("cer-pipeline")

    (result,) = doctor.installed(load)
    assert not result.ok
    assert "make install" in result.remedy


def test_everything_is_checked_and_nothing_is_tried_if_packages_do_not_load(tmp_path: Path) -> None:
    tried: list[list[str]] = []

    def attempt(models: Mapping[str, Path]) -> dict[str, str]:
        tried.append(sorted(models))
        return dict.fromkeys(models, "") | {"decoding": ""}

    def check(content: bytes | None, error: str = "") -> dict[str, CheckResult]:
        shutil.rmtree(tmp_path / "models", ignore_errors=True)
        zoo = zoo_of(tmp_path, content)
        loaded = [LoadResult("av", error)]
        results = diagnose(home=Home(tmp_path), zoo=zoo, models=["m"], load=lambda: loaded, attempt=attempt)
        return {f.name: f for f in results}

    good = check(b"weights")
    assert all(f.ok for f in good.values()), good
    assert {"Python", "packages", "memory", "temporary folder", "home folder", "database", "weights", "trial"} <= set(
        good
    )
    without_weights = check(None)
    assert not without_weights["weights"].ok
    assert {"folder of the weights", "disk of the weights"} <= set(without_weights)
    assert tried == [["m"], []], "what is not verified is not loaded"
    assert "trial" not in check(b"weights", "OSError: no")


def test_a_model_that_does_not_load_is_named() -> None:
    good, bad = doctor.trials({}, lambda _: {"decoding": "", "m": ""}), doctor.trials({}, lambda _: {"m": "no GPU"})
    assert [f.ok for f in good] == [True]
    assert [(f.name, f.ok, f.detail) for f in bad] == [("m", False, "no GPU")]


def test_an_unknown_home_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Home:
        raise CerError("the home folder of this user is not known", "$HOME", "set CER_HOME")

    monkeypatch.setattr(doctor, "default_home", unknown)
    results = diagnose(load=lambda: [LoadResult("av")])
    assert [(f.name, f.remedy) for f in results if not f.ok] == [("folders", "set CER_HOME")]


def test_a_disk_on_which_no_database_works_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.database(tmp_path / "new").ok
    assert list(tmp_path.iterdir()) == []

    def refuse(*_: object, **__: object) -> object:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    result = doctor.database(tmp_path)
    assert not result.ok
    assert "database is locked" in result.detail
    assert "CER_HOME" in result.remedy


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not on this machine")
def test_the_list_of_libraries_is_what_the_installed_wheels_link_to() -> None:
    site = Path(str(metadata.distribution("mediapipe").locate_file("")))
    objects = sorted(p for p in site.rglob("*.so*") if "torchvision" not in p.parts)  # see torchvision_ops
    assert objects
    bundled = {path.name for path in objects}
    dynamic = subprocess.run(["readelf", "-d", *map(str, objects)], capture_output=True, text=True, check=False).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)) - bundled - {BUNDLED_ZLIB}
    from_system = {n for n in needed if not EVERY_GLIBC.fullmatch(n) and not re.search(r"-[0-9a-f]{8}\.", n)}
    headless = any(name == "opencv-python-headless" for name in (d.name for d in metadata.distributions()))
    assert from_system <= set(REQUIRED if headless else REQUIRED | WINDOWS)
    assert set(REQUIRED) <= from_system


def test_missing_weights_come_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    result = weights_of(zoo_of(tmp_path, None))
    assert (result.ok, result.detail) == (False, "0 of 1 present and verified; missing: m")
    assert result.remedy == "cer models pull m"


def test_wrong_weights_are_not_reported_as_present(tmp_path: Path) -> None:
    result = weights_of(zoo_of(tmp_path, b"others!"))
    assert not result.ok
    assert "wrong_digest: m" in result.detail


def test_right_weights_need_no_remedy(tmp_path: Path) -> None:
    result = weights_of(zoo_of(tmp_path, b"weights"))
    assert (result.ok, result.detail, result.remedy) == (True, "1 of 1 present and verified", "")


def test_an_old_python_has_a_remedy() -> None:
    assert doctor.python_version((3, 11)).ok
    assert doctor.python_version((4, 0)).ok
    old = doctor.python_version((3, 10))
    assert not old.ok
    assert "PYTHON=" in old.remedy


def test_little_memory_and_little_disk_are_reported_with_what_is_needed(tmp_path: Path) -> None:
    assert doctor.memory(8e9).ok
    assert "3 GB are needed" in doctor.memory(1e9).detail
    assert doctor.space("disk", tmp_path / "not" / "yet" / "there", 0.0).ok
    assert "are needed" in doctor.space("disk", tmp_path, 1e9).detail


def test_a_home_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.writable("home", tmp_path / "new").ok

    def refuse(**_: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    result = doctor.writable("home", tmp_path / "new")
    assert not result.ok
    assert "Permission denied" in result.detail
    assert "CER_HOME" in result.remedy


def test_the_embedded_profile_needs_no_gpu_and_the_paper_profile_does(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert gpu_checks.device("embedded", nowhere).ok
    assert not gpu_checks.device("paper", nowhere).ok
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    assert "1 NVIDIA" in gpu_checks.device("embedded", tmp_path / "gpus").detail


def test_the_checks_load_no_model_library(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cer_pipeline.machine.checks import diagnose\n"
        "diagnose(load=list, attempt=lambda models: {})\n"
        "heavy = {'torch', 'mediapipe', 'cv2', 'onnxruntime', 'transformers', 'huggingface_hub', 'imageio_ffmpeg'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
