"""The exception for a media file that gives no value.

Belongs here: the one exception of this package. Does not belong here: mistakes of the user (`cer_pipeline.errors`).
"""

from __future__ import annotations

from cer_pipeline.status import Status


class MediaError(Exception):
    """A file or a stream gives no value.

    Args:
        status: undecodable if the file is the cause, failed if another attempt may succeed (limits, a missing file).
        reason: cause, as text for the user.
    """

    def __init__(self, status: Status, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(f"{status}: {reason}")
