"""Boxes in a picture and how far two of them overlap.

Belongs here: arithmetic on left, top, width and height. Does not belong here: which overlap is enough for what
(`detector`, `stage`, `tracks`).
"""

from __future__ import annotations

Rectangle = tuple[float, float, float, float]
"""Left, top, width, height."""


def iou(a: Rectangle, b: Rectangle) -> float:
    """Intersection over union of two boxes, 0..1; 0 where they only touch."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
