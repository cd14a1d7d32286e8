"""The rows of `faces`: detect, verify, crop, track, choose the subject; one video streamed at a time.

Belongs here: the order of these steps and the rows that come out. Does not belong here: any of the steps (`detector`,
`landmarks`, `crops`, `tracks`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.perception.faces.boxes import iou
from cer_pipeline.perception.faces.choose import choose_detector
from cer_pipeline.perception.faces.crops import cut, expand, quarter_turns, tilt
from cer_pipeline.perception.faces.detector import Box
from cer_pipeline.perception.faces.landmarks import FaceMesh, Mesh, bounds, mesh_tilt
from cer_pipeline.perception.faces.tracks import Sighting, Stillness, follow, motion, subjects
from cer_pipeline.perception.jpeg import decode_jpeg, encode_jpeg
from cer_pipeline.stage import UNIT, StageContext, video_rows
from cer_pipeline.status import Status
from cer_pipeline.tables import FACES


@dataclass(frozen=True)
class _Face:
    """One row before tracking: a face with or without a mesh, or the reason why the sample has none."""

    sample: int
    face: int
    status: str
    reason: str | None
    box: Box | None = None
    mesh: Mesh | None = None
    crop: bytes | None = None


class Faces:
    """Faces of every sample of a video."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._settings = settings = context.profile["faces"]
        self._detector = choose_detector(context)
        self._stillness = Stillness(
            share=settings["motion_share"],
            least_px=settings["motion_px"],
            moved=settings["motion_steps"],
            steps=settings["still_steps"],
            height=settings["still_px"],
        )
        self._mesh_model = context.weights.path("face_landmarker")

    def __call__(self, units: pa.Table) -> pa.Table:
        """Rows of the faces table for a batch of videos."""
        with contextlib.ExitStack() as stack:
            confidence = self._settings["mesh_confidence"]
            # Loaded with the first face: loading takes longer than processing a video without any.
            mesh = cache(lambda: stack.enter_context(FaceMesh(self._mesh_model, confidence=confidence)))
            return pa.concat_tables([self._video(video, mesh) for video in units.column(UNIT).to_pylist()])

    def _video(self, video: str, mesh: Callable[[], FaceMesh]) -> pa.Table:
        frames = video_rows(self._context.inputs, "frames", video, ["sample", "jpeg", "status", "reason"])
        faces = [face for group in groups(frames, self._detector.batch) for face in self._samples(group, mesh)]
        if not faces:
            faces = [_Face(0, 0, Status.NO_VIDEO, "the video has no sample")]
        sightings = [
            Sighting(face.sample, face.face, box.rectangle, verified=face.mesh is not None)
            for face in faces
            if (box := face.box) is not None
        ]
        numbers = follow(sightings, least=self._settings["track_least_fit"], gap=self._settings["track_gap_samples"])
        shapes = {(face.sample, face.face): face.mesh.points[:, :2] for face in faces if face.mesh is not None}
        moving, still = motion(sightings, shapes, numbers, self._stillness)
        windows = self._windows(video)
        return _rows(video, faces, numbers, subjects(sightings, numbers, windows, moving, still), windows)

    def _windows(self, video: str) -> dict[int, range]:
        columns = ["segment", "first_sample", "samples"]
        rows = video_rows(self._context.inputs, "segments", video, columns)
        return {row["segment"]: range(row["first_sample"], row["first_sample"] + row["samples"]) for row in rows}

    def _samples(self, frames: Sequence[dict[str, Any]], mesh: Callable[[], FaceMesh]) -> Iterator[_Face]:
        """The faces of some frames, which are detected together."""
        pictures = {frame["sample"]: _picture(frame["jpeg"]) for frame in frames if frame["status"] == Status.OK}
        boxes_of = dict(zip(pictures, self._detector.detect(list(pictures.values())), strict=True))
        self._context.counters[f"calls/{self._detector.model}"] += len(pictures)
        for frame in frames:
            sample = frame["sample"]
            if sample not in pictures:
                yield _Face(sample, 0, frame["status"], frame["reason"])
            elif not boxes_of[sample]:
                yield _Face(sample, 0, Status.NO_FACE, "no face was detected")
            else:
                for i, box in enumerate(boxes_of[sample]):
                    yield self._verify(pictures[sample], sample, i, box, mesh())

    def _verify(self, rgb: NDArray[np.uint8], sample: int, face: int, box: Box, model: FaceMesh) -> _Face:
        square = expand(box.x, box.y, box.w, box.h, self._settings["margin"])
        crop = cut(rgb, square)
        jpeg = _jpeg(crop, self._settings["crop_side"], self._settings["crop_quality"])
        tilt_deg = box_tilt(box)
        mesh = model(crop, square, quarter_turns(tilt_deg or 0.0))
        self._context.counters["calls/face_landmarker"] += 1
        if mesh is None:
            return _Face(sample, face, Status.NO_FACE, "no mesh was found in the box", box, crop=jpeg)
        if reason := self._misfit(mesh, box, tilt_deg):
            return _Face(sample, face, Status.NO_FACE, reason, box, crop=jpeg)
        return _Face(sample, face, Status.OK, None, box, mesh, jpeg)

    def _misfit(self, mesh: Mesh, box: Box, tilt_deg: float | None) -> str:
        """Why the mesh is not that of the face in the box; empty where it is.

        Inside the crop's margin there may be a second face, or a pattern that the mesh model takes for one, whose mesh
        would put another expression into this row.
        """
        share = iou(bounds(mesh.points), box.rectangle)
        if share < self._settings["mesh_agreement"]:
            return f"the mesh lies elsewhere than the box (overlap {share:.2f})"
        if tilt_deg is None:
            return ""
        apart = abs((mesh_tilt(mesh.points) - tilt_deg + 180) % 360 - 180)
        if apart > self._settings["mesh_lean_deg"]:
            return f"the mesh lies another way up than the face ({apart:.0f} degrees apart)"
        return ""


def groups(frames: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Consecutive frames in groups of `size`; the last one may be smaller."""
    frames = iter(frames)
    while group := list(islice(frames, size)):
        yield group


def box_tilt(box: Box) -> float | None:
    """Tilt of the face in a detector's box, degrees, see `crops.tilt`; None where the detector gives no points."""
    if not box.keypoints:
        return None
    right_eye, left_eye, _, right_corner, left_corner = np.reshape(box.keypoints, (-1, 2))
    return tilt((right_eye + left_eye) / 2, (right_corner + left_corner) / 2)


def _picture(jpeg: bytes) -> NDArray[np.uint8]:
    """A JPEG as RGB, uint8 [height, width, 3]."""
    return np.asarray(cv2.cvtColor(decode_jpeg(jpeg), cv2.COLOR_BGR2RGB), np.uint8)


def _jpeg(crop: NDArray[np.uint8], side: int, quality: int) -> bytes:
    """An RGB crop as JPEG, shrunk to `side` where it is larger, never enlarged."""
    if crop.shape[0] > side:
        crop = np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return encode_jpeg(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), quality)


def _rows(
    video: str,
    faces: Sequence[_Face],
    numbers: dict[tuple[int, int], int],
    chosen: dict[int, int],
    windows: dict[int, range],
) -> pa.Table:
    """The table of one video's faces, by column, since landmarks and crops are large."""
    boxes = [face.box for face in faces]
    meshes = [face.mesh for face in faces]
    poses = [mesh.pose if mesh else None for mesh in meshes]
    tracks = [numbers.get((face.sample, face.face)) for face in faces]
    windows_of = _windows_of(chosen, windows)
    subject_of = [windows_of.get((face.sample, track), []) for face, track in zip(faces, tracks, strict=True)]
    columns: dict[str, Any] = {
        "video_id": [video] * len(faces),
        "sample": [face.sample for face in faces],
        "face": [face.face for face in faces],
        **{name: [getattr(box, name) if box else None for box in boxes] for name in ("x", "y", "w", "h", "score")},
        "keypoints": [box.keypoints or None if box else None for box in boxes],
        "verified": [mesh is not None if box else None for box, mesh in zip(boxes, meshes, strict=True)],
        "track": tracks,
        "is_subject": [bool(indices) for indices in subject_of],
        "subject_of": subject_of,
        **{name: [getattr(pose, name) if pose else None for pose in poses] for name in ("yaw", "pitch", "roll")},
        "blendshapes": [mesh.blendshapes if mesh else None for mesh in meshes],
        "landmarks": [mesh.points.ravel() if mesh else None for mesh in meshes],
        "crop": [face.crop for face in faces],
        "status": [str(face.status) for face in faces],
        "reason": [face.reason for face in faces],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in FACES.schema], schema=FACES.schema)


def _windows_of(chosen: dict[int, int], windows: dict[int, range]) -> dict[tuple[int, int | None], list[int]]:
    """(sample, track) -> windows that hold the sample and whose subject is the track, ascending."""
    out: dict[tuple[int, int | None], list[int]] = {}
    for window in sorted(chosen):
        for sample in windows[window]:
            out.setdefault((sample, chosen[window]), []).append(window)
    return out
