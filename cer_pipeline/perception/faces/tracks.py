"""Tracks of faces over consecutive samples, and the subject of every window.

Belongs here: pure functions over boxes, mesh points and samples. Does not belong here: pictures, models, tables.

Rules:

* Two boxes fit by their distance-IoU, IoU - d^2 / c^2, with d the distance of their centres and c the diagonal of the
  smallest box around both (Zheng et al., "Distance-IoU Loss", AAAI 2020, equation 7). It still ranks pairs of boxes
  that no longer overlap, as after 200 ms of fast motion.
* On every sample the faces are given to the tracks so that the sum of (fit - least fit) is greatest; a pair below the
  least fit is no pair. A face without a pair opens a track.
* Tracks seen on the sample before are served first, then those with a gap, shortest first (the matching cascade of
  Wojke et al., "Simple Online and Realtime Tracking with a Deep Association Metric", ICIP 2017): an older place is less
  reliable.
* Boxes without a mesh take part, so that a person who turns away and back stays one track; only verified faces are
  given its number, and a track without any has none.
* A track waits for `gap` samples without a face, then it ends. It never continues at a place that does not fit, so a
  cut to another picture opens new tracks unless a face appears at the same place.
* A face moves where its mesh changes from one sample to the next by more than an affine map, which a shaking, panning
  or zooming camera applies to a portrait on a wall as well. Motion is decided for a track over the whole video, since a
  person may keep still for a window. A track of a small face or of few samples is not called still.
* The subject of a window is the track whose face areas sum to most over the window's samples (largest and longest); of
  equal ones, the lower track number. Where a face of the window moves, tracks that keep still all through the video do
  not count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cer_pipeline.perception.faces.boxes import Rectangle, iou


@dataclass(frozen=True)
class Sighting:
    """A detected face: its sample, its index on the sample, its box, and whether a mesh verified it."""

    sample: int
    face: int
    box: Rectangle
    verified: bool = True


@dataclass(frozen=True)
class Stillness:
    """When a track counts as moving, and when as still.

    Args:
        share: least deformation from one sample to the next that is motion, as a share of the mesh's spread.
        least_px: the same in pixels: the jitter of the mesh on a picture that does not change.
        moved: the track moves where more than this share of its steps are motion.
        steps: least steps of a track that is called still.
        height: least mean height of the box of a track that is called still, pixels.
    """

    share: float
    least_px: float
    moved: float
    steps: int
    height: float


@dataclass
class _Track:
    number: int | None  # None until a face is verified
    sample: int
    box: Rectangle


def distance_iou(a: Rectangle, b: Rectangle) -> float:
    """Distance-IoU of two boxes with an area: 1 for equal ones, towards -1 for small ones far apart."""
    width = max(a[0] + a[2], b[0] + b[2]) - min(a[0], b[0])
    height = max(a[1] + a[3], b[1] + b[3]) - min(a[1], b[1])
    dx = a[0] + a[2] / 2 - b[0] - b[2] / 2
    dy = a[1] + a[3] / 2 - b[1] - b[3] / 2
    return iou(a, b) - (dx * dx + dy * dy) / (width * width + height * height)


def pair(old: Sequence[Rectangle], new: Sequence[Rectangle], least: float) -> list[tuple[int, int]]:
    """The pairs (index in old, index in new) with the greatest sum of (distance-IoU - least), each above 0.

    Args:
        old: boxes of tracks.
        new: boxes of faces.
        least: pairs that fit by no more than this are no pairs.
    """
    if not old or not new:
        return []
    gain: NDArray[np.float64] = np.array([[max(0.0, distance_iou(a, b) - least) for b in new] for a in old])
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if gain[i, j] > 0]


def follow(sightings: Iterable[Sighting], *, least: float, gap: int) -> dict[tuple[int, int], int]:
    """The track number of every verified face, counted from 0 in order of first appearance.

    Args:
        sightings: detected faces in any order; (sample, face) is unique.
        least: least distance-IoU of a pair.
        gap: samples without a face that a track outlives.

    Returns:
        (sample, face) -> track number.
    """
    by_sample = _by_sample(sightings)
    tracks: list[_Track] = []
    numbers: dict[tuple[int, int], int] = {}
    opened = 0
    for sample in sorted(by_sample):
        faces = sorted(by_sample[sample], key=lambda face: face.face)
        tracks = [track for track in tracks if sample - track.sample <= gap + 1]
        owner = _owners(tracks, faces, least)
        for j, face in enumerate(faces):
            track = owner.get(j)
            if track is None:
                track = _Track(None, sample, face.box)
                tracks.append(track)
            track.sample, track.box = sample, face.box
            if face.verified:
                if track.number is None:
                    track.number = opened
                    opened += 1
                numbers[sample, face.face] = track.number
    return numbers


def _owners(tracks: Sequence[_Track], faces: Sequence[Sighting], least: float) -> dict[int, _Track]:
    """Index in `faces` -> the track that goes on there; tracks of the latest sample choose first."""
    owner: dict[int, _Track] = {}
    for last in sorted({track.sample for track in tracks}, reverse=True):
        waiting = [track for track in tracks if track.sample == last]
        free = [j for j in range(len(faces)) if j not in owner]
        pairs = pair([track.box for track in waiting], [faces[j].box for j in free], least)
        owner |= {free[j]: waiting[i] for i, j in pairs}
    return owner


def deformation(before: NDArray[np.floating], after: NDArray[np.floating]) -> float:
    """Non-affine change of a mesh: the RMS residual of the least-squares affine map from one to the other, pixels.

    Args:
        before: [n, 2] points.
        after: [n, 2], the same points later.
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    ones = np.column_stack([a - a.mean(axis=0), np.ones(len(a))])
    fitted, *_ = np.linalg.lstsq(ones, b, rcond=None)
    return float(np.sqrt(np.square(b - ones @ fitted).sum(axis=1).mean()))


def spread(points: NDArray[np.floating]) -> float:
    """RMS distance of the points [n, 2] from their mean, about 0.27 of the height of a face."""
    a = np.asarray(points, np.float64)
    return float(np.sqrt(np.square(a - a.mean(axis=0)).sum(axis=1).mean()))


def motion(
    sightings: Iterable[Sighting],
    shapes: Mapping[tuple[int, int], NDArray[np.floating]],
    numbers: Mapping[tuple[int, int], int],
    rule: Stillness,
) -> tuple[set[int], set[int]]:
    """The tracks that move and those that keep still all through the video; an undecided one is in neither.

    Args:
        sightings: detected faces; only verified ones count.
        shapes: (sample, face) -> mesh points [n, 2], pixels, of all verified ones.
        numbers: (sample, face) -> track number, of all verified ones.
        rule: see `Stillness`.
    """
    tracks: dict[int, list[Sighting]] = {}
    for sighting in sorted((s for s in sightings if s.verified), key=lambda s: s.sample):
        tracks.setdefault(numbers[sighting.sample, sighting.face], []).append(sighting)
    moving, still = set(), set()
    for number, track in tracks.items():
        points = {s.sample: np.asarray(shapes[s.sample, s.face], np.float64) for s in track}
        moved = [
            deformation(points[k], points[k + 1]) > max(rule.share * spread(points[k]), rule.least_px)
            for k in points
            if k + 1 in points
        ]
        if sum(moved) > rule.moved * len(moved):
            moving.add(number)
        elif len(moved) >= rule.steps and sum(s.box[3] for s in track) >= rule.height * len(track):
            still.add(number)
    return moving, still


def subjects(
    sightings: Iterable[Sighting],
    numbers: Mapping[tuple[int, int], int],
    windows: Mapping[int, range],
    moving: Collection[int] = (),
    still: Collection[int] = (),
) -> dict[int, int]:
    """The subject's track number of every window that shows a face.

    Args:
        sightings: detected faces; only verified ones count.
        numbers: (sample, face) -> track number, of all verified ones.
        windows: window index -> its samples.
        moving: tracks that move, see `motion`.
        still: tracks that keep still all through the video; they count only where no face of the window moves.
    """
    by_sample = _by_sample(sighting for sighting in sightings if sighting.verified)
    chosen: dict[int, int] = {}
    for window, samples in windows.items():
        areas: dict[int, float] = {}
        for sample in samples:
            for sighting in by_sample.get(sample, ()):
                track = numbers[sample, sighting.face]
                areas[track] = areas.get(track, 0.0) + sighting.box[2] * sighting.box[3]
        if any(track in moving for track in areas):
            areas = {track: area for track, area in areas.items() if track not in still}
        if areas:
            chosen[window] = min(areas, key=lambda track: (-areas[track], track))
    return chosen


def _by_sample(sightings: Iterable[Sighting]) -> dict[int, list[Sighting]]:
    groups: dict[int, list[Sighting]] = {}
    for sighting in sightings:
        groups.setdefault(sighting.sample, []).append(sighting)
    return groups
