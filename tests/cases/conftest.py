"""Fixtures for the case folders: one home in which the files of all cases are processed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cer_pipeline.zoo import Zoo
from tests.cases.case_home import CORPUS, Home

ENDINGS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mts", ".wmv", ".3gp", ".flv"}


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    """The case folders, beside the folder of real data."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no case folders: {folder} does not exist (set CER_SHARED)")
    return folder


@pytest.fixture(scope="session")
def processed(cases: Path, media: Path, weights: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The media files of all cases, and the two clips that most are made of, as one processed corpus.

    The id of a file is CASE/NAME, with the two digits of its case.
    """
    del weights
    base = tmp_path_factory.mktemp("cases")
    home, folder = Home(base / "home"), base / "files"
    for file in sorted(cases.glob("*/input/*")):
        if file.suffix.lower() in ENDINGS:
            target = folder / file.parts[-3][:2] / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    (folder / "plain").mkdir()
    for name in ("obama_speech.mp4", "speaker_a.mp4"):
        shutil.copyfile(media / name, folder / "plain" / name)
    code, text = home.cer("corpus", "add", CORPUS, str(folder))
    assert code == 0, text
    code, text = home.cer("run", CORPUS)
    assert code == 0, text[-3000:]
    return home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path / "home")
