"""Linear heads on features of an encoder, and their files.

Belongs here: reading and checking a head, and its arithmetic; numpy only. Does not belong here: training (`train`) or
the encoders.

The file of a head (`zoo.head_file`) holds

* `linear.weight` [k, d] and `linear.bias` [k] for the k classes of `meta["classes"]`;
* for a head with a hidden layer, `dense.weight` [d, d] and `dense.bias` [d]: tanh(dense(x)) is what `linear` reads, as
  in `transformers.RobertaForSequenceClassification`;
* for a fine-tuned encoder, `encoder.NAME` for each changed tensor NAME of the encoder's state dict: all or a part;
* `meta`: `encoder` (zoo id), `features` (which output of the encoder) and `classes` (names of `labels.BASIC`).

Dropout between features and head, as the paper has it, acts in training only. A class that the head was not trained on
has probability 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline.branches.encoders.specs import Recipe
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from cer_pipeline.zoo.head_file import load_head

ENCODER: Final = "encoder."
"""Prefix of the changed tensors of a fine-tuned encoder."""
_LINEAR: Final = frozenset({"linear.weight", "linear.bias"})
_DENSE: Final = frozenset({"dense.weight", "dense.bias"})


class LinearHead:
    """A trained head: features -> probabilities.

    Args:
        recipe: of the branch that reads the head.
        tensors: see the module.
        meta: see the module.
        where: the file, for messages.

    Raises:
        CerError: the head is of another encoder or other features, or its tensors do not fit.
    """

    def __init__(
        self, recipe: Recipe, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], where: str
    ) -> None:
        then = f"run `cer train {recipe.branch}`"
        own, needed = (meta.get("encoder"), meta.get("features")), (recipe.encoder, recipe.features)
        if own != needed:
            what = f"the head reads {own[1]} of {own[0]}, {recipe.branch} has {needed[1]} of {needed[0]}"
            raise CerError(what, where, then)
        self.changed = {n.removeprefix(ENCODER): v for n, v in tensors.items() if n.startswith(ENCODER)}
        layers = {n: v.astype(np.float64) for n, v in tensors.items() if not n.startswith(ENCODER)}
        classes = meta.get("classes")
        if not isinstance(classes, list) or not set(classes) <= set(BASIC) or len(set(classes)) < len(classes):
            raise CerError("the head does not name its classes", where, then)
        k, d = len(classes), recipe.size
        shapes = {"linear.weight": (k, d), "linear.bias": (k,), "dense.weight": (d, d), "dense.bias": (d,)}
        known = layers.keys() in (_LINEAR, _LINEAR | _DENSE)
        if not known or any(v.shape != shapes[n] for n, v in layers.items()):
            found = ", ".join(f"{n} {list(v.shape)}" for n, v in sorted(layers.items()))
            raise CerError(f"the tensors of the head do not fit {d} features and {k} classes ({found})", where, then)
        self.classes = [BASIC.index(name) for name in classes]
        self.layers = layers

    @classmethod
    def load(cls, recipe: Recipe, path: Path) -> LinearHead:
        """Read the file of a head.

        Raises:
            CerError: the file is missing or damaged, or the head does not fit the branch.
        """
        return cls(recipe, *load_head(path), str(path))

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features [..., d] -> probabilities [..., 8] in the order of `labels.BASIC`, summing to 1."""
        x = features.astype(np.float64)
        if "dense.weight" in self.layers:
            x = np.tanh(x @ self.layers["dense.weight"].T + self.layers["dense.bias"])
        full = np.zeros((*features.shape[:-1], len(BASIC)))
        full[..., self.classes] = softmax(x @ self.layers["linear.weight"].T + self.layers["linear.bias"], axis=-1)
        return full
