"""How a step fails: a user's mistake in one line, a passing I/O error by another attempt.

Belongs here: the translation of exceptions into what Dagster does next. Does not belong here: raising a CerError.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import dagster as dg

from cer_pipeline.errors import CerError

PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EIO,
        errno.ENOLCK,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    }
)
"""Errors of a drive or a network folder that may be over a moment later. A full disk and a missing right are not."""
RETRIES = 2
WAIT_S = 10.0  # a network folder is usually mounted again after seconds; finished chunks are in the cache meanwhile


@contextlib.contextmanager
def step_errors() -> Iterator[None]:
    """Turn the errors of a step into those that Dagster acts on.

    Raises:
        dagster.Failure: in place of a CerError, which stays its cause: the UI shows the one line of the error and no
            traceback, and the step is not tried again.
        dagster.RetryRequested: in place of an OSError of `PASSING`.
    """
    try:
        yield
    except CerError as error:
        raise dg.Failure(description=error.line(), allow_retries=False) from error
    except OSError as error:
        if error.errno not in PASSING:
            raise
        raise dg.RetryRequested(RETRIES, WAIT_S) from error
