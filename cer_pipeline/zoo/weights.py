"""Where verified weights lie, and the only way to them.

Belongs here: looking a model up, verifying it, storing what was fetched, and the functions behind `cer models`.
Does not belong here: what the entries are (`zoo.entries`), how one source is fetched (`zoo.fetch`), printing (`cli`).

Layout below the cache folder (`$XDG_CACHE_HOME/cer-pipeline/models`), shared by all working copies:

* `blobs/<sha256>`: the files, read-only, named by their content;
* `models/<id>/<first 12 digits of the entry's digest>/<file name>`: hard links to them. The digest keeps two working
  copies apart that pin different files.

A model is looked up in `CER_MODELS/<id>/` first, then in the cache; a head that was trained here goes before the
shipped one. Nothing is returned that has not been hashed and
compared in this process; a file that changes afterwards is hashed again.
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
from cer_pipeline.zoo.entries import Entry, File, Shipped, load_entries
from cer_pipeline.zoo.trained import published_heads

MEDIA: Final = "media"
HEAD_PREFIX: Final = "head_"
LOCAL: Final = "CER_MODELS"  # environment variable: a folder of the user's own, <id>/<file names>
CACHE: Final = "XDG_CACHE_HOME"
OTHER_CACHE: Final = f"set {CACHE} to a folder that you may write in"
SPARE: Final = 3  # a pull holds the wheel, what it took out of it, and the file itself at once
CHUNK: Final = 1 << 20


class State(StrEnum):
    """How the files of an entry stand on this machine."""

    PRESENT = "present"
    MISSING = "missing"
    WRONG_DIGEST = "wrong_digest"
    UNPINNED = "unpinned"  # the entry has no digest, so nothing can be verified


@dataclass(frozen=True)
class Progress:
    """What a pull is doing: the model, the step, and how far (bytes; total 0 where not known)."""

    model: str
    step: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Pulled:
    """What a pull did for one model: whether it fetched anything, and where the files lie."""

    model: str
    fetched: bool
    path: Path


@dataclass(frozen=True)
class Verdict:
    """Outcome of hashing one model's files; `detail` names the file and both digests where they differ."""

    model: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class ModelRow:
    """One line of `cer models list`: the entry, how it stands, and where it lies (None where it does not)."""

    entry: Entry
    state: State
    path: Path | None


OnProgress = Callable[[Progress], None]


def _silent(_: Progress) -> None:
    """Report progress to nobody."""


class Zoo:
    """Weights by id, verified (implements `stage.Weights`).

    Args:
        cache: folder of the store; made when something is pulled.
        entries: what there is.
        local: a folder of the user's own that is looked at first, `<local>/<id>/<file names>`.
    """

    def __init__(self, cache: Path, entries: Mapping[str, Entry], local: Path | None = None) -> None:
        self.cache = cache
        self.entries = dict(entries)
        self.local = local
        self._seen: dict[tuple[str, int, int, int], str] = {}  # file identity -> SHA-256
        self._views: dict[str, Path] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, object]:
        """What crosses to another process: the settings, not what this one has seen."""
        return {"cache": self.cache, "entries": self.entries, "local": self.local}

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
                raise ModelUnavailable(model, "this head has not been trained") from None
            raise CerError("no such model", model, f"choose one of: {', '.join(sorted(self.entries))}") from None

    def path(self, model: str) -> Path:
        """The verified file of a model, or the folder of its verified files where it has several.

        Raises:
            ModelUnavailable: the files are not on this machine.
            CerError: unknown id, no pinned digest, or a file whose digest is not the pinned one (both are named).
        """
        entry = self.entry(model)
        if not entry.pinned:
            raise ModelUnavailable(model, f"no digest is pinned for it in zoo/{entry.profile}.toml")
        folder = self._folder(entry)
        if folder is None:
            raise ModelUnavailable(model)
        for file in entry.files:
            self._verify(entry, folder / file.name, file)
        if len(entry.files) == 1:
            return folder / entry.files[0].name
        return self._view(entry, folder)

    def digest(self, model: str) -> str | None:
        """Digest of the files of a model; None where they are not on this machine.

        It is the pinned one and costs no hashing: `path` refuses files that do not have it. A head that nobody has
        trained yet is no mistake: it is not on this machine.
        """
        if model.startswith(HEAD_PREFIX) and model not in self.entries:
            return None
        entry = self.entry(model)
        return entry.digest if entry.pinned and self._folder(entry) else None

    def state(self, model: str, *, thorough: bool = True) -> State:
        """How the files of a model stand.

        Args:
            model: its id.
            thorough: hash the files; else only look whether they are there with the right size.
        """
        return self.verdict(model, thorough=thorough).state

    def verdict(self, model: str, *, thorough: bool = True) -> Verdict:
        """As `state`, with what is wrong in words."""
        entry = self.entry(model)
        if not entry.pinned:
            return Verdict(model, State.UNPINNED, "no digest is known, so it cannot be verified")
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
        """Hash the files of models, whatever was hashed before."""
        with self._lock:
            self._seen.clear()
        return [self.verdict(model) for model in models]

    def pull(self, models: Iterable[str], progress: OnProgress = _silent) -> list[Pulled]:
        """Fetch what is missing. What is there and verified is left alone; two processes may pull at once.

        Args:
            models: ids.
            progress: is told what happens, in bytes.

        Raises:
            CerError: unknown id, nothing pinned, no source could be reached, a wrong digest, or a full disk. Models
                before the one that failed stay.
        """
        wanted = [self.entry(model) for model in dict.fromkeys(models)]
        for entry in wanted:
            if not entry.pinned:
                raise CerError(
                    "cannot be pulled, because no digest is pinned to verify it by",
                    entry.id,
                    f"write revision, sha256 and bytes into its entry in zoo/{entry.profile}.toml",
                )
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
        found = self._sha256(path)
        if found != file.sha256:
            own = self.cache in path.parents
            then = f"run `cer models pull {entry.id}`" if own else "replace the file or remove it"
            raise CerError(f"wrong SHA-256: expected {file.sha256}, found {found}", str(path), then)

    def _sha256(self, path: Path) -> str:
        real = path.resolve()
        stat = real.stat()
        identity = (str(real), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with self._lock:
            if identity not in self._seen:
                self._seen[identity] = sha256_of(real)
            return self._seen[identity]

    def _view(self, entry: Entry, folder: Path) -> Path:
        """The folder itself, or one of links to the entry's files where it holds anything else.

        Libraries that load a folder may pick up files of other names in it, which nobody has verified.
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
            raise CerError(verdict.detail)  # a file of the user's own, or of the installation: not ours to replace
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
        work = self.cache / "downloads" / entry.id  # the lock is held: what lies here is of a pull that ended early
        for source in entry.sources:
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
        found = sha256_of(path)
        if found != file.sha256:
            shutil.rmtree(work, ignore_errors=True)  # or the next pull would take the same bytes again
            raise fetch.FetchError(f"{file.name} has a wrong SHA-256: expected {file.sha256}, found {found}")
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
        CerError: nothing says where the user's folders are.
    """
    base = Path(environment.get(CACHE, ""))
    return (base if base.is_absolute() else user_folder(CACHE) / ".cache") / "cer-pipeline" / "models"


def open_zoo(environment: Mapping[str, str] = os.environ, heads: Path | None = None) -> Zoo:
    """The zoo of this machine: all entries, the user's cache folder, and `CER_MODELS` where it is set.

    Args:
        environment: the environment variables.
        heads: folder of heads that were trained here (`Home.heads`); they go before the shipped ones.

    Raises:
        CerError: `CER_MODELS` is no folder, or the record of a trained head cannot be read.
    """
    local = Path(environment[LOCAL]).expanduser().absolute() if environment.get(LOCAL) else None
    if local is not None and not local.is_dir():
        raise CerError(f"{LOCAL} names no folder", str(local), "unset it, or make <folder>/<model id>/<files>")
    trained = published_heads(heads) if heads is not None else {}
    return Zoo(default_cache(environment), load_entries() | trained, local)


def ids_of(zoo: Zoo, profile: str | None = None, kinds: Sequence[str] = ("model", "head")) -> list[str]:
    """Ids of a profile's entries (all profiles: None) of some kinds."""
    return [e.id for e in zoo.entries.values() if profile in (None, e.profile) and e.kind in kinds]


def list_models(zoo: Zoo, profile: str | None = None) -> list[ModelRow]:
    """Every entry with its state by presence and size (`verify` hashes)."""
    rows = []
    for entry in zoo.entries.values():
        if profile in (None, entry.profile):
            state = zoo.state(entry.id, thorough=False)
            rows.append(ModelRow(entry, state, zoo._folder(entry) if entry.pinned else None))  # noqa: SLF001
    return rows


def pull(
    zoo: Zoo, models: Sequence[str] = (), profile: str = "embedded", progress: OnProgress = _silent
) -> list[Pulled]:
    """Fetch models; none named means all of the profile, demonstration clips not among them."""
    return zoo.pull(models or ids_of(zoo, profile), progress)


def verify(zoo: Zoo, models: Sequence[str] = ()) -> list[Verdict]:
    """Hash models; none named means all that are on this machine."""
    chosen = models or [row.entry.id for row in list_models(zoo) if row.path is not None]
    return zoo.verify(chosen)
