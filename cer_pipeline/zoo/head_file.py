"""The file format of a trained head: safetensors, with everything that is not a tensor as one JSON string.

Belongs here: writing and reading that format, with numpy only. Does not belong here: what the tensors mean (the head's
own module) or whether a file is the one that was published (`zoo` verifies digests).

The same tensors and meta always give the same bytes: keys are sorted, nothing of the machine or the clock is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cer_pipeline.errors import CerError
from cer_pipeline.store.files import commit_bytes

META: Final = "meta"  # the one key of the safetensors header's metadata
DTYPES: Final = frozenset({"float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"})


def save_head(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a head, replacing an earlier one only when the whole file is on disk.

    Args:
        path: file to write, `<branch>.safetensors`; its folder is made where it does not exist.
        tensors: name -> array of any shape, of a type in `DTYPES`.
        meta: what JSON can hold without loss: text, finite numbers, lists, mappings with text keys.

    Raises:
        ValueError: no tensor, a type outside `DTYPES`, a value that is not finite, or a meta that JSON cannot hold.
    """
    if not tensors:
        raise ValueError("a head holds at least one tensor")
    for name, array in tensors.items():
        if array.dtype.name not in DTYPES:
            raise ValueError(f"tensor {name}: type {array.dtype.name} is not one of {', '.join(sorted(DTYPES))}")
        if not np.isfinite(array).all():
            raise ValueError(f"tensor {name} holds values that are not finite")
    try:
        text = json.dumps(meta, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"meta is not plain JSON ({error})") from None
    if json.loads(text) != dict(meta):  # tuples and keys that are no text would come back as something else
        raise ValueError("meta changes when it is written as JSON: use lists, and text as keys")
    # A view that is not contiguous would be written in the wrong order.
    plain = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in sorted(tensors.items())}
    commit_bytes(path, save(plain, metadata={META: text}))


def load_head(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a head that `save_head` wrote.

    Args:
        path: the file.

    Returns:
        The tensors, in the types that they were written in, and the meta.

    Raises:
        CerError: the file is missing, damaged, or no head.
    """
    if not path.is_file():
        raise CerError("the head does not exist", str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(META)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CerError(f"the head cannot be read ({_one_line(error)})", str(path), "write or fetch it again") from None
    meta = _meta(text)
    if meta is None:
        raise CerError("not a head of this project: its header has no meta", str(path), "write or fetch it again")
    return tensors, meta


def _meta(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text) if text is not None else None
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
