"""The documents say what the code is."""

from __future__ import annotations

import importlib.util
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
    assert made.TARGET.read_text("utf-8") == made.document(), "run: python docs/generate.py"
    assert set(made.MEANING) == {str(status) for status in Status}


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
