"""Encoder outputs kept on disk while a head is trained, so that a stopped or repeated training does not encode again.

Belongs here: one file of vectors by content. Does not belong here: the pipeline's own feature tables and row cache
(`store`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.zoo.head_file import load_head, save_head

SAVE_EVERY: Final = 256  # texts; some half a minute of MiniLM on one core
_DIGEST: Final = 16  # bytes


class EmbeddingCache:
    """An encoder whose outputs are kept: the same text is encoded once, in this and in later runs.

    Args:
        path: file of the kept vectors.
        make: makes the encoder, called only when a text has no vector yet; the encoder maps texts to [n, size].
        model: digest of the encoder's weights and settings; vectors of another model are dropped.
        progress: called with a message, the texts done, and all.
    """

    def __init__(
        self,
        path: Path,
        make: Callable[[], Callable[[Sequence[str]], NDArray[Any]]],
        model: str,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._path, self._make, self._model, self._progress = path, make, model, progress
        self._encode: Callable[[Sequence[str]], NDArray[Any]] | None = None
        self._known: dict[bytes, NDArray[np.float32]] = {}
        if path.is_file():
            tensors, meta = load_head(path)
            if meta.get("model") == model:
                self._known = {key.tobytes(): row for key, row in zip(tensors["keys"], tensors["states"], strict=True)}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts -> vectors float32 [n, size]; those that are not kept yet are encoded and kept."""
        keys = [hashlib.blake2b(text.encode("utf-8"), digest_size=_DIGEST).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            encode, items = self._encode or self._make(), list(new.items())
            self._encode = encode
            for start in range(0, len(items), SAVE_EVERY):
                part = items[start : start + SAVE_EVERY]
                rows = np.asarray(encode([text for _, text in part]), np.float32)
                self._known |= {key: row for (key, _), row in zip(part, rows, strict=True)}
                self._save()
                self._progress("encoding texts", start + len(part), len(items))
        return np.stack([self._known[key] for key in keys]) if keys else np.empty((0, 0), np.float32)

    def _save(self) -> None:
        keys = np.frombuffer(b"".join(self._known), np.uint8).reshape(-1, _DIGEST)
        save_head(self._path, {"keys": keys, "states": np.stack(list(self._known.values()))}, {"model": self._model})
