"""The result of one check of this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Args:
        name: name of the check.
        ok: whether the check passed.
        detail: measured value or error, in a few words.
        remedy: command or step that corrects a failure; empty if the check passed and nothing can be added.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
