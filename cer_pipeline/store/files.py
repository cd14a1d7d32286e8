"""Files that appear whole or not at all.

Belongs here: atomic writes, locks and the one place that knows what a full disk looks like.
Does not belong here: what is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from cer_pipeline.errors import CerError

NAME_BYTES = 255  # that a name may have in all usual file systems of Linux and macOS
FULL_BYTES = 1 << 20  # a disk with less free space than this cannot take one more page of everything


def commit(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place, flush it to the disk, then rename it into place.

    A crash at any point leaves the old file, whole. Names that start with a dot are passed over by readers. The
    temporary name is of fixed length: the final one may be as long as a name can be.

    Args:
        path: final place; its folder is made.
        write: writes the temporary file that it is given.

    Raises:
        CerError: the disk is full, the folder cannot be written to, or the path is too long.
    """
    temporary = path.with_name(_temporary_name())
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


def commit_tree(folder: Path, write: Callable[[Path], None]) -> None:
    """Write several files below a folder, all or none of them.

    They are written into a temporary folder below it first and moved into place once all of them are whole; files that
    lie there already stay unless they have the name of a new one. A failure of `write` leaves the folder as it was.

    Args:
        folder: where the files belong; it is made.
        write: writes the files into the temporary folder that it is given, with the folders below it.

    Raises:
        CerError: the disk is full, the folder cannot be written to, or a path is too long.
    """
    temporary, is_new = folder / _temporary_name(), not folder.exists()
    try:
        with told(folder / "x"):
            temporary.mkdir(parents=True)
            write(temporary)
            made = sorted(path for path in temporary.rglob("*") if path.is_file())
            for path in made:
                _flush(path)
            for path in made:
                target = folder / path.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            for place in sorted({(folder / path.relative_to(temporary)).parent for path in made}):
                _flush(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # holds files: the export is there
                folder.rmdir()


def file_name(text: str, ending: str = "") -> str:
    """A text without slashes as the name of a file: as it is where it fits, else cut and told apart by a digest.

    Args:
        text: such as the last part of a video_id; together with `ending` it may be longer than a name can be.
        ending: what the name ends with, such as ".txt".
    """
    data = text.encode("utf-8", "surrogateescape")
    if len(data) + len(ending.encode()) <= NAME_BYTES:
        return text + ending
    mark = f"~{hashlib.blake2b(data, digest_size=8).hexdigest()}{ending}"
    return data[: NAME_BYTES - len(mark.encode())].decode("utf-8", "ignore") + mark


def _temporary_name() -> str:
    return f".{uuid.uuid4().hex}.tmp"


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
        if error.errno == errno.ENAMETOOLONG:
            then = "choose a folder with a shorter path"
            raise CerError("a name or path is longer than the system allows", str(path.parent), then) from error
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
