"""Open media files, which may be hostile, in a child process with limits that ends with its parent.

Belongs here: the parent's side. Does not belong here: the work of the child (`worker`).

The child is reused for the next file, since its imports take half a second. It is replaced after a crash or when a file
exceeded a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa

from cer_pipeline.media.errors import MediaError
from cer_pipeline.media.worker import ANSWER, BATCH
from cer_pipeline.profiles import EXECUTION, Profile
from cer_pipeline.status import Status

THREADS: Final = 4
"""Threads that may run at the same time: processor time is limited to this many times the waiting time."""

MAX_MESSAGE: Final = 2 << 30  # an Arrow binary column holds no more
PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "LANG", "LC_ALL", "HOME", "IMAGEIO_FFMPEG_EXE")
"""Environment variables of the child. It needs no credentials, so it receives none."""

Emit = Callable[[pa.RecordBatch], None]


@dataclass(frozen=True)
class Limits:
    """Limits for one file.

    Args:
        fixed_s: waiting time for every file, s.
        per_second_s: additional waiting time for every second of media, s.
        memory_mb: address space of the child, MiB.
        file_mb: size of the largest file that the child may write, MiB.
    """

    fixed_s: float = 60.0
    per_second_s: float = 10.0
    memory_mb: int = 4096
    file_mb: int = 2048

    @classmethod
    def of(cls, profile: Profile) -> Limits:
        """Return the limits in the section [execution] of a profile."""
        section = profile[EXECUTION]
        return cls(
            fixed_s=section["media_time_s"],
            per_second_s=section["media_time_per_s"],
            memory_mb=section["media_memory_mb"],
            file_mb=section["media_file_mb"],
        )

    def seconds(self, duration_s: float) -> float:
        """Return the waiting time for a file of that duration, s."""
        return self.fixed_s + self.per_second_s * max(0.0, duration_s)


class Sandbox:
    """A child process that opens media files.

    Args:
        limits: limits for each file.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._starter: threading.Thread | None = None
        self._finalizer: weakref.finalize | None = None
        self._one_at_a_time = threading.Lock()

    def run(
        self,
        task: str,
        path: Path,
        options: Mapping[str, Any] | None = None,
        duration_s: float = 0.0,
        emit: Emit | None = None,
    ) -> dict[str, Any]:
        """Run one task on one file in the child.

        Args:
            task: a key of `worker.TASKS`.
            path: the file.
            options: further parameters of the task, as plain JSON values.
            duration_s: duration of the media, for the time limit.
            emit: called with each record batch of the task.

        Returns:
            The result of the task.

        Raises:
            MediaError: the file gives no value, or a limit was exceeded.
        """
        with self._one_at_a_time, tempfile.TemporaryDirectory(prefix="cer-media-") as folder:
            wait_s = self.limits.seconds(duration_s)
            request = {
                **(options or {}),
                "task": task,
                "path": _as_utf8(os.path.abspath(path)),  # noqa: PTH100 (symbolic links are not resolved)
                "folder": _as_utf8(folder),
                "cpu_s": wait_s * THREADS,
            }
            try:
                return self._ask(request, wait_s, emit)
            except BaseException as error:
                if not (isinstance(error, MediaError) and self._process is not None and self._process.poll() is None):
                    self._stop()
                raise

    def close(self) -> None:
        """End the child; a later `run` starts a new one."""
        with self._one_at_a_time:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], wait_s: float, emit: Emit | None) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # reading the answer then gives the reason
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        answers = _Answers(process.stdout.fileno(), wait_s)
        while True:
            try:
                kind, data = answers.next()
            except TimeoutError:
                self._stop()
                raise MediaError(Status.FAILED, f"took longer than the time limit of {wait_s:g} s") from None
            except EOFError:
                raise self._exit_error(wait_s) from None
            if kind == BATCH:
                if emit is not None:
                    emit(_batch(data))
                continue
            answer = json.loads(data)
            if "result" in answer:
                return answer["result"]
            raise MediaError(Status(answer["status"]), answer["reason"])

    def _running(self) -> subprocess.Popen[bytes]:
        # The kernel ends the child with the thread that started it, so each thread starts its own child.
        if self._process is not None and self._starter is threading.current_thread() and self._process.poll() is None:
            return self._process
        self._stop()
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        # Memory that allocators and numeric libraries reserve in advance counts towards the limit of address space.
        environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        limits = (os.getpid(), self.limits.memory_mb, self.limits.file_mb)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", "-m", "cer_pipeline.media.worker", *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its own children are ended with it
            env=environment,
        )
        self._starter = threading.current_thread()
        self._finalizer = weakref.finalize(self, _kill, self._process)
        return self._process

    def _exit_error(self, wait_s: float) -> MediaError:
        process = self._process
        assert process is not None
        code = process.wait()
        if code == -signal.SIGXCPU:
            return MediaError(Status.FAILED, f"used more processor time than {wait_s * THREADS:g} s")
        if code == -signal.SIGKILL:
            return MediaError(Status.FAILED, "the decoding process was killed (the system may be out of memory)")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return MediaError(Status.FAILED, f"the decoding process crashed ({name})")

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._starter = self._finalizer = None


def _as_utf8(path: str) -> str:
    """Return a path as the child reads it: as UTF-8, whatever the locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


class _Answers:
    """Read messages from a pipe. Only waiting counts towards the time limit, not the work of the caller in between."""

    def __init__(self, pipe: int, wait_s: float) -> None:
        self._pipe = pipe
        self._left = wait_s
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN | select.POLLHUP)

    def next(self) -> tuple[bytes, bytes]:
        """Return the kind and the content of the next message."""
        header = self._read(9)
        kind, size = header[:1], int.from_bytes(header[1:], "big")
        if kind not in (BATCH, ANSWER) or size > MAX_MESSAGE:
            raise EOFError
        return kind, self._read(size)

    def _read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            started = time.monotonic()
            ready = self._poll.poll(max(0.0, self._left) * 1000)
            self._left -= time.monotonic() - started
            if not ready:
                raise TimeoutError
            part = os.read(self._pipe, min(missing, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def _batch(data: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(data) as reader:
        batch = reader.read_next_batch()
    batch.validate(full=True)
    return batch
