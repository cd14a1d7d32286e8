"""Atomic writes of files and folders, and lock files.

Belongs here: the only functions of the project that rename a finished file into place or take a lock, and the errors
of the operating system that they turn into one line. Does not belong here: the content of any file.
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
from typing import Final

from cer_pipeline.errors import CerError

NAME_BYTES: Final = 255  # longest file name in all usual file systems of Linux and macOS
FULL_BYTES: Final = 1 << 20  # a disk with less free space than this cannot take one more page of each open file
OTHER_FOLDER: Final = "choose a folder that you may write in"
OTHER_HOME: Final = "set CER_HOME to a folder of yours"


def commit(path: Path, write: Callable[[Path], object], remedy: str = OTHER_HOME) -> None:
    """Write a temporary file, flush it to the disk, and rename it to its final name.

    A crash at any point leaves the old file intact. The name of the temporary file starts with a dot, so that readers
    skip it, and has a fixed length, since the final name may be as long as the file system allows.

    Args:
        path: final place; its folder is made if necessary.
        write: writes the temporary file whose path it receives.
        remedy: next step for the user if the folder cannot be written to.

    Raises:
        CerError: the disk is full, the folder cannot be written to, or the path is too long.
    """
    temporary = path.with_name(_temporary_name())
    try:
        with one_line_errors(path.parent, remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def commit_bytes(path: Path, data: bytes, remedy: str = OTHER_HOME) -> None:
    """Write bytes as `commit` does."""
    commit(path, lambda temporary: temporary.write_bytes(data), remedy)


def commit_tree(folder: Path, write: Callable[[Path], object], remedy: str = OTHER_FOLDER) -> None:
    """Write several files into a folder: either all of them or none.

    The files are written into a temporary folder first. A folder that does not exist yet appears in one step; in one
    that exists, files are replaced one by one, and files with other names stay. A failure of `write` changes nothing.

    Args:
        folder: where the files belong; its parents are made if necessary.
        write: writes the files, and folders with files, into the temporary folder whose path it receives.
        remedy: next step for the user if the folder cannot be written to.

    Raises:
        CerError: the disk is full, the folder cannot be written to, or a path is too long.
    """
    exists = folder.is_dir()
    temporary = (folder if exists else folder.parent) / _temporary_name()
    try:
        with one_line_errors(folder, remedy):
            temporary.mkdir(parents=True)
            write(temporary)
            written = sorted(temporary.rglob("*"))
            for path in written:
                _flush(path)
            if exists:
                _move_files(written, temporary, folder)
            else:
                _flush(temporary)
                temporary.rename(folder)
                _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_files(paths: list[Path], source: Path, folder: Path) -> None:
    targets = {path: folder / path.relative_to(source) for path in paths if path.is_file()}
    for path, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    for parent in sorted({target.parent for target in targets.values()}):
        _flush(parent)


def file_name(text: str, ending: str = "") -> str:
    """Return a text as a file name; one that is too long is cut and ends with a digest of the whole text.

    Args:
        text: text without slashes, such as the last part of a video_id.
        ending: file name ending, such as ".txt".
    """
    data = text.encode("utf-8", "surrogateescape")
    if len(data) + len(ending.encode()) <= NAME_BYTES:
        return text + ending
    mark = f"~{hashlib.blake2b(data, digest_size=8).hexdigest()}{ending}"
    return data[: NAME_BYTES - len(mark.encode())].decode("utf-8", "ignore") + mark


def is_disk_full(error: BaseException | None, folder: Path | None = None) -> bool:
    """Return whether an error, or an error that caused it, means a full disk.

    Args:
        error: the exception.
        folder: folder that was written to. SQLite reports a full disk as an I/O error at times, so the free space of
            the disk is checked too.
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
def one_line_errors(folder: Path, remedy: str) -> Iterator[None]:
    """Turn the errors of the operating system that a user can act on into a CerError.

    Args:
        folder: where the block writes.
        remedy: next step for the user if the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            then = "free some space and run again; nothing is lost"
            raise CerError("the disk is full", str(folder), then) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise CerError("cannot write here", str(folder), remedy) from error
        if error.errno == errno.ENAMETOOLONG:
            then = "choose a folder with a shorter path"
            raise CerError("a name or path is longer than the system allows", str(folder), then) from error
        raise


@contextlib.contextmanager
def exclusive(path: Path, remedy: str = OTHER_HOME) -> Iterator[None]:
    """Hold a lock file while the block runs; wait while another process holds it.

    The kernel releases the lock when the process ends, so a killed run leaves no lock behind.

    Args:
        path: the lock file; it and its folder are made if necessary.
        remedy: next step for the user if the folder cannot be written to.

    Raises:
        CerError: the lock file cannot be made.
    """
    with one_line_errors(path.parent, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _temporary_name() -> str:
    return f".{uuid.uuid4().hex}.tmp"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
