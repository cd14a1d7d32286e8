"""Files that appear whole or not at all.

Belongs here: atomic writes, locks and the one place that knows what a full disk looks like.
Does not belong here: what is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from cer_pipeline.errors import CerError

FULL_BYTES = 1 << 20  # a disk with less free space than this cannot take one more page of everything


def commit(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place, flush it to the disk, then rename it into place.

    A crash at any point leaves the old file, whole. Names that start with a dot are passed over by readers.

    Args:
        path: final place; its folder is made.
        write: writes the temporary file that it is given.

    Raises:
        CerError: the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def commit_bytes(path: Path, data: bytes) -> None:
    """`commit` for data that lies in memory."""
    commit(path, lambda temporary: _write_bytes(temporary, data))


def is_disk_full(error: BaseException | None, folder: Path | None = None) -> bool:
    """Whether an error, or what caused it, is a full disk.

    Args:
        error: what was raised.
        folder: where was written; SQLite calls a full disk an I/O error at times, so the free space is looked at too.
    """
    if folder is not None and folder.is_dir() and shutil.disk_usage(folder).free < FULL_BYTES:
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one line for the user."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            then = "free some space and run again; nothing is lost"
            raise CerError("the disk is full", str(path.parent), then) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise CerError("cannot write here", str(path.parent), "set CER_HOME to a folder of yours") from error
        raise


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; wait for another process that holds it.

    The lock goes with the process, so a killed run leaves none behind.
    """
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
