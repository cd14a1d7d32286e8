"""Digests of settings, of computations, and of the content of rows.

Belongs here: everything that is hashed into a key. All digests are blake2b with 128 bits, as hexadecimal text.
Does not belong here: SHA-256 of files and weights (`corpora`, `zoo`), which must equal published values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from cer_pipeline.arrow import pc
from cer_pipeline.profiles import CHOICES, EXECUTION, Profile
from cer_pipeline.stage import StageSpec, Weights

DIGEST_BYTES = 16


def digest(*parts: str | bytes) -> str:
    """Return the digest of a sequence of texts; parts have a length prefix, so ("ab", "c") and ("a", "bc") differ."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        _feed_bytes(state, part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return state.hexdigest()


def digest_json(value: Any) -> str:
    """Return the digest of plain data, independent of the order of keys."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")))


def stage_fingerprint(spec: StageSpec, profile: Profile, weights: Weights) -> str:
    """Return the digest of a stage without its inputs: code version, columns, settings and weights.

    Thread counts, limits, paths, devices and the settings in `profiles.CHOICES` are not part of it.
    """
    columns = [[c.name, str(c.type)] for c in spec.table.columns]
    settings = {section: _settings(profile, section) for section in spec.config if section != EXECUTION}
    needed = {model: weights.digest(model) or "unavailable" for model in spec.models}
    optional = {model: weights.digest(model) or "absent" for model in spec.optional_models}
    return digest_json([spec.name, spec.code_version, columns, settings, needed, optional])


def _settings(profile: Profile, section: str) -> dict[str, Any]:
    return {key: value for key, value in profile[section].items() if f"{section}.{key}" not in CHOICES}


def row_key(fingerprint: str, unit: str, inputs: str) -> str:
    """Return the key of the rows of one unit: the digest of the stage's fingerprint, the unit and its inputs."""
    return digest(fingerprint, unit, inputs)


def content_digests(table: pa.Table, starts: Iterable[int]) -> list[str]:
    """Return one digest of the values of all columns for each run of rows.

    The digest depends on values only: not on chunks, offsets, padding or the bytes under a null.

    Args:
        table: rows.
        starts: index of the first row of each run, ascending; the first is 0.
    """
    bounds = [*starts, table.num_rows]
    columns = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns]
    digests = []
    for start, stop in pairwise(bounds):
        state = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for name, column in zip(table.column_names, columns, strict=True):
            _feed_bytes(state, name.encode())
            _feed_array(state, column.slice(start, stop - start))
        digests.append(state.hexdigest())
    return digests


def _feed_bytes(state: hashlib.blake2b, data: bytes) -> None:
    state.update(len(data).to_bytes(8, "little"))
    state.update(data)


def _feed_array(state: hashlib.blake2b, array: pa.Array) -> None:
    state.update(len(array).to_bytes(8, "little"))
    if array.null_count:
        state.update(np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.uint8).tobytes())
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        for value in array.cast(pa.large_binary()):
            _feed_bytes(state, value.as_py() or b"")
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_list(kind):
            state.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).tobytes())
        _feed_array(state, array.flatten())
    elif pa.types.is_struct(kind):
        for field in array.flatten():
            _feed_array(state, field)
    elif pa.types.is_boolean(kind):
        state.update(pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype(np.uint8).tobytes())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        state.update(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes())
    else:
        raise TypeError(f"no digest is defined for columns of type {kind}")
