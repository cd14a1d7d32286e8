"""Names of files as text, and the ids of videos.

Belongs here: pure functions from names to names. Does not belong here: the file system.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

_TO_ESCAPE: Final = re.compile(r"[\\\x00-\x1f\x7f\udc80-\udcff]")
_ESCAPED: Final = re.compile(r"\\(\\|x[0-9a-f]{2})")


def to_text(name: str) -> str:
    r"""A file name as text that can be stored, shown on one line and turned back.

    Bytes that are no UTF-8 and control characters become `\xNN`, and a backslash becomes two, so that no two names
    give the same text.

    Args:
        name: as the operating system's functions give it (undecodable bytes as lone surrogates).
    """
    return _TO_ESCAPE.sub(_escape, name)


def from_text(text: str) -> str:
    """The file name behind a text of `to_text`."""
    return _ESCAPED.sub(lambda m: "\\" if m[1] == "\\" else os.fsdecode(bytes.fromhex(m[1][1:])), text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return "\\\\" if character == "\\" else f"\\x{os.fsencode(character)[0]:02x}"


def video_ids(paths: Iterable[str]) -> dict[str, str]:
    """The id of every video of a corpus: its path without its ending.

    Where that would name two files (`a.mp4` and `a.mov`), each keeps its ending: neither is silently taken for the
    other, and no file's id depends on which of them was found first.

    Args:
        paths: POSIX paths below the corpus folder, as text.

    Returns:
        path -> video_id.
    """
    paths = list(paths)
    ids = {path: _stem(path) for path in paths}
    while True:
        counts = Counter(ids.values())
        shared = [path for path in paths if counts[ids[path]] > 1 and ids[path] != path]
        if not shared:
            return ids
        ids.update({path: path for path in shared})


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0]}"
