"""The child process that opens media files: `python -m cer_pipeline.media.worker`.

Belongs here: the limits that the process sets itself, and the loop that answers requests. Does not belong here: the
parent's side (`sandbox`), or the tasks (`probe`, `decode`, `sound`, `tracks`), which are imported when needed.

A request is a line of JSON on standard input. The answer, on standard output, is any number of Arrow record batches
and one JSON document, each as: one byte for its kind, eight bytes for its length (big-endian), its bytes.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

from cer_pipeline.media.errors import MediaError
from cer_pipeline.status import Status

BATCH: Final = b"A"
ANSWER: Final = b"J"

TASKS: Final = {
    "probe": "cer_pipeline.media.probe:probe",
    "frames": "cer_pipeline.media.decode:frames",
    "audio": "cer_pipeline.media.sound:extract",
    "tracks": "cer_pipeline.media.tracks:count",
}
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
MIB: Final = 1 << 20


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def restrict(memory_mb: int, file_mb: int) -> None:
    """Limit the address space and the size of written files of this process and its children; disable core dumps."""
    for what, limit in (
        (resource.RLIMIT_AS, memory_mb * MIB),
        (resource.RLIMIT_FSIZE, file_mb * MIB),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (allowed, allowed))


def allow_cpu(seconds: float) -> None:
    """Allow this process a further amount of processor time, after which the kernel ends it."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def main() -> None:
    """Answer requests until standard input ends."""
    parent, memory_mb, file_mb = (int(argument) for argument in sys.argv[1:4])
    die_with_parent()
    if os.getppid() != parent:
        return  # the parent ended before the kernel knew of this process
    restrict(memory_mb, file_mb)
    answers = os.fdopen(os.dup(1), "wb")
    log = tempfile.TemporaryFile("ab")  # noqa: SIM115 (lives as long as the process)
    os.dup2(log.fileno(), 1)  # keeps the output of libraries out of the answers
    os.dup2(log.fileno(), 2)
    for line in sys.stdin.buffer:
        answer = _answer(json.loads(line), lambda batch: _send(answers, BATCH, _serialised(batch)), memory_mb)
        _send(answers, ANSWER, json.dumps(answer).encode())


def _answer(request: dict[str, Any], emit: Callable[[Any], None], memory_mb: int) -> dict[str, Any]:
    os.ftruncate(2, 0)
    allow_cpu(request["cpu_s"])
    module, _, name = TASKS[request["task"]].partition(":")
    try:
        return {"result": getattr(importlib.import_module(module), name)(request, emit)}
    except MediaError as error:
        return {"status": str(error.status), "reason": error.reason}
    except MemoryError:
        return {"status": str(Status.FAILED), "reason": f"needs more than {memory_mb} MiB of memory"}
    except Exception as error:  # noqa: BLE001 (an error in one file must not end the worker)
        return {"status": str(Status.FAILED), "reason": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()  # decoders own threads, whose stacks count towards the limit of address space


def _serialised(batch: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _send(answers: Any, kind: bytes, data: bytes) -> None:
    answers.write(kind + len(data).to_bytes(8, "big"))
    answers.write(data)
    answers.flush()


if __name__ == "__main__":
    main()
