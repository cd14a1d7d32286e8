"""Running a torch model over many items in batches, on the CPU or a GPU.

Belongs here: choice of the device, batches, halving after out-of-memory. Does not belong here: any model, or
preprocessing (the modules of the branches).

A kernel adds in an order that depends on the shape of a batch and on the place of an item in it. On the CPU items are
therefore computed one at a time, so that a row never depends on its neighbours. On a GPU batches are needed for speed:
there a value may differ in its last digits from the CPU's, and from that of another batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Apply a model to equally shaped items, one at a time on the CPU, in batches elsewhere.

    On a CUDA device the first item alone is measured, and the batch is no larger than the free memory allows. After an
    out-of-memory error the batch is halved.

    Args:
        model: maps a batch [B, ...] on the device to [B, ...].
        items: tensors of one shape, on the CPU.
        size: largest batch on a device other than the CPU.
        device: where the model's weights are.

    Returns:
        float32 [len(items), ...] on the CPU.

    Raises:
        CerError: one item alone does not fit into the memory of the device.
    """
    import torch

    if not items:
        raise ValueError("no items")
    size = 1 if device.type == "cpu" else size
    size = min(size, _fitting(model, items[0], device)) if device.type == "cuda" else size
    done: list[torch.Tensor] = []
    while len(done) < len(items):
        try:
            with torch.inference_mode():
                batch = torch.stack(list(items[len(done) : len(done) + size])).to(device)
                done += model(batch).float().cpu()
        except torch.OutOfMemoryError:
            if size == 1:
                then = "free memory, or use a smaller model"
                raise CerError("one item does not fit into the memory of the GPU", str(device), then) from None
            torch.cuda.empty_cache()
            size //= 2
    return torch.stack(done)


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
