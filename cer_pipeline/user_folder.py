"""Find the home folder of the user.

Belongs here: finding it. Does not belong here: the folders below it (`store.home`, `zoo`).
"""

from __future__ import annotations

from pathlib import Path

from cer_pipeline.errors import CerError


def user_folder(variable: str) -> Path:
    """Return the home folder of the user, from `$HOME` or the user database of the system.

    Args:
        variable: environment variable that the user can set instead, for the error message.

    Raises:
        CerError: neither of them names a folder.
    """
    try:
        folder = Path.home()
    except RuntimeError:  # no $HOME, and no entry in the user database, as in some containers
        folder = Path()
    if not folder.is_absolute():
        raise CerError("the home folder of this user is not known", "$HOME", f"set {variable} to a folder of your own")
    return folder
