"""Let torchvision load beside a build of torch without CUDA.

Belongs here: a declaration of the operators that `import torchvision` needs. Does not belong here: any use of
torchvision.

Package indexes serve torchvision with native operators for CUDA. Beside a CPU-only torch these do not load, so that
`import torchvision` fails ("operator torchvision::nms does not exist"), and with it ultralytics, open_clip and every
model class of transformers. `prepare_torchvision` is called before the first import of any of them. It does nothing
where torchvision is not installed, where its native operators load, and on every machine whose torch has CUDA.
"""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

NMS: Final = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
QNMS: Final = "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
"""Schemas of torchvision 0.28. The quantised operator is declared, as the import needs it, and has no kernel."""

_lock: Final = threading.Lock()
_libraries: Final[list[torch.library.Library]] = []  # an operator lives as long as the library that declares it


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the indices of the boxes that greedy non-maximum suppression keeps, best score first.

    A box is dropped if its intersection over union with a kept box of a higher score exceeds the threshold; of equal
    scores the first box is kept.

    Args:
        boxes: float [N, 4] of x1, y1, x2, y2.
        scores: float [N].
        iou_threshold: largest intersection over union of two boxes that are kept.
    """
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    corners = boxes[order]
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    dropped = torch.zeros(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for i in range(len(order)):
        if dropped[i]:
            continue
        kept.append(i)
        low = torch.maximum(corners[i, :2], corners[i + 1 :, :2])
        high = torch.minimum(corners[i, 2:], corners[i + 1 :, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        dropped[i + 1 :] |= shared > iou_threshold * (area[i] + area[i + 1 :] - shared)
    return order[torch.tensor(kept, dtype=torch.long, device=boxes.device)]


def prepare_torchvision() -> bool:
    """Declare the operators of torchvision where its own cannot load; return whether that was done.

    Repeated calls do nothing further. Call it before the first import of torchvision, transformers, open_clip or
    ultralytics in a process.
    """
    import torch

    with _lock:
        if _libraries:
            return True
        if torch.version.cuda is not None or torch.version.hip is not None or _native_operators_load():
            return False
        library = torch.library.Library("torchvision", "DEF")
        library.define(NMS)
        library.define(QNMS)
        library.impl("nms", nms, "CPU")
        _libraries.append(library)
        # Its functions ask `_has_ops` before they call an operator.
        import torchvision.extension  # pyright: ignore[reportMissingImports]  # of the extra gpu

        torchvision.extension._has_ops = lambda: True  # noqa: SLF001 - the only switch that torchvision has
        return True


def _native_operators_load() -> bool:
    """Return whether torchvision is absent or its own operators load, so that nothing must be declared."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    native = [*Path(spec.origin).parent.glob("_C*.so")]
    try:
        for path in native:
            torch.ops.load_library(path)
    except OSError:
        return False
    return bool(native)
