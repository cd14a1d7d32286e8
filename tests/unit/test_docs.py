"""The documents say what the code is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.status import Status

REPOSITORY = Path(__file__).resolve().parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_reference_is_up_to_date() -> None:
    made = generator()
    assert made.TABLES.read_text("utf-8") == made.tables_document(), "run: python docs/generate.py"
    assert set(made.MEANING) == {str(status) for status in Status}


def test_the_pictures_of_the_architecture_are_up_to_date() -> None:
    made = generator()
    text = made.ARCHITECTURE.read_text("utf-8")
    assert text == made.architecture_document(text), "run: python docs/generate.py"
    assert text.count("```mermaid") == 2


def test_the_examples_of_extensions_are_up_to_date_and_short() -> None:
    made = generator()
    text = made.EXTENDING.read_text("utf-8")
    assert text == made.extending_document(text), "run: python docs/generate.py"
    examples = sorted((REPOSITORY / "docs" / "examples").glob("*.py"))
    assert [path.stem for path in examples] == sorted(made.EXAMPLES)
    assert all(len(path.read_text("utf-8").splitlines()) < 60 for path in examples)


def test_every_place_that_the_architecture_names_exists() -> None:
    table = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8").partition("open Y")[2]
    places = [cell.split("|")[2] for cell in table.splitlines() if cell.startswith("| ") and "`" in cell]
    assert len(places) >= 20
    for cell in places:
        folder = REPOSITORY
        for place in re.findall(r"`([^`]+)`", cell):
            path = REPOSITORY / place if (REPOSITORY / place).exists() else folder / place
            assert path.exists(), place
            folder = path if folder == REPOSITORY else folder


def test_every_column_has_a_meaning() -> None:
    for spec in stages(load_profile()):
        assert all(column.meaning for column in spec.table.columns), spec.name


def test_the_readme_names_every_package_that_the_user_named() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    named = (
        "dagster torch transformers ultralytics mediapipe open_clip_torch mamba-ssm torchaudio silero-vad nemo_toolkit"
    )
    for package in [*named.split(), "vllm", "pyarrow", "pandas", "ffmpeg-python"]:
        assert f"| {package} |" in readme or f"| {package}," in readme or f", {package} |" in readme, package
