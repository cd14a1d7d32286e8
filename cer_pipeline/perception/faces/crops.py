"""The square crop around a face: its place in the frame, and its pixels.

Belongs here: the one definition of the expanded crop, which the mesh, the stored crop and every face branch share, so
that landmarks (pixels of the frame) can be mapped into the crop: subtract (left, top), divide by `side`.
Does not belong here: detection, or what a network makes of the crop.

The stored crop is not rotated by the head's roll; readers that need an upright face rotate it by roll and landmarks.
The mesh model handles tilts of up to about 90 degrees and returns an inverted mesh for a face that is upside down. It
is therefore given the crop after as many quarter turns as bring the face upright. Quarter turns move whole pixels:
nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Square:
    """A square of whole pixels of the frame; parts of it may lie outside the frame."""

    left: int
    top: int
    side: int


def expand(x: float, y: float, w: float, h: float, margin: float) -> Square:
    """The square around a box: its longer side plus the margin on both ends, about the same centre.

    Args:
        x: left edge of the box, pixels.
        y: top edge, pixels.
        w: width, pixels.
        h: height, pixels.
        margin: share of the longer side that is added on each end. It comes from the size of the box, so that a face
            has the same surroundings wherever it is in the picture.
    """
    side = max(1, round((1 + 2 * margin) * max(w, h)))
    return Square(round(x + w / 2 - side / 2), round(y + h / 2 - side / 2), side)


def cut(picture: NDArray[np.uint8], square: Square) -> NDArray[np.uint8]:
    """The pixels of a square, black where it lies outside the picture; never resized.

    Args:
        picture: uint8 [height, width, channels].
        square: any square.

    Returns:
        uint8 [side, side, channels].
    """
    height, width, channels = picture.shape
    crop = np.zeros((square.side, square.side, channels), np.uint8)
    x0, x1 = max(square.left, 0), min(square.left + square.side, width)
    y0, y1 = max(square.top, 0), min(square.top + square.side, height)
    if x0 < x1 and y0 < y1:
        crop[y0 - square.top : y1 - square.top, x0 - square.left : x1 - square.left] = picture[y0:y1, x0:x1]
    return crop


def tilt(eyes: Sequence[float] | NDArray[np.floating], mouth: Sequence[float] | NDArray[np.floating]) -> float:
    """Tilt of a face in the picture plane, degrees in (-180, 180]: 0 is upright, 90 has its crown at the right.

    It is the angle of the line from the eyes to the mouth: the line through the eyes is short in a profile.

    Args:
        eyes: x, y of the midpoint of both eyes, pixels.
        mouth: x, y of the midpoint of the mouth, pixels.
    """
    return float(np.degrees(np.arctan2(float(eyes[0] - mouth[0]), float(mouth[1] - eyes[1]))))


def quarter_turns(tilt_deg: float) -> int:
    """Counter-clockwise quarter turns, 0 to 3, after which a face is tilted by at most 45 degrees.

    Args:
        tilt_deg: its tilt before, see `tilt`.
    """
    return round(tilt_deg / 90) % 4


def turned(crop: NDArray[np.uint8], quarters: int) -> NDArray[np.uint8]:
    """A square crop after counter-clockwise quarter turns."""
    return np.ascontiguousarray(np.rot90(crop, quarters))


def turned_back(points: NDArray[np.float64], quarters: int) -> NDArray[np.float64]:
    """Points of a turned square as points of the square before.

    Args:
        points: [n, 2 or more], x and y in sides of the square; further columns pass through.
        quarters: counter-clockwise turns of the square.
    """
    back = points.copy()
    for _ in range(quarters % 4):
        back[:, 0], back[:, 1] = 1 - back[:, 1], back[:, 0].copy()
    return back
