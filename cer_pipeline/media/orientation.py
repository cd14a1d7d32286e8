"""Turn and mirror a stored picture for display.

Belongs here: reading and applying a display matrix. Does not belong here: scaling.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Orientation:
    """Quarter turns and mirrorings: rows and columns are swapped first, then flipped.

    Args:
        swap: whether rows become columns.
        flip_x: whether the picture is flipped left to right after the swap.
        flip_y: whether the picture is flipped top to bottom after the swap.
        degrees: clockwise turn: 0, 90, 180 or 270.
    """

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False
    degrees: int = 0

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Orientation:
        """Read a display matrix: nine 32-bit integers a b u, c d v, x y w (FFmpeg, libavutil/display.h).

        A point (x, y) of the stored picture is shown at (a x + c y, b x + d y). Other turns are rounded to the nearest
        quarter turn.
        """
        if len(matrix) < 36:
            return cls()
        a, b, _, c, d = struct.unpack_from("=5i", matrix)
        if (a, b, c, d) == (0, 0, 0, 0):
            return cls()
        mirror = -1 if a * d < b * c else 1  # a mirrored picture counts as mirrored left to right, then turned
        degrees = round(math.degrees(math.atan2(mirror * b, mirror * a)) / 90) * 90 % 360
        if abs(a) >= abs(b):
            return cls(False, a < 0, d < 0, degrees)
        return cls(True, c < 0, b < 0, degrees)

    @classmethod
    def of_frame(cls, frame: Any) -> Orientation:
        """Read the display matrix in the side data of a decoded frame (`av.VideoFrame`)."""
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX":
                return cls.of_matrix(bytes(data))
        return cls()

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the displayed width and height of a picture that is stored as width x height."""
        return (height, width) if self.swap else (width, height)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Turn and mirror a picture [height, width, channels]; the result may be a view."""
        swapped = picture.swapaxes(0, 1) if self.swap else picture
        return swapped[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
