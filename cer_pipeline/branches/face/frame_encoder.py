"""The stages face_features/emoaffectnet and face_features/clip: an image encoder on every face of a subject.

Belongs here: which part of a stored frame an encoder reads, and batches over the faces of a chunk. Does not belong
here: the encoders (`emoaffectnet`, `clip`), or which faces have a row (`encode`).

Faces are cut out of the stored frames, not out of the stored crops: these were shrunk and compressed once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.encoders.clip import preprocess
from cer_pipeline.branches.face import clip, emoaffectnet
from cer_pipeline.branches.face.encode import subject_rows
from cer_pipeline.branches.face.specs import CLIP, CLIP_WEIGHTS, EMBEDDING, EMOAFFECTNET, ENCODED_BOXES, FACE_CLIP
from cer_pipeline.perception.jpeg import decode_jpeg
from cer_pipeline.stage import StageContext, video_rows
from cer_pipeline.torch_batches import choose_device, run_in_batches
from cer_pipeline.torch_threads import one_thread

GROUP: Final = 512  # faces that wait for a batch: 77 MB of pixels
WIDENING: Final = 0.1  # published code: of the left and top coordinate

Picture = NDArray[np.uint8]
Encoder = Callable[[torch.Tensor], torch.Tensor]


def box_crop(picture: Picture, face: Mapping[str, Any], margin: float) -> Picture:
    """The pixels of a detector's box with a margin, as far as they lie in the picture.

    Args:
        picture: RGB, uint8 [height, width, 3].
        face: row of `faces`: x, y, w, h in pixels.
        margin: on each side, as a share of the width for the left and the right one, of the height for the others.
    """
    across, down = margin * face["w"], margin * face["h"]
    return _cut(picture, face["x"] - across, face["y"] - down, face["w"] + 2 * across, face["h"] + 2 * down)


def published_crop(picture: Picture, face: Mapping[str, Any]) -> Picture:
    """The crop of the published code: the box, widened by 10 % of its left coordinate and of its top coordinate.

    A face is therefore cut with more around it the farther it is from the left and upper border.

    Args:
        picture: RGB, uint8 [height, width, 3].
        face: row of `faces`: x, y, w, h in pixels.
    """
    left, top = int(face["x"]), int(face["y"])
    right, bottom = int(face["x"] + face["w"]), int(face["y"] + face["h"])
    across, down = int(WIDENING * left), int(WIDENING * top)
    return _cut(picture, left - across, top - down, right - left + 2 * across, bottom - top + 2 * down)


def _cut(picture: Picture, x: float, y: float, w: float, h: float) -> Picture:
    """At least one pixel of a picture."""
    height, width = picture.shape[:2]
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right, bottom = min(max(round(x + w), left + 1), width), min(max(round(y + h), top + 1), height)
    return picture[top:bottom, left:right]


class _FrameEncoder:
    """One row for every subject face, one without features for every sample that shows none."""

    name: ClassVar[str]
    size: ClassVar[int]

    def __init__(self, context: StageContext) -> None:
        self._inputs = context.inputs
        self._counters = context.counters
        self._batch = context.profile["execution"]["batch"]
        self._device = choose_device(context.profile["execution"]["device"])
        self._encoder = self._load(context)

    def _load(self, context: StageContext) -> Encoder:
        """The encoder on the device."""
        raise NotImplementedError

    def _prepare(self, picture: Picture, face: Mapping[str, Any]) -> torch.Tensor:
        """The pixels of a face that the encoder reads, uint8."""
        raise NotImplementedError

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video; faces of several videos share a batch."""
        schema = tables.face_features(self.name, self.size).schema
        rows: list[dict] = []
        waiting: list[tuple[dict, torch.Tensor]] = []
        for video_id in units.column("video_id").to_pylist():
            for row, pixels in self._video(video_id):
                rows.append(row)
                if pixels is not None:
                    waiting.append((row, pixels))
                if len(waiting) == GROUP:
                    self._encode(waiting)
                    waiting = []
        self._encode(waiting)
        return pa.Table.from_pylist(rows, schema=schema)

    def _video(self, video_id: str) -> Iterator[tuple[dict, torch.Tensor | None]]:
        faces: dict[int, list[tuple[dict, dict]]] = {}
        for face, row in subject_rows(self._inputs, video_id, ENCODED_BOXES):
            if face is None:
                yield row, None
            else:
                faces.setdefault(face["sample"], []).append((face, row))
        for frame in video_rows(self._inputs, "frames", video_id, ["sample", "jpeg"]) if faces else ():
            if frame["sample"] in faces:
                picture = np.asarray(cv2.cvtColor(decode_jpeg(frame["jpeg"]), cv2.COLOR_BGR2RGB), np.uint8)
                for face, row in faces[frame["sample"]]:
                    yield row, self._prepare(picture, face)

    def _encode(self, waiting: list[tuple[dict, torch.Tensor]]) -> None:
        """Put the features of some faces into their rows."""
        if not waiting:
            return
        self._counters[f"calls/{self.name}"] += len(waiting)
        with one_thread() if self._device.type == "cpu" else contextlib.nullcontext():
            outputs = run_in_batches(self._encoder, [pixels for _, pixels in waiting], self._batch, self._device)
        for (row, _), values in zip(waiting, outputs.numpy(), strict=True):
            row["features"] = values


class EmoAffectNetFaces(_FrameEncoder):
    """Stage face_features/emoaffectnet."""

    name = EMOAFFECTNET
    size = EMBEDDING + emoaffectnet.CLASSES

    def _load(self, context: StageContext) -> Encoder:
        self._settings = context.profile[EMOAFFECTNET]
        model = emoaffectnet.load(context.weights.path(EMOAFFECTNET)).to(self._device)
        return lambda pixels: model(emoaffectnet.normalise(pixels))

    def _prepare(self, picture: Picture, face: Mapping[str, Any]) -> torch.Tensor:
        published = self._settings["crop"] == "published"
        crop = published_crop(picture, face) if published else box_crop(picture, face, self._settings["margin"])
        return emoaffectnet.prepare(crop)


class ClipFaces(_FrameEncoder):
    """Stage face_features/clip."""

    name = CLIP
    size = EMBEDDING

    def _load(self, context: StageContext) -> Encoder:
        self._settings = context.profile[FACE_CLIP]
        library = clip.choose_library(self._settings["library"])
        encoder = clip.load(context.weights.path(CLIP_WEIGHTS), library, self._device)
        self._side = encoder.side
        return encoder.features

    def _prepare(self, picture: Picture, face: Mapping[str, Any]) -> torch.Tensor:
        return preprocess(box_crop(picture, face, self._settings["margin"]), self._side)
