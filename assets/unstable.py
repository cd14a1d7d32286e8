"""Dagster's warnings of interfaces that may still change.

Belongs here: the one place that silences them; dagster is pinned, and a new version runs through the tests.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import dagster as dg


@contextlib.contextmanager
def unstable_interfaces() -> Iterator[None]:
    """Silence the warnings of Dagster's preview and beta interfaces that are called inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
