"""Shared libraries that the wheels expect of the system, and the packages of Debian and Ubuntu that hold them.

Belongs here: names. Does not belong here: installing (`requirements/libraries.py`, which reads this file before
anything is installed, so it needs the standard library alone) or judging an installation (`installation`).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable
from typing import Final

REQUIRED: Final[dict[str, str]] = {
    # What remains (`readelf -d` over all wheels of the core set) where OpenCV is the headless build; mediapipe 1.2.2
    # links to both, also where it computes on the CPU.
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libstdc++.so.6": "libstdc++6",
}
"""Shared library -> Debian package, for what is needed always."""

WINDOWS: Final[dict[str, str]] = {
    # opencv-contrib-python 5.0.0.93, which plain pip installs for mediapipe, has a window system built in.
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libxcb.so.1": "libxcb1",
}
"""The same for what only a build of OpenCV with windows needs."""

_MISSING: Final = re.compile(r"\b(lib[\w.+-]*\.so[.\d]*): cannot open shared object file")


def missing(names: Iterable[str] = REQUIRED, load: Callable[[str], object] = ctypes.CDLL) -> list[str]:
    """The libraries that cannot be loaded.

    Args:
        names: of shared libraries.
        load: opens one by its name, or raises OSError.
    """

    def loads(name: str) -> bool:
        try:
            load(name)
        except OSError:
            return False
        return True

    return [name for name in names if not loads(name)]


def packages(names: Iterable[str]) -> list[str]:
    """The Debian packages that hold some libraries; a library that is not known here is left out."""
    known = REQUIRED | WINDOWS
    return sorted({known[name] for name in names if name in known})


def named_in(message: str) -> list[str]:
    """The libraries that an error of the dynamic loader says are missing."""
    return _MISSING.findall(message)
