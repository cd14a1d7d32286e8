"""The doctor names what is missing, with one command that mends it, and loads nothing itself."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from cer_pipeline import doctor
from cer_pipeline.doctor import SYSTEM_LIBRARIES, diagnose
from cer_pipeline.store.home import Home
from cer_pipeline.zoo import Entry, File, Zoo

EVERY_GLIBC = re.compile(r"(lib(c|m|dl|rt|pthread|gcc_s|util|mvec)\.so.*|ld-linux.*)")  # python itself needs these
BUNDLED_ZLIB = "libz.so.1"  # Python's own zlib needs it too


def without(*missing: str) -> Callable[[str], object]:
    """A loader to which some libraries are missing."""

    def load(name: str) -> object:
        if name in missing:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    return load


def zoo_of(tmp_path: Path, content: bytes | None) -> Zoo:
    """A zoo of one model of the bytes "weights"; on this machine lies `content` (None: nothing)."""
    files = (File("m", 7, hashlib.sha256(b"weights").hexdigest()),)
    if content is not None:
        (tmp_path / "mine" / "m").mkdir(parents=True)
        (tmp_path / "mine" / "m" / "m").write_bytes(content)
    return Zoo(
        tmp_path / "cache", {"m": Entry("m", "m", "testing", "model", "embedded", "MIT", files, ())}, tmp_path / "mine"
    )


def test_a_machine_with_every_library_gets_one_good_line() -> None:
    (finding,) = doctor.system_libraries(without())
    assert finding.ok
    assert finding.remedy == ""


def test_each_missing_library_is_named_with_the_one_command_for_all() -> None:
    findings = doctor.system_libraries(without("libEGL.so.1", "libGLESv2.so.2", "libgthread-2.0.so.0"))
    assert [f.name for f in findings] == ["libEGL.so.1", "libGLESv2.so.2", "libgthread-2.0.so.0"]
    assert not any(f.ok for f in findings)
    assert ["mediapipe" in f.detail for f in findings] == [True, True, False]
    (command,) = {f.remedy for f in findings}
    assert command.removeprefix("sudo ") == "apt-get install -y libegl1 libgles2 libglib2.0-0"


def test_a_missing_library_reaches_the_whole_diagnosis(tmp_path: Path) -> None:
    found = diagnose(home=Home(tmp_path), zoo=zoo_of(tmp_path, None), load=without("libGL.so.1"))
    assert [f.name for f in found if "apt-get" in f.remedy] == ["libGL.so.1"]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not on this machine")
def test_the_list_of_libraries_is_what_the_installed_wheels_link_to() -> None:
    site = Path(str(metadata.distribution("mediapipe").locate_file("")))
    objects = [p for part in ("mediapipe", "cv2", "opencv_contrib_python.libs") for p in (site / part).rglob("*.so*")]
    assert objects
    bundled = {path.name for path in objects}
    dynamic = subprocess.run(["readelf", "-d", *map(str, objects)], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)) - bundled - {BUNDLED_ZLIB}
    from_system = {n for n in needed if not EVERY_GLIBC.fullmatch(n) and not re.search(r"-[0-9a-f]{8}\.", n)}
    assert from_system <= {name for name, _, _ in SYSTEM_LIBRARIES}
    assert {"libEGL.so.1", "libGLESv2.so.2"} <= from_system


def test_missing_weights_come_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    finding = doctor.weights(zoo_of(tmp_path, None), "embedded")
    assert (finding.ok, finding.detail) == (False, "0 of 1 present and verified; missing: m")
    assert finding.remedy == "cer models pull m"


def test_wrong_weights_are_not_reported_as_present(tmp_path: Path) -> None:
    finding = doctor.weights(zoo_of(tmp_path, b"others!"), "embedded")
    assert not finding.ok
    assert "wrong_digest: m" in finding.detail


def test_right_weights_need_no_remedy(tmp_path: Path) -> None:
    finding = doctor.weights(zoo_of(tmp_path, b"weights"), "embedded")
    assert (finding.ok, finding.detail, finding.remedy) == (True, "1 of 1 present and verified", "")


def test_an_old_python_is_told_how_to_choose_another() -> None:
    assert doctor.python_version((3, 11)).ok
    assert doctor.python_version((4, 0)).ok
    old = doctor.python_version((3, 10))
    assert not old.ok
    assert "PYTHON=" in old.remedy


def test_the_ffmpeg_of_the_installation_runs() -> None:
    finding = doctor.ffmpeg()
    assert finding.ok, finding
    assert finding.detail.startswith("ffmpeg version")


def test_a_binary_that_does_not_run_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "binaries" / "ffmpeg-linux"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setattr(doctor, "_package_folder", lambda _: tmp_path)
    assert "exit code 3" in doctor.ffmpeg().detail
    binary.unlink()
    assert doctor.ffmpeg().remedy == "make install"


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
    finding = doctor.writable("home", tmp_path / "new")
    assert not finding.ok
    assert "Permission denied" in finding.detail
    assert "CER_HOME" in finding.remedy


def test_the_embedded_profile_needs_no_gpu_and_the_paper_profile_does(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert doctor.gpu("embedded", nowhere).ok
    assert not doctor.gpu("paper", nowhere).ok
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    assert "1 NVIDIA" in doctor.gpu("embedded", tmp_path / "gpus").detail


def test_looking_loads_no_model_library(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cer_pipeline.doctor import diagnose\n"
        "diagnose()\n"
        "heavy = {'torch', 'mediapipe', 'cv2', 'onnxruntime', 'transformers', 'huggingface_hub', 'imageio_ffmpeg'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
