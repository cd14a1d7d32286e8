"""The stage face_features/mini_xception: the expression network on every face of a subject.

Belongs here: from a row of `faces` to the network's input and output, and which faces have a row. Does not belong here:
the network (`mini_xception`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.face import mini_xception as xception
from cer_pipeline.branches.face.specs import ENCODER, ENCODER_SIZE
from cer_pipeline.perception.faces.crops import expand
from cer_pipeline.stage import Inputs, StageContext, video_rows
from cer_pipeline.status import Status
from cer_pipeline.torch_threads import one_thread

_BOX = ("x", "y", "w", "h")
_COLUMNS = ("sample", "face", "track", "verified", "is_subject", *_BOX, "landmarks", "crop", "status", "reason")


class Encode:
    """One row for every subject face, one without features for every sample that shows none."""

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._counters = context.counters
        self._settings = context.profile[ENCODER]
        self._margin = float(context.profile["faces"]["margin"])
        self._model = xception.load(context.weights.path(ENCODER))
        self._schema = tables.face_features(ENCODER, ENCODER_SIZE).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video, streamed so that its pictures never lie in memory together."""
        rows = [row for video_id in units.column("video_id").to_pylist() for row in self._video(video_id)]
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _video(self, video_id: str) -> Iterator[dict]:
        for face, row in subject_rows(self._inputs, video_id, _COLUMNS):
            yield row | {"features": self._encode(face).tolist()} if face else row

    def _encode(self, face: dict) -> NDArray[np.float32]:
        gray = cv2.imdecode(np.frombuffer(face["crop"], np.uint8), cv2.IMREAD_GRAYSCALE)
        picture = np.asarray(gray, dtype=np.uint8)
        points = points_in_crop(face, self._margin, picture.shape[1])
        views = xception.views(picture, points, self._settings["sides"], self._settings["eye_line"])
        self._counters[f"calls/{ENCODER}"] += 1  # the views of a face go through together
        with torch.inference_mode(), one_thread():
            logits, pooled = self._model(torch.from_numpy(views)[:, None])
        return torch.cat([logits.mean(dim=0), pooled.mean(dim=0)]).numpy()


def subject_rows(inputs: Inputs, video_id: str, columns: Sequence[str]) -> Iterator[tuple[dict | None, dict]]:
    """The rows of a video in a table `face_features/...`, without features, each with the face that it is about.

    Every verified face that is a subject has a row, and so has every sample that shows none: that row has no face.

    Args:
        inputs: tables of the shard.
        video_id: the video.
        columns: of `faces` that are read; sample, face, track, verified, is_subject, status and reason among them.
    """
    seen: set[int] = set()
    absent: dict[int, tuple[str, str | None]] = {}
    for face in video_rows(inputs, "faces", video_id, columns):
        sample = face["sample"]
        if face["status"] == Status.OK and face["verified"] and face["is_subject"]:
            seen.add(sample)
            keys = {"video_id": video_id, "sample": sample, "face": face["face"], "track": face["track"]}
            yield face, keys | {"status": str(Status.OK), "reason": None}
        elif face["status"] == Status.OK:
            absent.setdefault(sample, (str(Status.NO_FACE), "no face of a subject on this sample"))
        else:
            absent.setdefault(sample, (face["status"], face["reason"]))
    for sample, (status, reason) in absent.items():
        if sample not in seen:
            blank = {"video_id": video_id, "sample": sample, "face": 0, "track": None, "features": None}
            yield None, blank | {"status": status, "reason": reason}


def points_in_crop(face: dict, margin: float, width: int) -> NDArray[np.float64]:
    """A face's mesh points in pixels of its stored crop: [478, 2].

    Args:
        face: row of `faces`: the detector's box and `landmarks` in pixels of the stored frame.
        margin: of the crop, share of the box.
        width: of the stored crop, pixels; it may be smaller than the square that was cut.
    """
    square = expand(face["x"], face["y"], face["w"], face["h"], margin)
    points = np.array(face["landmarks"], dtype=np.float64).reshape(-1, 3)[:, :2]
    return (points - (square.left, square.top)) * (width / square.side)
