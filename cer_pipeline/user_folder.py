"""Where the folders of a user begin.

Belongs here: finding the user's home folder. Does not belong here: what lies below it (`store.home`, `zoo`).
"""

from __future__ import annotations

from pathlib import Path

from cer_pipeline.errors import CerError


def user_folder(variable: str) -> Path:
    """The home folder of the user, by `$HOME` or the system's list of users.

    Args:
        variable: what the user can set instead.

    Raises:
        CerError: neither names one.
    """
    try:
        folder = Path.home()
    except RuntimeError:  # no $HOME, and a user whom the system does not know, as in some containers
        folder = Path()
    if not folder.is_absolute():
        raise CerError("the home folder of this user is not known", "$HOME", f"set {variable} to a folder of your own")
    return folder
