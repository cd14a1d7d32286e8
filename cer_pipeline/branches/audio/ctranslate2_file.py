"""Reader of CTranslate2's model.bin: named arrays in one file.

Belongs here: the file format. Does not belong here: what the arrays mean (`whisper_encoder`).

Source: the serialisation of CTranslate2's model specifications (python/ctranslate2/specs/model_spec.py), binary
version 6, little-endian: version (4 bytes), name of the specification, revision (4), number of arrays (4); for each
array its name, its rank (1), its sizes (4 each), its type (1), its length in bytes (4), its bytes. A name is its length
(2) and as many bytes, the last of them 0.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

from cer_pipeline.errors import CerError

VERSION: Final = 6
_TYPES: Final = (np.float32, np.int8, np.int16, np.int32, np.float16)


def read_arrays(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose name begins with a prefix, under the rest of their names.

    Args:
        path: model.bin.
        prefix: such as "encoder/".

    Raises:
        CerError: the file is of another version, or ends too early.
    """
    data = path.read_bytes()
    try:
        return _arrays(data, prefix)
    except (struct.error, ValueError, IndexError, UnicodeDecodeError):
        message = f"not a CTranslate2 model of version {VERSION}, or damaged"
        raise CerError(message, str(path), "run `cer models verify`") from None


def _arrays(data: bytes, prefix: str) -> dict[str, np.ndarray]:
    at = 0

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", data, at)
        at += struct.calcsize(f"<{kind}")
        return value

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at - 1].decode("ascii")

    if number("I") != VERSION:
        raise ValueError
    text()  # name of the specification
    number("I")  # its revision
    found = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = _TYPES[number("B")]
        size = number("I")
        if name.startswith(prefix):
            values = np.frombuffer(data, kind, size // np.dtype(kind).itemsize, at)
            found[name.removeprefix(prefix)] = values.reshape(shape)
        at += size
    return found
