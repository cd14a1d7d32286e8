"""The home folder: its place and the layout below it.

Belongs here: paths below `CER_HOME`, and how the folder is found. Does not belong here: reading or writing.

    tables/TABLE/corpus=NAME/shard=sNNN/data.parquet   tables, for users to read
    cache/TABLE/FINGERPRINT/corpus=NAME/shard=sNNN/    rows by key, append-only
    corpora/NAME.json                                  registered corpora
    dagster/                                           state of Dagster
    heads/BRANCH/DIGEST/                               heads trained on this machine, each with its card
    training/BRANCH/KEY/                               state of a training, from which a stopped one continues
    settings.toml                                      settings that override the profile
    locks/                                             lock files, one for each table and shard
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from cer_pipeline.errors import CerError
from cer_pipeline.user_folder import user_folder

HOME_VARIABLE = "CER_HOME"
DEFAULT_FOLDER = ".cer"
USER_FOLDER = "cer-pipeline"


@dataclass(frozen=True)
class Home:
    """The home folder of a working copy or of a user.

    Args:
        root: its path.

    Raises:
        CerError: Dagster or Parquet could not open files below this path.
    """

    root: Path

    def __post_init__(self) -> None:
        # Dagster puts the paths of its SQLite files into URLs without escaping: ? ends the path, %20 means a blank.
        path = str(self.root)
        if "?" in path or unquote(path, errors="surrogateescape") != path:
            what = "the path of the home folder holds ? or a percent sign before two hexadecimal digits"
            raise CerError(what, path, f"set {HOME_VARIABLE} to a folder without them")
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:  # pyarrow encodes the names of files as UTF-8
            shown = os.fsencode(path).decode(errors="backslashreplace")
            then = f"set {HOME_VARIABLE} to another folder"
            raise CerError("the path of the home folder is not UTF-8", shown, then) from None

    @property
    def settings(self) -> Path:
        """Settings that override the profile."""
        return self.root / "settings.toml"

    @property
    def dagster(self) -> Path:
        """Folder of the state of Dagster."""
        return self.root / "dagster"

    @property
    def heads(self) -> Path:
        """Folder of the heads trained on this machine, see `zoo.trained`."""
        return self.root / "heads"

    def training(self, branch: str, key: str) -> Path:
        """Return the folder of the state of one training of a branch."""
        return self.root / "training" / branch / key

    def table_folder(self, table: str) -> Path:
        """Return the folder of all shards of a table."""
        return self.root / "tables" / table

    def table(self, table: str, corpus: str, shard: str) -> Path:
        """Return the Parquet file of one shard of a table."""
        return self.table_folder(table) / f"corpus={corpus}" / f"shard={shard}" / "data.parquet"

    def cache(self, table: str, fingerprint: str, corpus: str, shard: str) -> Path:
        """Return the folder of the cached chunks of one shard of a table with one fingerprint."""
        return self.root / "cache" / table / fingerprint / f"corpus={corpus}" / f"shard={shard}"

    def lock(self, table: str, corpus: str, shard: str) -> Path:
        """Return the lock file of one shard of a table."""
        return self.root / "locks" / f"{table.replace('/', '.')}.{corpus}-{shard}.lock"


def checkout() -> Path | None:
    """Return the working copy that this package is imported from; None if it is installed without one."""
    folder = Path(__file__).resolve().parents[2]
    return folder if all((folder / name).is_file() for name in ("pyproject.toml", "workspace.yaml")) else None


def default_home(environment: Mapping[str, str] = os.environ) -> Home:
    """Return `$CER_HOME`, else the folder `.cer` of the working copy, else `cer-pipeline` in the user's data folder.

    The data folder is `$XDG_DATA_HOME`, or `~/.local/share` if that is unset or not an absolute path (XDG Base
    Directory Specification 0.8).

    Args:
        environment: the environment variables.

    Raises:
        CerError: the home folder of the user is not known.
    """
    if named := environment.get(HOME_VARIABLE):
        return Home(Path(named).expanduser().resolve())
    if copy := checkout():
        return Home(copy / DEFAULT_FOLDER)
    data = Path(environment.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        data = user_folder(HOME_VARIABLE) / ".local" / "share"
    return Home(data / USER_FOLDER)


def writable_home() -> Home:
    """Return `default_home` after making the folder and a temporary file in it.

    Raises:
        CerError: the folder cannot be made or written to.
    """
    home = default_home()
    try:
        home.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home.root):
            return home
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        what = f"the home folder cannot be written ({error.strerror or error})"
        raise CerError(what, str(home.root), f"set {HOME_VARIABLE} to a folder that you may write in") from None
