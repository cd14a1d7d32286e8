"""Loading pretrained encoders from verified local files, and running them on the CPU or a GPU.

Belongs here: what the families have in common: strict loading, changed tensors of a fine-tuned head, number types, and
running items of different lengths. Does not belong here: a family (`roberta`, `jina`, `clip`), heads or tables.

transformers reads config.json and model.safetensors, and maps older names of tensors to those of the class. No hub code
runs, nothing is fetched, and no pickle is read.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from cer_pipeline.errors import CerError
from cer_pipeline.torch_batches import choose_device, run_in_batches
from cer_pipeline.torch_threads import deterministic_map
from cer_pipeline.torchvision_ops import prepare_torchvision

Model = Callable[[Tensor], Tensor]
"""Batch [B, ...] of equally shaped items -> [B, ...]."""

DTYPES: Final[Mapping[str, torch.dtype]] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Values of the setting `precision`."""


def load_pretrained(network: str, folder: Path, precision: str, unused: str, **options: Any) -> Any:
    """Return a network of transformers in evaluation mode with the weights of a folder.

    Args:
        network: class of transformers by its family, such as "roberta.RobertaModel".
        folder: holds config.json and model.safetensors.
        precision: key of `DTYPES`.
        unused: regular expression of the tensors of the file that the network does not have.
        options: arguments of the network's constructor.

    Raises:
        CerError: a tensor is missing, has another shape, or is unknown.
    """
    prepare_torchvision()
    family, _, name = network.partition(".")
    kind = getattr(importlib.import_module(f"transformers.models.{family}"), name)
    with _quiet():
        model, report = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=DTYPES[precision],
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported below, in one line
            **options,
        )
    unknown = [name for name in report["unexpected_keys"] if not re.fullmatch(unused, name)]
    for what, names in (("lacks", report["missing_keys"]), ("has the unknown tensor", unknown)):
        if names:
            raise CerError(f"the file {what} {min(names)}", str(folder), f"it does not fit {network}")
    if report["mismatched_keys"]:
        tensor, *shapes = min(report["mismatched_keys"])
        raise CerError(f"{tensor} has another shape ({shapes})", str(folder), f"it does not fit {network}")
    return model.eval().requires_grad_(requires_grad=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing a progress bar and a loading report; `load_pretrained` raises instead."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


@torch.no_grad()
def change(model: nn.Module, tensors: Mapping[str, np.ndarray], where: str) -> None:
    """Replace tensors of a network by those of a fine-tuned head, in the number type of the network.

    Args:
        model: the network.
        tensors: name in the network's state dict -> value; may be a part of it.
        where: the head, for messages.

    Raises:
        CerError: the network has no such tensor, or one of another shape.
    """
    own = model.state_dict()
    for name, value in tensors.items():
        if name not in own or tuple(own[name].shape) != value.shape:
            shape = list(own[name].shape) if name in own else "no such tensor"
            what = f"the head changes {name} {list(value.shape)}, the encoder has {shape}"
            raise CerError(what, where, "train it for this encoder")
        own[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))


class Runner:
    """A network on the device of the profile.

    Args:
        network: holds the weights.
        model: maps a batch of items to features.
        execution: section [execution] of the profile: device, batch, threads.

    Raises:
        CerError: the device does not exist.
    """

    def __init__(self, network: nn.Module, model: Model, execution: Mapping[str, Any]) -> None:
        self.device = choose_device(str(execution["device"]))
        self.batch, self.threads = int(execution["batch"]), int(execution["threads"])
        self.model = model
        network.to(self.device)

    def __call__(self, items: Sequence[Tensor]) -> np.ndarray:
        """Return the features of items, float32 [n, ...].

        On the CPU each item is computed alone. On a GPU items of equal shape form batches, so that no text is padded.
        """
        if self.device.type == "cpu":
            return np.stack(deterministic_map(self._alone, items, self.threads))
        by_shape: dict[torch.Size, list[int]] = {}
        for i, item in enumerate(items):
            by_shape.setdefault(item.shape, []).append(i)
        parts = [run_in_batches(self.model, [items[i] for i in g], self.batch, self.device) for g in by_shape.values()]
        rows = torch.cat(parts).numpy()
        order = np.argsort([i for group in by_shape.values() for i in group])
        return rows[order]

    def _alone(self, item: Tensor) -> np.ndarray:
        return run_in_batches(self.model, [item], 1, self.device)[0].numpy()
