"""Fixtures that more than one test module needs: real clips, real weights, a home of its own.

What a machine does not have makes a test skip, with the reason and the command that brings it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from cer_pipeline.pipeline import models_of, stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.torchvision_ops import prepare_torchvision
from cer_pipeline.zoo import State, Zoo, list_models, open_zoo

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pytest_configure() -> None:
    """Set what holds for all tests, before numpy and torch are imported and read it.

    The tensors of the tests are small: further threads only wait for one another, and `make test` runs two workers.
    Examples of hypothesis have no deadline, which a busy machine would miss; speed has tests of its own.
    """
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    settings.register_profile("tests", deadline=None)
    settings.load_profile("tests")
    if find_spec("torchvision"):  # tests import transformers themselves, to make small models
        prepare_torchvision()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: $CER_SHARED/data, else ../shared/data beside the repository."""
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CER_SHARED", repository.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set CER_SHARED)")
    return folder


@pytest.fixture(scope="session")
def media(shared_data: Path) -> Path:
    """The folder of the 19 real clips."""
    return shared_data / "media"


@pytest.fixture(scope="session")
def weights() -> Zoo:
    """The real zoo of this machine, with every model of the embedded profile present and verified."""
    zoo = open_zoo()
    needed = models_of(stages(load_profile()))
    absent = [row.entry.id for row in list_models(zoo, needed) if row.state is not State.PRESENT]
    if absent:
        pytest.skip(f"weights are not on this machine: run `cer models pull {' '.join(absent)}`")
    return zoo


@pytest.fixture
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CER_HOME of this test's own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("CER_HOME", str(home))
    return home
