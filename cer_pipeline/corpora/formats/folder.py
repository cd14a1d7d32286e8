"""The corpus format `folder`: every video below a folder.

Belongs here: walking a folder, also for other formats. Does not belong here: registering files (`corpora.registry`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora.names import clashes, distinguishable, to_text, video_ids
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.errors import CerError
from cer_pipeline.media.formats import ENDINGS

ENDINGS_SHOWN: Final = 8
"""Endings of files that were left out, the most frequent first, that one line names."""


def scan(root: Path, options: Mapping[str, Any]) -> Scan:  # noqa: ARG001
    """Find every video below a folder; see `find_files`."""
    return find_files(root)


def find_files(root: Path, endings: frozenset[str] = ENDINGS, kind: str = "video") -> Scan:
    """Find every video, or other file by its ending, below a folder.

    Symbolic links are followed, and every real folder and file counts once: of two paths to it, the one without links
    is taken, then the first by name. Names that start with a dot are ignored.

    Args:
        root: the folder.
        endings: endings of the files, lower case; case is ignored in names.
        kind: word for such a file in messages.

    Raises:
        CerError: there is no such folder, or no such file below it.
    """
    try:
        there = root.exists()
    except OSError as error:  # a dead mount
        raise CerError(f"the folder cannot be read ({error.strerror})", to_text(str(root))) from None
    if not there:
        raise CerError("the folder does not exist", to_text(str(root)), "check the path")
    if not root.is_dir():
        raise CerError("not a folder", to_text(str(root)), "give the folder that holds the video")
    walk = _Walk(root, endings, kind)
    walk.run()
    if not walk.files:
        what = "the folder is empty" if walk.is_empty else f"no {kind} file below the folder"
        known = ", ".join(sorted(ending[1:] for ending in endings))
        ignored = f" ({'; '.join(walk.ignored())})" if walk.ignored() else ""
        raise CerError(f"{what}{ignored}", to_text(str(root)), f"{kind}s end in {known}")
    names = sorted(to_text(path) for path in walk.files)
    ids = video_ids(names)
    messages = [_clash_message(group, ids) for group in clashes(names)]
    return Scan([ScannedVideo(text, ids[text]) for text in names], walk.ignored(), messages)


def _clash_message(paths: Sequence[str], ids: Mapping[str, str]) -> str:
    named = zip(distinguishable(paths), paths, strict=True)
    pairs = " and ".join(f"{name} (the video {ids[path]})" for name, path in named)
    return f"names that differ only in their Unicode form: {pairs}"


class _Walk:
    """One walk through a folder: the files found, and what was ignored."""

    def __init__(self, root: Path, endings: frozenset[str], kind: str) -> None:
        self._endings, self._kind = endings, kind
        self.files: list[str] = []  # below the root, as the operating system gives them
        self.is_empty = True
        self._root = root
        self._problems: list[str] = []
        self._hidden = 0
        self._other_endings: Counter[str] = Counter()  # lower case
        self._visited: set[tuple[int, int]] = set()
        self._links: list[str] = []

    def run(self) -> None:
        self._folder("")
        while self._links:  # links last, so that a path without links is found first
            self._links, links = [], sorted(self._links)
            for link in links:
                self._entry(link)

    def ignored(self) -> list[str]:
        """Return one line for each kind of file that was left out."""
        hidden = [f"{self._hidden} x hidden name"] if self._hidden else []
        return sorted(self._problems) + self._named_endings() + hidden

    def _named_endings(self) -> list[str]:
        ordered = sorted(self._other_endings.items(), key=lambda item: (-item[1], item[0]))
        named = [f"{n} x {to_text(ending) or 'no ending'}" for ending, n in ordered[:ENDINGS_SHOWN]]
        if rest := ordered[ENDINGS_SHOWN:]:
            named.append(f"{sum(n for _, n in rest)} x {len(rest)} other endings")
        return [f"{', '.join(named)} (not taken for a {self._kind})"] if named else []

    def _folder(self, path: str) -> None:
        folders: list[str] = []
        try:
            if not self._is_new(path):
                return
            with os.scandir(self._root / path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._problem(path, error)
            return
        for entry in listed:
            self.is_empty = False
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.name.startswith("."):
                self._hidden += 1
            elif entry.is_symlink():
                self._links.append(below)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(below)
            else:
                self._file(below)
        for folder in folders:
            self._folder(folder)

    def _entry(self, path: str) -> None:
        try:
            is_folder = (self._root / path).is_dir()
        except OSError as error:
            self._problem(path, error)
            return
        if is_folder:
            self._folder(path)
        else:
            self._file(path)

    def _file(self, path: str) -> None:
        ending = os.path.splitext(path)[1].lower()  # noqa: PTH122 (no Path for every file of a large corpus)
        if ending not in self._endings:
            self._other_endings[ending] += 1
            return
        try:
            if not (self._root / path).is_file():
                raise FileNotFoundError(2, "No such file" if not (self._root / path).exists() else "not a regular file")
            if self._is_new(path):
                self.files.append(path)
            else:
                self._problems.append(f"{to_text(path)}: another name of a file that is already there")
        except OSError as error:
            self._problem(path, error)

    def _is_new(self, path: str) -> bool:
        status = (self._root / path).stat()
        key = (status.st_dev, status.st_ino)
        if key in self._visited:
            return False
        self._visited.add(key)
        return True

    def _problem(self, path: str, error: OSError) -> None:
        self._problems.append(f"{to_text(path) or '.'}: {error.strerror or error}")
