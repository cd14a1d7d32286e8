"""Where things lie below `CER_HOME`.

Belongs here: the layout of the home folder, and how it is found. Does not belong here: reading or writing.

    tables/TABLE/corpus=NAME/shard=sNNN/data.parquet   what users read
    cache/TABLE/FINGERPRINT/corpus=NAME/shard=sNNN/    rows by key, append-only
    corpora/NAME.json                                  registered corpora
    dagster/                                           Dagster's own state
    heads/BRANCH/DIGEST/                               heads trained here, each with its card
    training/BRANCH/KEY/                               what a training keeps, so that a stopped one goes on
    settings.toml                                      the user's settings over the profile
    locks/                                             one writer a table and shard
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
    """The home folder: of a working copy, or of a user.

    Raises:
        CerError: with its path Dagster's databases would lie elsewhere, or tables could not be opened.
    """

    root: Path

    def __post_init__(self) -> None:
        # Dagster names its SQLite files by an address, unescaped: ? ends the path in it, %20 means a blank.
        path = str(self.root)
        if "?" in path or unquote(path, errors="surrogateescape") != path:
            what = "the path of the home folder holds ? or a percent sign before two hexadecimal digits"
            raise CerError(what, path, f"set {HOME_VARIABLE} to a folder without them")
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:  # Parquet files are opened by names in UTF-8
            then = f"set {HOME_VARIABLE} to another folder"
            raise CerError(
                "the path of the home folder is not UTF-8", os.fsencode(path).decode(errors="backslashreplace"), then
            ) from None

    @property
    def settings(self) -> Path:
        """The user's settings over the profile."""
        return self.root / "settings.toml"

    @property
    def dagster(self) -> Path:
        """Dagster's own state."""
        return self.root / "dagster"

    @property
    def heads(self) -> Path:
        """Heads trained here; see `zoo.trained`."""
        return self.root / "heads"

    def training(self, branch: str, key: str) -> Path:
        """What one training of a branch keeps."""
        return self.root / "training" / branch / key

    def table_folder(self, table: str) -> Path:
        """All shards of a table."""
        return self.root / "tables" / table

    def table(self, table: str, corpus: str, shard: str) -> Path:
        """The Parquet file of one shard of a table."""
        return self.table_folder(table) / f"corpus={corpus}" / f"shard={shard}" / "data.parquet"

    def cache(self, table: str, fingerprint: str, corpus: str, shard: str) -> Path:
        """The folder of cached chunks of one shard of a table under one fingerprint."""
        return self.root / "cache" / table / fingerprint / f"corpus={corpus}" / f"shard={shard}"

    def lock(self, table: str, corpus: str, shard: str) -> Path:
        """The lock file of one shard of a table."""
        return self.root / "locks" / f"{table.replace('/', '.')}.{corpus}-{shard}.lock"


def checkout() -> Path | None:
    """The working copy that this package is imported from; None where it is installed by itself."""
    folder = Path(__file__).resolve().parents[2]
    return folder if all((folder / name).is_file() for name in ("pyproject.toml", "workspace.yaml")) else None


def default_home(environment: Mapping[str, str] = os.environ) -> Home:
    """`$CER_HOME`, else the folder `.cer` of the working copy, else `cer-pipeline` in the user's data folder.

    The data folder is `$XDG_DATA_HOME`, or `~/.local/share` where that is unset or no absolute path (XDG Base Directory
    Specification 0.8).

    Args:
        environment: the environment variables.

    Raises:
        CerError: nothing says where the user's folders are.
    """
    given = environment.get(HOME_VARIABLE)
    if given:
        return Home(Path(given).expanduser().resolve())
    if copy := checkout():
        return Home(copy / DEFAULT_FOLDER)
    data = Path(environment.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        data = user_folder(HOME_VARIABLE) / ".local" / "share"
    return Home(data / USER_FOLDER)


def writable_home() -> Home:
    """As `default_home`, for a command that writes there; the folder is made.

    Raises:
        CerError: it cannot be made or written.
    """
    home = default_home()
    try:
        home.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home.root):
            return home
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        why = error.strerror or str(error)
        raise CerError(
            f"the home folder cannot be written ({why})",
            str(home.root),
            f"set {HOME_VARIABLE} to a folder that you may write in",
        ) from None
