"""The typed outcome that every row carries.

Belongs here: the vocabulary and what each word promises. A row is never dropped, forward-filled or zero-filled: a unit
that has no value has a row that says why.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Why a row has, or has not, a value."""

    OK = "ok"
    NO_VIDEO = "no_video"  # the container has no video stream, or none at this time
    NO_FACE = "no_face"
    NO_AUDIO = "no_audio"  # the container has no audio stream
    NO_SPEECH = "no_speech"
    EMPTY_TRANSCRIPT = "empty_transcript"  # speech was found, but no word was recognised, or none that can be believed
    NOT_ENGLISH = "not_english"  # speech of another language, where what reads it knows English only
    UNDECODABLE = "undecodable"  # the file, or the span of it, is damaged
    MODEL_UNAVAILABLE = "model_unavailable"  # a weight or a trained head is not on this machine
    NO_CAPTION = "no_caption"  # a view has no text for this segment, or none that is a caption
    NO_LABEL = "no_label"  # nobody annotated it, or every annotation in it is a sentinel
    NOT_APPLICABLE = "not_applicable"  # the method says nothing of this kind of input; nothing is missing
    FAILED = "failed"  # an unforeseen error; `reason` says which; tried again on the next materialisation


QUIET: Final[frozenset[str]] = frozenset({Status.OK, Status.NOT_APPLICABLE})
"""Statuses that need nobody's attention: the value is there, or none is due."""

RETRIED: Final[frozenset[str]] = frozenset({Status.FAILED})
"""Statuses that are never cached, so that the next materialisation tries again."""
