"""The action-unit caption head: texts on facial actions and voice that name no emotion -> 8 basic emotions.

Belongs here: the linear map with its input scaling, in numpy. Does not belong here: the phrases
(`branches.scene.au_phrases`) or training (`branches.scene.train_au`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.zoo.head_file import load_head

KIND: Final = "signs"  # in the metadata of head files


class AUHead:
    """A trained action-unit caption head.

    Args:
        tensors: `mean` and `spread` [384] of the training vectors, `weight` [7, 384], `bias` [7].
        meta: metadata; `kind` must be `KIND`.

    Raises:
        CerError: another kind of head.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        if meta.get("kind") != KIND:
            raise CerError(
                "not an action-unit caption head", str(meta.get("kind")), "train one with `cer train scene_signs`"
            )
        values = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
        self.mean, self.spread = values["mean"], values["spread"]
        self.weight, self.bias = values["weight"], values["bias"]

    @classmethod
    def load(cls, path: Path) -> AUHead:
        """Read a head's file.

        Raises:
            CerError: it is missing, damaged, or of another kind.
        """
        return cls(*load_head(path))

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """MiniLM vectors [..., 384] of texts -> distributions over `BASIC` [..., 8], with 0 for "Other"."""
        rows = (np.asarray(features, np.float64) - self.mean) / self.spread
        full = np.zeros((*rows.shape[:-1], len(BASIC)))
        # a sum per row instead of a matrix product, so that the bits of a row do not depend on other rows
        full[..., TRAINED_CLASSES] = softmax((rows[..., None, :] * self.weight).sum(-1) + self.bias, axis=-1)
        return full
