"""Names of files as text, and the ids of videos.

Belongs here: pure functions from names to names. Does not belong here: the file system.

The bytes of a name are read as UTF-8 in every locale, so that a folder gives the same texts everywhere. Paths keep
their Unicode form; video_ids are in the composed form (NFC), because macOS returns names in the decomposed form (NFD)
while spreadsheets and editors write the composed one.
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
    r"""Return a file name as one line of text from which `from_text` restores it.

    Bytes that are not UTF-8 and control characters become `\xNN`, and a backslash becomes two, so that no two names
    give the same text.

    Args:
        name: as functions of `os` return it (undecodable bytes as lone surrogates).
    """
    return escaped(os.fsencode(name).decode("utf-8", "surrogateescape"))


def from_text(text: str) -> str:
    """Return the file name of a text that `to_text` returned, as functions of `os` take it."""
    name = _ESCAPED.sub(lambda m: "\\" if m[1] == "\\" else _byte(int(m[1][1:], 16)), text)
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def escaped(text: str) -> str:
    """Return a text from inside a file, escaped as by `to_text`."""
    return _TO_ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return "\\\\" if character == "\\" else f"\\x{character.encode('utf-8', 'surrogateescape')[0]:02x}"


def _byte(value: int) -> str:
    return bytes([value]).decode("utf-8", "surrogateescape")


def nfc(text: str) -> str:
    """Return a text in Unicode's composed form, in which names that look equal are equal."""
    return unicodedata.normalize("NFC", text)


def distinguishable(texts: Iterable[str]) -> list[str]:
    r"""Return names for a message, with escapes (`Zo\u00eb`) where some of them look the same."""
    texts = list(texts)
    if len({nfc(text) for text in texts}) == len(texts):
        return texts
    return [text.encode("ascii", "backslashreplace").decode("ascii") for text in texts]


def video_ids(paths: Iterable[str]) -> dict[str, str]:
    """Return the id of every video of a corpus: its path without its ending, composed (NFC).

    Where two files would get the same id (`a.mp4` and `a.mov`), each keeps its ending, so that no id depends on which
    file was found first. Where two paths differ only in their Unicode form, the composed one keeps its id, and the id
    of every other one ends in a digest of its bytes: `Zoë~1f2e3d4c`.

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
    """Return groups of paths that differ only in their Unicode form."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[nfc(path)].append(path)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _form(path: str) -> str:
    return f"~{hashlib.blake2b(path.encode(), digest_size=4).hexdigest()}"


def stem(path: str) -> str:
    """Return a path without the ending of its last part."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0]}"


class NameIndex(Generic[T]):
    """Index of items by name: the exact spelling first, then the same name in another Unicode form.

    Args:
        named: pairs of name and item; an item may have several names, and a name several items.
    """

    def __init__(self, named: Iterable[tuple[str, T]]) -> None:
        self._exact: defaultdict[str, list[T]] = defaultdict(list)
        self._composed: defaultdict[str, list[T]] = defaultdict(list)
        for name, item in named:
            for index, key in ((self._exact, name), (self._composed, nfc(name))):
                if item not in index[key]:
                    index[key].append(item)

    def find(self, name: str) -> list[T]:
        """Return all items with a name; empty without any."""
        return self._exact.get(name) or self._composed.get(nfc(name)) or []
