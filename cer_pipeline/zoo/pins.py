"""Digests that the user has pinned for weights without a public one.

Belongs here: reading and writing the user's pin file. Does not belong here: entries (`zoo.entries`) or files
(`zoo.weights`).

The file is `cer-pipeline/pins.toml` below `$XDG_CONFIG_HOME` (`~/.config`): one table a model, one key a file. A pin
adds a digest where the project has none; it never replaces one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tomlkit

from cer_pipeline.errors import CerError
from cer_pipeline.store.files import commit_bytes
from cer_pipeline.user_folder import user_folder
from cer_pipeline.zoo.entries import Entry, with_digests

CONFIG: Final = "XDG_CONFIG_HOME"
HEAD: Final = "SHA-256 of weights that you vouched for with `cer models pin`; delete a table to withdraw it."
Pins = dict[str, dict[str, tuple[int, str]]]
"""Model id -> file name -> (bytes, SHA-256)."""


def default_pins(environment: Mapping[str, str] = os.environ) -> Path:
    """The pin file of this user.

    Raises:
        CerError: the user's folders are not known.
    """
    base = Path(environment.get(CONFIG, ""))
    return (base if base.is_absolute() else user_folder(CONFIG) / ".config") / "cer-pipeline" / "pins.toml"


def read_pins(path: Path) -> Pins:
    """All pins of a file; none where it does not exist.

    Raises:
        CerError: the file is no TOML, or a value in it is no pin.
    """
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        return {
            model: {name: (int(pin["bytes"]), _digest(pin["sha256"])) for name, pin in files.items()}
            for model, files in tables.items()
        }
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CerError(
            f"the pin file cannot be read ({error})", str(path), "mend it, or delete it and pin again"
        ) from None


def with_pins(entries: Mapping[str, Entry], pins: Pins) -> dict[str, Entry]:
    """The entries, with the user's digests where they have none of their own."""
    return {name: with_digests(entry, pins.get(name, {})) for name, entry in entries.items()}


def add_pins(path: Path, model: str, digests: Mapping[str, tuple[int, str]]) -> None:
    """Write the digests of a model's files into the pin file, which appears whole or not at all.

    Args:
        path: the pin file; its folder is made where it does not exist.
        model: id of the entry.
        digests: file name -> (bytes, SHA-256).

    Raises:
        CerError: the file that is there cannot be read.
    """
    read_pins(path)
    document = tomlkit.parse(path.read_text("utf-8") if path.is_file() else f"# {HEAD}\n")
    table = tomlkit.table()
    for name, (size, sha256) in sorted(digests.items()):
        table[name] = tomlkit.inline_table().add("bytes", size).add("sha256", sha256)
    document[model] = table
    commit_bytes(path, tomlkit.dumps(document).encode())


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"not a SHA-256: {text!r}")
    return text
