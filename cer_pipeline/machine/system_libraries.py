"""Shared libraries of the system that the wheels need, and the Debian and Ubuntu packages that contain them.

Belongs here: names, with the standard library only, since `requirements/libraries.py` reads this file before anything
is installed. Does not belong here: installing (`requirements/libraries.py`), checking an installation (`installation`).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable
from typing import Final

REQUIRED: Final[dict[str, str]] = {
    # All libraries that the wheels of the core set link to (`readelf -d`) with the headless build of OpenCV. mediapipe
    # 1.2.2 links to libEGL and libGLESv2 also if it computes on the CPU.
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libstdc++.so.6": "libstdc++6",
}
"""Shared library -> Debian package, for libraries that are always needed."""

WINDOWS: Final[dict[str, str]] = {
    # Needed by opencv-contrib-python 5.0.0.93, which pip installs for mediapipe.
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libxcb.so.1": "libxcb1",
}
"""Shared library -> Debian package, for libraries that only OpenCV builds with a window system need."""

_MISSING: Final = re.compile(r"\b(lib[\w.+-]*\.so[.\d]*): cannot open shared object file")


def missing(names: Iterable[str] = REQUIRED, load: Callable[[str], object] = ctypes.CDLL) -> list[str]:
    """Return the libraries that cannot be loaded.

    Args:
        names: names of shared libraries.
        load: loads a library by its name, or raises OSError.
    """

    def loads(name: str) -> bool:
        try:
            load(name)
        except OSError:
            return False
        return True

    return [name for name in names if not loads(name)]


def packages(names: Iterable[str]) -> list[str]:
    """Return the Debian packages that contain some libraries, without the packages of unknown libraries."""
    known = REQUIRED | WINDOWS
    return sorted({known[name] for name in names if name in known})


def named_in(message: str) -> list[str]:
    """Return the libraries that are missing according to an error message of the dynamic loader."""
    return _MISSING.findall(message)
