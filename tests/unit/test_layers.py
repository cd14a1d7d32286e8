"""The import contracts of pyproject.toml hold, cover every package, and loading the graph loads no model library."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "cv2", "transformers", "mediapipe", "onnxruntime", "sklearn", "matplotlib", "av")
ABOVE_LIBRARY = {"cli", "definitions"}


@pytest.fixture(scope="module")
def contracts() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    return {contract["name"]: contract for contract in settings["contracts"]}


def test_no_import_breaks_a_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_an_upward_import_breaks_a_contract(tmp_path: Path) -> None:
    """Guards the contracts: an import inside a function counts too."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "high.py").touch()
    (package / "low.py").write_text("def f():\n    from package import high\n    return high\n")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_package = "package"\n[[tool.importlinter.contracts]]\n'
        'name = "layers"\ntype = "layers"\ncontainers = ["package"]\nlayers = ["high", "low"]\n'
    )
    done = subprocess.run([lint_imports_command()], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "package.low is not allowed to import package.high" in done.stdout


def lint_imports_command() -> str:
    return str(Path(sys.executable).with_name("lint-imports"))


def test_the_contract_on_dagster_covers_every_package_of_the_library(contracts: dict[str, Any]) -> None:
    layers = contracts["No package imports one above it"]["layers"]
    packages = {name for layer in layers for name in layer.split(" : ")} - ABOVE_LIBRARY
    covered = contracts["The library imports neither Dagster nor its assets"]["source_modules"]
    assert set(covered) == {f"cer_pipeline.{name}" for name in packages}


def heavy_after(modules: list[str]) -> dict[str, list[str]]:
    """Import modules one after the other in a new interpreter; return the heavy libraries that each brought in."""
    code = (
        "import importlib, json, sys\n"
        f"heavy, loaded, result = {HEAVY!r}, set(), {{}}\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    new = {h for h in heavy if h in sys.modules} - loaded\n"
        "    loaded |= new\n"
        "    result[name] = sorted(new)\n"
        "print(json.dumps(result))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_loading_the_definitions_loads_no_model_library() -> None:
    assert heavy_after(["cer_pipeline.definitions"]) == {"cer_pipeline.definitions": []}


def test_every_specs_module_is_light() -> None:
    paths = sorted((ROOT / "cer_pipeline").rglob("specs.py"))
    assert paths
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    assert heavy_after(modules) == {module: [] for module in modules}
