"""The typed status of a row.

Belongs here: the statuses and their meaning. A row is never dropped, forward-filled or zero-filled: a unit without a
value has a row with the reason.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Why a row has a value or has none."""

    OK = "ok"
    NO_VIDEO = "no_video"  # the container has no video stream, or none at this time
    NO_FACE = "no_face"
    NO_AUDIO = "no_audio"  # the container has no audio stream
    NO_SPEECH = "no_speech"
    EMPTY_TRANSCRIPT = "empty_transcript"  # speech was detected, but no reliable word was recognised
    NOT_ENGLISH = "not_english"  # speech in another language, for a model that knows English only
    UNDECODABLE = "undecodable"  # the file, or this part of it, is damaged
    MODEL_UNAVAILABLE = "model_unavailable"  # a weight or a trained head is not on this machine
    NO_CAPTION = "no_caption"  # a view has no text for this segment, or none that is a caption
    NO_LABEL = "no_label"  # there is no annotation, or all annotations mean "not annotated"
    NOT_APPLICABLE = "not_applicable"  # the method does not apply to this kind of input; nothing is missing
    FAILED = "failed"  # unexpected error, given in `reason`; the next materialisation computes the unit again


EXPECTED: Final[frozenset[str]] = frozenset({Status.OK, Status.NOT_APPLICABLE})
"""Statuses that need no attention: the row has a value, or must have none."""

RETRIED: Final[frozenset[str]] = frozenset({Status.FAILED})
"""Statuses that are never cached, so that the next materialisation computes the unit again."""
