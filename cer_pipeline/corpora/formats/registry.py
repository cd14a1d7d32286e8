"""The corpus formats by name.

Belongs here: one entry for every format, plug-ins, and what a `Format` declares. Does not belong here: reading a
format, which is the function `scan` of a module of its own, or what that function returns (`corpora.scan`).

A new format is one module with a function `scan(root, options) -> Scan` and one entry in `FORMATS`. A plug-in needs no
entry: it is a distribution with an entry point in the group `cer_pipeline.formats`, whose name is the name of the
format and whose object is a `Format`. It is loaded when a corpus of that format is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast

from cer_pipeline.corpora.scan import Scan
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

GROUP: Final = "cer_pipeline.formats"
LABELS: Final = "labels"
SPLIT: Final = "split"
CAPTIONS: Final = "captions"


Scanner = Callable[[Path, Mapping[str, Any]], Scan]
"""Root and options -> what the format found; raises CerError where the root does not hold what the format expects."""


@dataclass(frozen=True)
class Format:
    """One corpus format.

    Args:
        scan: its `Scanner`, or the import path "module:function" of one, which is imported when it is called.
        meaning: what the format is, as a clause.
        media: whether every video has a media file.
        takes: options that it takes beside the path.
        spans: whether `--labels` names a table of time spans (`span_tables`), which is read for it; else `scan` reads
            the option itself.
        trains: what a corpus of this format trains where it holds no videos at all; empty where it holds some.
        classes: basic emotions that the format annotates; empty where the annotations decide.
    """

    scan: Scanner | str
    meaning: str
    media: bool = True
    takes: tuple[str, ...] = (SPLIT, CAPTIONS)
    spans: bool = False
    trains: str = ""
    classes: tuple[str, ...] = ()


FORMATS: Final[Mapping[str, Format]] = {
    "folder": Format(
        "cer_pipeline.corpora.formats.folder:scan",
        "every video below a folder",
        takes=(LABELS, SPLIT, CAPTIONS),
        spans=True,
    ),
    "afew": Format(
        "cer_pipeline.corpora.formats.afew:scan", "clips in class folders below split folders", classes=BASIC[:-1]
    ),
    "affwild2": Format(
        "cer_pipeline.corpora.formats.affwild2:scan",
        "videos with a class for every frame",
        takes=(LABELS, SPLIT, CAPTIONS),
        classes=BASIC,
    ),
    "cexpr": Format(
        "cer_pipeline.corpora.formats.cexpr:scan",
        "videos, with or without time spans of compound expressions",
        takes=(LABELS, SPLIT, CAPTIONS),
        spans=True,
    ),
    "captions": Format(
        "cer_pipeline.corpora.formats.captions:scan",
        "CSV files of texts by vision-language models, without video",
        media=False,
        takes=(LABELS, SPLIT),
        spans=True,
    ),
    "ravdess": Format(
        "cer_pipeline.corpora.formats.ravdess:scan",
        "spoken clips with the emotion in their names",
        takes=(SPLIT,),
        classes=BASIC[:-1],
    ),
    "votes": Format(
        "cer_pipeline.corpora.formats.votes:scan",
        "votes on face, voice and both, without media",
        media=False,
        takes=(),
        trains="mhpf",
    ),
    "utterances": Format(
        "cer_pipeline.corpora.formats.utterances:scan",
        "labelled sentences: GoEmotions or MELD",
        media=False,
        takes=(),
        trains="text_minilm",
    ),
}
"""The formats of this project: name -> format."""


def format_of(name: str) -> Format:
    """Return the format of a name, of this project or of a plug-in.

    Raises:
        CerError: there is none of that name, or the plug-in cannot be loaded or holds no format.
    """
    if name in FORMATS:
        return FORMATS[name]
    plugins = metadata.entry_points(group=GROUP)
    if name not in plugins.names:
        known = ", ".join(sorted({*FORMATS, *plugins.names}))
        raise CerError("unknown corpus format", name, f"choose one of: {known}; or install the plug-in that has it")
    where = f"{name} = {plugins[name].value}"
    try:
        loaded = plugins[name].load()
    except (ImportError, AttributeError) as error:
        raise CerError(f"the plug-in cannot be loaded ({error})", where, "install it again") from error
    if not isinstance(loaded, Format):
        raise CerError("the plug-in holds no corpus format", where, "name a `formats.registry.Format`")
    return loaded


def scan(name: str, root: Path, options: Mapping[str, Any]) -> Scan:
    """Find the videos of a corpus.

    Args:
        name: of the format.
        root: folder or file of the corpus.
        options: option -> value; those of other commands are ignored.

    Raises:
        CerError: unknown format, an option that the format does not take, or the root does not hold what the format
            expects.
    """
    known = format_of(name)
    if refused := [option for option in (LABELS, SPLIT, CAPTIONS) if options.get(option) and option not in known.takes]:
        takes = ", ".join(f"--{option}" for option in known.takes) or "none"
        raise CerError(f"the format {name} takes no --{refused[0]}", str(options[refused[0]]), f"it takes: {takes}")
    if not isinstance(known.scan, str):
        return known.scan(root, options)
    module, _, function = known.scan.partition(":")
    return cast("Scanner", getattr(importlib.import_module(module), function))(root, options)
