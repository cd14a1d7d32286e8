"""The face detector that a profile chooses.

Belongs here: that choice. Does not belong here: any detector (`detector`, `yolo`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline.perception.faces.detector import Box, CenterFace
from cer_pipeline.stage import StageContext

YOLO: Final = "yolo_face"  # zoo id


@dataclass(frozen=True)
class Detector:
    """A detector, loaded.

    Args:
        model: zoo id of its weights.
        batch: pictures that are detected together.
        detect: RGB pictures, uint8 [height, width, 3], to the faces of each, largest first.
    """

    model: str
    batch: int
    detect: Callable[[Sequence[NDArray[np.uint8]]], list[list[Box]]]


def choose_detector(context: StageContext) -> Detector:
    """The detector `faces.detector`, with the settings of [faces] and [execution].

    Raises:
        CerError: its package is not installed, or the device does not exist.
    """
    settings, execution = context.profile["faces"], context.profile["execution"]
    rules = {
        "score": settings["detector_score"],
        "overlap": settings["detector_overlap"],
        "smallest": settings["smallest_px"],
    }
    if settings["detector"] == "centerface":
        side, threads = settings["detector_long_side"], execution["threads"]
        centerface = CenterFace(context.weights.path("centerface"), long_side=side, threads=threads, **rules)
        return Detector("centerface", 1, lambda pictures: [centerface(picture) for picture in pictures])

    import onnxruntime

    from cer_pipeline.perception.faces.yolo import Ultralytics, Yolo
    from cer_pipeline.torch_batches import choose_device

    cuda = choose_device(execution["device"]).type == "cuda"
    cuda = cuda and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    batch = execution["batch"] if cuda else 1  # on the CPU one at a time, see `torch_batches`
    if settings["detector"] == "ultralytics":
        return Detector(YOLO, batch, Ultralytics(context.weights.path(YOLO), cuda=cuda, **rules))
    yolo = Yolo(context.weights.path(YOLO), batch=batch, threads=execution["threads"], cuda=cuda, **rules)
    return Detector(YOLO, batch, yolo)
