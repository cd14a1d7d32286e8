"""How an asset fails because of a user's mistake.

Belongs here: turning a CerError into what the Dagster UI shows. Does not belong here: raising one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import dagster as dg

from cer_pipeline.errors import CerError


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Fail the step with the one line of a CerError, so that the UI shows that line and no traceback.

    Raises:
        dagster.Failure: in place of a CerError, which stays its cause. A retry would meet the same error.
    """
    try:
        yield
    except CerError as error:
        raise dg.Failure(description=error.line(), allow_retries=False) from error
