"""The export formats, by name.

Belongs here: one entry for every format, the request that all of them take, and formats of other packages. Does not
belong here: how a format is written (a module of its own, with a function `export(request) -> list[Path]`).

Another package adds a format by an entry point of the group `cer_pipeline.exports`, in its pyproject.toml:

    [project.entry-points."cer_pipeline.exports"]
    jsonl = "its_package.jsonl:export"
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cer_pipeline.errors import CerError

if TYPE_CHECKING:  # `cer --help` imports this module
    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.store.home import Home

GROUP: Final = "cer_pipeline.exports"


@dataclass(frozen=True)
class Request:
    """The input of an export.

    Args:
        home: the home folder.
        corpus: name of the corpus.
        format: name of the format.
        out: folder for the files.
        rule: which expressions count as clear.
    """

    home: Home
    corpus: str
    format: str
    out: Path
    rule: Clear


@dataclass(frozen=True)
class Format:
    """One export format.

    Args:
        export: import path of its function, `module:function`. The function writes the files of a request, all or none,
            and returns their paths. It raises CerError if the tables of the corpus have not been made.
        meaning: one clause for `cer export --help`.
        folder: folder of the files below `exports/CORPUS` in the home folder, where the user names none.
    """

    export: str
    meaning: str
    folder: str = ""

    def load(self) -> Callable[[Request], list[Path]]:
        """Import the function.

        Raises:
            CerError: the module cannot be imported or lacks the function.
        """
        try:
            return pkgutil.resolve_name(self.export)
        except (ImportError, AttributeError) as error:
            raise CerError(
                f"the export cannot be loaded ({error})", self.export, "repair or uninstall the package it comes from"
            ) from error


FORMATS: Final[Mapping[str, Format]] = {
    "parquet": Format("cer_pipeline.export.long_form:export", "segments in long form"),
    "csv": Format("cer_pipeline.export.long_form:export", "the same as CSV files"),
    "abaw": Format("cer_pipeline.export.abaw:export", "a text file for every video, as in the ABAW challenges", "abaw"),
}


def formats() -> dict[str, Format]:
    """Return all formats by name: those above, and those of installed packages under other names."""
    from importlib.metadata import entry_points

    plugins = {
        point.name: Format(point.value, f"from {point.value}", point.name) for point in entry_points(group=GROUP)
    }
    return {**FORMATS, **{name: plugin for name, plugin in sorted(plugins.items()) if name not in FORMATS}}


def format_of(name: str) -> Format:
    """Return the format of a name.

    Raises:
        CerError: there is no format of that name.
    """
    known = formats()
    if name not in known:
        raise CerError("unknown export format", name, f"choose one of: {', '.join(known)}")
    return known[name]
