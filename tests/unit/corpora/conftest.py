"""Fixtures for registering corpora."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.annotation_fit import Length
from cer_pipeline.corpora.corpus import File


@pytest.fixture(scope="session")
def known_lengths() -> dict[str, Length]:
    """SHA-256 -> length of every file that was opened through `lengths_once`."""
    return {}


@pytest.fixture
def lengths_once(monkeypatch: pytest.MonkeyPatch, known_lengths: dict[str, Length]) -> None:
    """Open each content once a session: every registration with annotations starts a child process otherwise."""
    measure = registry._lengths

    def lengths(root: Path, files: Mapping[str, File], probing: registry.Progress | None) -> dict[str, Length]:
        new = {content: file for content, file in files.items() if content not in known_lengths}
        known_lengths.update(measure(root, new, probing))
        return {content: known_lengths[content] for content in files}

    monkeypatch.setattr(registry, "_lengths", lengths)
