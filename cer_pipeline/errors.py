"""Errors that a user can cause or must act on, each with what, where and the next step.

Belongs here: exception types that several packages use. Does not belong here: printing them (`cli`).
"""

from __future__ import annotations


class CerError(Exception):
    """A mistake in usage or input, with a message of one line.

    Args:
        what: the error, as a short clause ("the folder does not exist").
        where: path, option, row or name that the error concerns; may be empty.
        then: next step for the user, as an imperative; may be empty.
    """

    def __init__(self, what: str, where: str = "", then: str = "") -> None:
        self.what = what
        self.where = where
        self.then = then
        super().__init__(self.line())

    def line(self) -> str:
        """Return the message of one line."""
        text = self.what if not self.where else f"{self.what}: {self.where}"
        return text if not self.then else f"{text} - {self.then}"


class ModelUnavailable(CerError):
    """A weight that a stage needs is not on this machine (runs never download).

    Args:
        model: its zoo id.
        then: the step that brings it; by default a pull, and `pulled` is set.
    """

    def __init__(self, model: str, then: str = "") -> None:
        self.model, self.pulled = model, not then
        super().__init__("its weights are not on this machine", model, then or f"run `cer models pull {model}`")
