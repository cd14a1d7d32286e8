"""Imports point down only, and loading the graph loads no model library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "cv2", "transformers", "mediapipe", "onnxruntime", "sklearn", "matplotlib", "av")
ABOVE_LIBRARY = {"dagster", "dagster_graphql", "dagster_shared", "dagster_webserver", "assets", "resources"}
# What may import what is above: the definitions, the command line, and its entry point.
TOP_OF_LIBRARY = tuple(ROOT / "cer_pipeline" / name for name in ("definitions.py", "cli"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def offenders(paths: list[Path], forbidden: set[str]) -> list[str]:
    """Lines "file imports module" for imports of forbidden modules or of modules below them."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


def test_the_library_imports_nothing_from_above_it() -> None:
    library = [p for p in files("cer_pipeline") if not any(p == top or top in p.parents for top in TOP_OF_LIBRARY)]
    assert len(library) > 10
    assert offenders(library, ABOVE_LIBRARY | {"cer_pipeline.definitions", "cer_pipeline.cli"}) == []


def test_resources_import_neither_assets_nor_definitions() -> None:
    assert files("resources")
    assert offenders(files("resources"), {"assets", "cer_pipeline.definitions", "cer_pipeline.cli"}) == []


def test_assets_import_neither_definitions_nor_the_command() -> None:
    assert files("assets")
    assert offenders(files("assets"), {"cer_pipeline.definitions", "cer_pipeline.cli"}) == []


def test_an_offending_import_is_found(tmp_path: Path) -> None:
    """Guards the guard: each form of import counts, also inside a function; a longer name does not."""
    bad = tmp_path / "bad.py"
    bad.write_text("import dagster as dg\nimport assetsmith\ndef f():\n    from cer_pipeline import definitions\n")
    assert set(imports(bad)) >= {"dagster", "cer_pipeline.definitions"}
    hits = [n for n in imports(bad) if any(n == m or n.startswith(f"{m}.") for m in ("dagster", "assets"))]
    assert hits == ["dagster"]


def heavy_after(modules: list[str]) -> dict[str, list[str]]:
    """Import modules one after the other in a new interpreter; for each the heavy libraries that it brought in."""
    code = (
        "import importlib, json, sys\n"
        f"heavy, seen, result = {HEAVY!r}, set(), {{}}\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    new = {h for h in heavy if h in sys.modules} - seen\n"
        "    seen |= new\n"
        "    result[name] = sorted(new)\n"
        "print(json.dumps(result))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_loading_the_definitions_loads_no_model_library() -> None:
    if not TOP_OF_LIBRARY[0].is_file():
        pytest.fail("cer_pipeline/definitions.py is missing")
    assert heavy_after(["cer_pipeline.definitions"]) == {"cer_pipeline.definitions": []}


def test_every_specs_module_is_light() -> None:
    paths = [p for p in files("cer_pipeline") if p.name == "specs.py"]
    assert paths
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]
    assert heavy_after(modules) == {module: [] for module in modules}
