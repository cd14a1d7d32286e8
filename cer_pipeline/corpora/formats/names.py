"""Names of files as text, and the ids of videos.

Belongs here: pure functions from names to names. Does not belong here: the file system.

A name is its bytes, read as UTF-8 whatever the locale, so that one folder gives the same texts everywhere. Paths keep
the form in which they are written; ids of videos are in Unicode's composed form (NFC), because macOS hands out names in
the decomposed form (NFD), and spreadsheets and editors write the composed one.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

_TO_ESCAPE: Final = re.compile(r"[\\\x00-\x1f\x7f\udc80-\udcff]")
_ESCAPED: Final = re.compile(r"\\(\\|x[0-9a-f]{2})")

T = TypeVar("T")


def to_text(name: str) -> str:
    r"""A file name as text that can be stored, shown on one line and turned back.

    Bytes that are no UTF-8 and control characters become `\xNN`, and a backslash becomes two, so that no two names
    give the same text.

    Args:
        name: as the operating system's functions give it (undecodable bytes as lone surrogates).
    """
    return escaped(os.fsencode(name).decode("utf-8", "surrogateescape"))


def from_text(text: str) -> str:
    """The file name behind a text of `to_text`, as the operating system's functions take it."""
    name = _ESCAPED.sub(lambda m: "\\" if m[1] == "\\" else _byte(int(m[1][1:], 16)), text)
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def escaped(text: str) -> str:
    """A text from inside a file in the form of `to_text`."""
    return _TO_ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return "\\\\" if character == "\\" else f"\\x{character.encode('utf-8', 'surrogateescape')[0]:02x}"


def _byte(value: int) -> str:
    return bytes([value]).decode("utf-8", "surrogateescape")


def nfc(text: str) -> str:
    """A text in Unicode's composed form, in which equal-looking names are equal."""
    return unicodedata.normalize("NFC", text)


def shown(texts: Iterable[str]) -> list[str]:
    r"""Names for a message: those that would look the same have their characters written out (`Zo\u00eb`)."""
    texts = list(texts)
    if len({nfc(text) for text in texts}) == len(texts):
        return texts
    return [text.encode("ascii", "backslashreplace").decode("ascii") for text in texts]


def video_ids(paths: Iterable[str]) -> dict[str, str]:
    """The id of every video of a corpus: its path without its ending, composed (NFC).

    Where that would name two files (`a.mp4` and `a.mov`), each keeps its ending: neither is silently taken for the
    other, and no file's id depends on which of them was found first. Where two paths differ in their Unicode form
    alone, the composed one keeps its id, and a digest of its bytes is put behind that of every other: `Zoë~1f2e3d4c`.

    Args:
        paths: POSIX paths below the corpus folder, as text.

    Returns:
        path -> video_id.
    """
    composed = {path: nfc(path) for path in paths}
    forms = Counter(composed.values())
    other = {path for path, text in composed.items() if forms[text] > 1 and path != text}
    ids = {path: stem(text) + (_form(path) if path in other else "") for path, text in composed.items()}
    while True:
        counts = Counter(ids.values())
        whole = {path: text + (_form(path) if path in other else "") for path, text in composed.items()}
        shared = [path for path in ids if counts[ids[path]] > 1 and ids[path] != whole[path]]
        if not shared:
            return ids
        ids.update({path: whole[path] for path in shared})


def clashes(paths: Iterable[str]) -> list[list[str]]:
    """Groups of paths that differ in their Unicode form alone."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[nfc(path)].append(path)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _form(path: str) -> str:
    return f"~{hashlib.blake2b(path.encode(), digest_size=4).hexdigest()}"


def stem(path: str) -> str:
    """A path without the ending of its last part."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0]}"


class NameIndex(Generic[T]):
    """Finds things by names that people wrote: the exact spelling first, then the same name in another Unicode form.

    Args:
        named: pairs of a name and what has it; a thing may have several names, and a name several things.
    """

    def __init__(self, named: Iterable[tuple[str, T]]) -> None:
        self._exact: defaultdict[str, list[T]] = defaultdict(list)
        self._composed: defaultdict[str, list[T]] = defaultdict(list)
        for name, thing in named:
            for place, key in ((self._exact, name), (self._composed, nfc(name))):
                if thing not in place[key]:
                    place[key].append(thing)

    def find(self, name: str) -> list[T]:
        """All that has a name; empty where nothing has."""
        return self._exact.get(name) or self._composed.get(nfc(name)) or []
