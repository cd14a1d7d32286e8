"""Imports point down only, and loading the graph loads no model library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "cv2", "transformers", "mediapipe", "onnxruntime", "sklearn", "matplotlib", "av")
ABOVE_LIBRARY = {"dagster", "dagster_graphql", "dagster_shared", "dagster_webserver", "assets", "resources"}
# What may import what is above: the definitions, the command line, and its entry point.
TOP_OF_LIBRARY = tuple(ROOT / "cer_pipeline" / name for name in ("definitions.py", "cli"))

LAYERS = (
    # From the bottom up; the packages and modules of one layer may import each other.
    "labels status errors tables arrow metrics sums sound_file user_folder torch_threads chart_style",
    "profiles",
    "stage branch plans",
    "zoo",
    "store",
    "engines",
    "media",
    "corpora",
    "perception",
    "training",
    "fusion",
    "compound",
    "branches",
    "predictions",
    "evaluation",
    "lineage",
    "reproduce",
    "report",
    "export",
    "pipeline",
    "machine",
    "definitions",
    "cli",
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names.split()}


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


def module_imports() -> dict[str, set[str]]:
    """Module of cer_pipeline -> the modules of cer_pipeline that it imports, wherever in the file."""
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
               for p in files("cer_pipeline")}  # fmt: skip
    return {module: {name for name in imports(path) if name in modules} - {module} for module, path in modules.items()}


def test_every_package_has_a_layer_and_imports_only_from_its_own_and_below() -> None:
    graph = module_imports()
    assert len(graph) > 150
    tops = {module.split(".")[1] for module in graph if "." in module}
    assert tops == LAYER.keys()
    upward = [
        f"{module} imports {name}"
        for module, names in graph.items()
        for name in names
        if "." in module and "." in name and LAYER[name.split(".")[1]] > LAYER[module.split(".")[1]]
    ]
    assert upward == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, names in module_imports().items():
        package = module.split(".")[1] if "." in module else ""
        graph.setdefault(package, set()).update(name.split(".")[1] for name in names if "." in name)
    for package, names in graph.items():
        names.discard(package)
    assert list(TopologicalSorter(graph).static_order()), "raises CycleError where there is a circle"


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
