"""Fixtures over real pictures and models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from cer_pipeline.zoo import Zoo

if TYPE_CHECKING:
    from cer_pipeline.perception.faces.detector import CenterFace


@pytest.fixture(scope="session")
def picture(media: Path) -> Callable[[str, float], NDArray[np.uint8]]:
    """picture("clip.mp4", seconds) -> RGB of a real clip."""
    from tests.helpers.pictures import picture_at

    return cache(lambda clip, time_s: picture_at(media / clip, time_s))


@pytest.fixture(scope="session")
def detector(weights: Zoo) -> CenterFace:
    """The face detector with the settings of the embedded profile."""
    from cer_pipeline.perception.faces.detector import CenterFace

    return CenterFace(weights.path("centerface"), long_side=640, score=0.5, overlap=0.3, smallest=20)
