"""JPEG of stored pictures: decoding and encoding with OpenCV, in its channel order BGR."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def decode_jpeg(jpeg: bytes, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """The pixels of a JPEG, uint8 [height, width, 3] in BGR, or what other flags of `cv2.imdecode` give.

    Raises:
        ValueError: the bytes are no readable JPEG.
    """
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags)
    if pixels is None:
        raise ValueError("the picture is no readable JPEG")
    return np.asarray(pixels, np.uint8)


def encode_jpeg(bgr: Any, quality: int) -> bytes:
    """Pixels [height, width, 3] in BGR as JPEG of a quality of 1..100.

    Raises:
        ValueError: they cannot be encoded.
    """
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the picture could not be written as JPEG")
    return data.tobytes()
