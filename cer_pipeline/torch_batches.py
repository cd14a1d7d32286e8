"""Running a torch model over many items in batches, on the CPU or a GPU.

Belongs here: choice of the device, fixed batch shapes, halving after out-of-memory. Does not belong here: any model, or
preprocessing (the modules of the branches).

A row must not depend on the items that share its batch. Kernels add in an order that depends on the shape of a batch, so
every batch of a call has the same shape: the last one is filled up with copies of its last item. On a GPU results differ
from the CPU's by rounding; the row key does not include the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cer_pipeline.errors import CerError

if TYPE_CHECKING:
    import torch

MEMORY_SHARE: Final = 0.8  # of the free GPU memory: allocators round up, and other work may start


def choose_device(name: str) -> torch.device:
    """The device of a setting.

    Args:
        name: "auto" (the first CUDA device where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        CerError: a CUDA device is named and torch finds none of that number.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CerError("torch finds no such device", name, "set execution.device to auto, or see `cer doctor`")
    return device


def run_in_batches(
    model: Callable[[torch.Tensor], torch.Tensor], items: Sequence[torch.Tensor], size: int, device: torch.device
) -> torch.Tensor:
    """Apply a model to equally shaped items; the result of an item does not depend on the others.

    On a CUDA device the first item alone is measured, and the batch is no larger than the free memory allows. After an
    out-of-memory error the batch is halved and all items are computed anew, so that all have batches of one shape.

    Args:
        model: maps a batch [B, ...] on the device to [B, ...].
        items: tensors of one shape, on the CPU.
        size: largest batch.
        device: where the model's weights are.

    Returns:
        float32 [len(items), ...] on the CPU.

    Raises:
        CerError: one item alone does not fit into the memory of the device.
    """
    import torch

    if not items:
        raise ValueError("no items")
    size = min(size, _fitting(model, items[0], device)) if device.type == "cuda" else size
    while True:
        try:
            with torch.inference_mode():
                return torch.cat([part.float().cpu() for part in _batches(model, items, size, device)])
        except torch.OutOfMemoryError:
            if size == 1:
                raise CerError(
                    "one item does not fit into the memory of the GPU",
                    str(device),
                    "free memory or use a smaller model",
                ) from None
        torch.cuda.empty_cache()
        size = max(1, size // 2)


def _batches(
    model: Callable[[torch.Tensor], torch.Tensor], items: Sequence[torch.Tensor], size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    import torch

    for start in range(0, len(items), size):
        part = list(items[start : start + size])
        filled = part + [part[-1]] * (size - len(part))
        yield model(torch.stack(filled).to(device))[: len(part)]


def _fitting(model: Callable[[torch.Tensor], torch.Tensor], item: torch.Tensor, device: torch.device) -> int:
    """Items whose working memory fits into the free memory of a CUDA device; a power of two."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        with torch.inference_mode():
            model(item[None].to(device))
    except torch.OutOfMemoryError:
        return 1
    used = max(1, torch.cuda.max_memory_allocated(device) - before)
    free, _ = torch.cuda.mem_get_info(device)
    return 1 << max(0, int(MEMORY_SHARE * free / used).bit_length() - 1)
