"""What a media file that gives no value is told as.

Belongs here: the one exception of this layer. Does not belong here: mistakes of the user (`cer_pipeline.errors`).
"""

from __future__ import annotations

from cer_pipeline.status import Status


class MediaError(Exception):
    """A file, or a stream of it, gives no value.

    Args:
        status: undecodable where the file is at fault, failed where trying again may help (limits, a vanished file).
        reason: what happened, for people.
    """

    def __init__(self, status: Status, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(f"{status}: {reason}")
