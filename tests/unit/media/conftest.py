"""One child process for all tests of this folder that do not replace it or end it on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cer_pipeline.media.sandbox import Limits, Sandbox
from cer_pipeline.profiles import load_profile


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The child process that opens media, with the limits of the default profile."""
    with Sandbox(Limits.of(load_profile())) as box:
        yield box
