"""Which corpora there are, and which files belong to each: `$CER_HOME/corpora/NAME.json`.

Belongs here: registering, shards, finding the file behind a video_id. Does not belong here: how files are found
(`corpora.formats.registry`), what they hold (`media`), or what was written about them (`annotations`, in a file of its
own).

A shard is a stable hash of the video_id modulo a number that is fixed at registration, so that one more video touches
one shard. Content is known by SHA-256; it is not computed again while size, time of change, inode and ctime stay. Tools
that write a file in place and set its time of change back leave another ctime; where a file system has none (FAT),
`rehash` reads all files again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora import annotation_fit as fit
from cer_pipeline.corpora import diagnostics as findings
from cer_pipeline.corpora.annotations import Notes, digest, read_text_digests, write
from cer_pipeline.corpora.corpus import Corpus, File, Stamp, shard_of
from cer_pipeline.corpora.formats.names import from_text, to_text
from cer_pipeline.corpora.formats.registry import CAPTIONS, LABELS, SPLIT, Found, Scan, format_of, scan
from cer_pipeline.corpora.leaks import find as leaks
from cer_pipeline.corpora.splits import TRAIN, apply_split
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import load_profile
from cer_pipeline.status import Status
from cer_pipeline.store.files import commit_bytes

SCHEMA: Final = 1
VIDEOS_PER_SHARD: Final = 256
"""Minutes to hours of work on one machine, one Parquet file a table."""

LEAKS: Final = "leaks"  # option: what to do about them
CONTENT: Final = "content"  # option: digest of a corpus without videos

_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Changes:
    """What registering a corpus again has found.

    Args:
        added: video_ids that were not there before.
        changed: video_ids whose content, path, split, labels or captions are another.
        removed: video_ids that are no longer there.
        unchanged: all others.
        shards: labels of the shards that hold any of the first three.
        ignored: one line for everything that was left out.
        told: one line for everything else that a user may want to know.
        warnings: those of `told` that are to be said whenever the corpus is used.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    shards: tuple[str, ...]
    ignored: tuple[str, ...]
    told: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def names(home: Path) -> list[str]:
    """Names of all registered corpora, sorted."""
    return sorted(path.stem for path in (home / "corpora").glob("*.json") if _NAME.fullmatch(path.stem))


def load(home: Path, name: str) -> Corpus:
    """Read a registered corpus.

    Raises:
        CerError: there is none of that name, or its file cannot be read.
    """
    path, again = _file(home, name), f"run `cer corpus remove {name}`, then add it again"
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(names(home))
        then = f"registered are: {known}" if known else f"run `cer corpus add {name} PATH`"
        raise CerError("no such corpus", name, then) from None
    except (OSError, ValueError) as error:
        raise CerError("the corpus cannot be read", f"{path} ({error})", again) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise CerError("the corpus was registered by another version", str(path), again)
    files = tuple(File(**(file | {"windows": tuple(file.get("windows", ()))})) for file in data["files"])
    notes = path.parent / data["annotations"] if data.get("annotations") else None
    root = Path(from_text(data["root"]))
    options = {name: from_text(v) if isinstance(v, str) else v for name, v in data["options"].items()}
    return Corpus(data["name"], data["format"], root, data["shards"], files, options, notes)


def why_absent(corpus: Corpus) -> str:
    """Why the folder of a corpus cannot be looked into now, as a clause; empty where it can.

    A folder that holds nothing counts as absent: that is what a mount point is while its disk is away.
    """
    try:
        if not corpus.root.exists():
            return "is not there"
        if corpus.root.is_dir():
            with os.scandir(corpus.root) as entries:
                return "" if any(entries) else "is empty"
    except OSError as error:  # a dead mount, a folder of somebody else
        return f"cannot be read ({error.strerror})"
    return ""


def register(
    home: Path,
    name: str,
    path: Path,
    format: str = "folder",  # noqa: A002 (the word of the command line)
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    rehash: bool = False,
    probing: Progress | None = None,
) -> Changes:
    """Register a corpus, or look again at one that is registered.

    Args:
        home: `$CER_HOME`.
        name: of the corpus: lower-case letters, digits and underscores, at most 40.
        path: its folder.
        format: a key of `formats.FORMATS`.
        options: what else the format needs; those of the last time unless given.
        progress: called with bytes hashed so far, bytes in all, and the name of the file.
        rehash: read all files again, also those that seem unchanged.
        probing: called with annotated videos looked at so far, how many there are, and the name of the file.

    Returns:
        What is new, changed and gone.

    Raises:
        CerError: a mistake in the name or the folder, or a corpus of that name has another format.
    """
    if not _NAME.fullmatch(name):
        raise CerError("not a corpus name", name, "use at most 40 lower-case letters, digits and underscores")
    old = load(home, name) if _file(home, name).exists() else None
    if old is not None and old.format != format:
        raise CerError(f"a corpus of the format {old.format} has this name", name, "choose another, or remove it first")
    options = {**(old.options if old else {}), **(options or {})}
    root = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (links stay as the user named them)
    try:
        found = _scan(format, root, options)
    except CerError as error:
        if old is None:
            raise
        stays = f"the registration of {name} and its tables stay as they are"
        raise CerError(error.what, error.where, f"{error.then}; {stays}" if error.then else stays) from error
    if format_of(format).trains:
        return _register_sheet(home, old, Corpus(name, format, root, 0, (), {**options, CONTENT: found.content}), found)
    shards = old.shards if old else max(1, math.ceil(len(found.files) / VIDEOS_PER_SHARD))
    # What was known about a file holds only below the same folder.
    known = {file.path: file for file in old.files} if old and old.root == root else {}
    hashed, problems = _files(root, found.files, {} if rehash else known, shards, progress)
    if not hashed:
        raise CerError("no video file can be read", to_text(str(root)), "; ".join(problems[:3]))
    notes = {item.video_id: item.notes for item in found.files}
    hashed, notes, misfits = _fitted(root, hashed, notes, old, probing)
    mode = options.get(LEAKS, leaks.EXCLUDE)
    files, told = _separated(name, hashed, notes, mode)
    warnings = list(told) if mode == leaks.KEEP else []
    told += findings.look(files, notes, format_of(format).classes)
    kept = write(home / "corpora", name, ((f.shard, f.video_id, notes[f.video_id]) for f in files))
    ordered = tuple(sorted(files, key=lambda f: f.video_id))
    corpus = Corpus(name, format, root, shards, ordered, options, home / "corpora" / kept if kept else None)
    _save(home, corpus)
    _tidy(home, name, {c.annotations for c in (old, corpus) if c})
    changes = _changes(old, corpus, [*found.ignored, *problems], [*found.told, *misfits, *told])
    return replace(changes, warnings=tuple(warnings))


def _scan(format_: str, root: Path, options: Mapping[str, Any]) -> Scan:
    found = scan(format_, root, options)
    files, ignored = apply_split(found.files, options.get(SPLIT)), list(found.ignored)
    if options.get(CAPTIONS):
        from cer_pipeline.corpora.formats.captions import attach

        attached = attach(files, Path(options[CAPTIONS]))
        files, ignored = attached.files, [*ignored, *attached.ignored]
    files = leaks.tell_apart(files)
    if options.get(LABELS) and format_of(format_).spans:
        from cer_pipeline.corpora.formats.cexpr import attach_spans

        files = attach_spans(files, Path(options[LABELS]))
    return replace(found, files=files, ignored=ignored)


def _register_sheet(home: Path, old: Corpus | None, corpus: Corpus, found: Scan) -> Changes:
    """Register a corpus without videos: where it lies and what it holds, for training alone."""
    _save(home, corpus)
    is_same = old is not None and old.options.get(CONTENT) == found.content
    told = [*found.told, *(["its content has changed"] if old is not None and not is_same else [])]
    return Changes((), (), (), (), (), tuple(found.ignored), tuple(told))


def _separated(name: str, files: Iterable[File], notes: Mapping[str, Notes], mode: str) -> tuple[list[File], list[str]]:
    """Files without the splits that they must leave, and what to tell about that."""
    files = list(files)
    for file in files:
        if file.labels:
            leaks.check_name(file.video_id, file.path)
    members = [_member(name, file, notes[file.video_id].text_digests) for file in files]
    excluded, told = leaks.separate(members, mode)
    return [replace(f, split=None, excluded=excluded[f.video_id]) if f.video_id in excluded else f for f in files], told


def _fitted(
    root: Path, files: list[File], notes: Mapping[str, Notes], old: Corpus | None, probing: Progress | None
) -> tuple[list[File], dict[str, Notes], list[str]]:
    """See `fit.fitted`; a file is opened once for each content."""
    known = {file.sha256: fit.Length(file.frames, file.duration_s) for file in old.files} if old else {}
    known = {content: length for content, length in known.items() if length.duration_s is not None}
    media = [file for file in files if not file.windows and fit.needs_length(notes[file.video_id])]
    new = {file.sha256: file for file in media if file.sha256 not in known}
    known |= _lengths(root, new, probing)

    def length_of(file: File) -> fit.Length:
        return fit.listed_length(file.windows) if file.windows else known[file.sha256]

    return fit.fitted(files, notes, length_of)


def _lengths(root: Path, files: Mapping[str, File], probing: Progress | None) -> dict[str, fit.Length]:
    """The length of every file, by the content that is its key; unknown where the file cannot be read."""
    if not files:
        return {}
    from cer_pipeline.media.errors import MediaError
    from cer_pipeline.media.sandbox import Limits, Sandbox

    profile = load_profile()
    options, out = {"max_duration_s": profile["media"]["max_duration_s"]}, {}
    with Sandbox(Limits.of(profile)) as sandbox:
        for done, (content, file) in enumerate(files.items(), 1):
            try:
                found = sandbox.run("probe", root / from_text(file.path), options)
                frames = 0 if found["status"] == Status.NO_VIDEO else found.get("frames")
                out[content] = fit.Length(frames, found["duration_s"])
            except MediaError:  # its row of `videos` will say why
                out[content] = fit.Length(None, None)
            if probing is not None:
                probing(done, len(files), file.path)
    return out


def _member(corpus: str, file: File, texts: Iterable[str]) -> leaks.Member:
    return leaks.Member(corpus, file.video_id, file.split, file.source, (file.sha256, *texts))


def members(home: Path, corpora: Iterable[str] | None = None) -> list[leaks.Member]:
    """The videos of registered corpora as the search for leaks sees them; of all corpora unless named."""
    out = []
    for name in corpora if corpora is not None else names(home):
        corpus = load(home, name)
        texts = read_text_digests(corpus.annotations)
        out += [_member(name, file, texts.get(file.video_id, ())) for file in corpus.files]
    return out


def learned(home: Path, corpora: Iterable[Corpus]) -> list[leaks.Member]:
    """The videos that a training on some corpora learns from: the labelled ones of the training split.

    A corpus without splits is for training as a whole.
    """
    out = []
    for corpus in corpora:
        labelled = {file.video_id for file in corpus.files if file.labels and not file.excluded}
        mine = [m for m in members(home, [corpus.name]) if m.video_id in labelled]
        out += [m for m in mine if m.split == TRAIN] if corpus.splits else [replace(m, split=TRAIN) for m in mine]
    return out


def remove(home: Path, name: str) -> None:
    """Forget a corpus; its tables stay.

    Raises:
        CerError: there is none of that name.
    """
    path = _file(home, name)
    if not path.exists():
        load(home, name)  # tells which there are
    path.unlink(missing_ok=True)
    _tidy(home, name, set())


def _tidy(home: Path, name: str, used: set[Path | None]) -> None:
    """Remove annotations that no registration refers to; those of the last one stay for runs that read them now."""
    for path in (home / "corpora").glob(f"{name}.*.parquet"):
        if path not in used:
            path.unlink(missing_ok=True)


def _file(home: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise CerError("not a corpus name", name, "use at most 40 lower-case letters, digits and underscores")
    return home / "corpora" / f"{name}.json"


def _save(home: Path, corpus: Corpus) -> None:
    data = {
        "schema": SCHEMA,
        "name": corpus.name,
        "format": corpus.format,
        "root": to_text(str(corpus.root)),
        "shards": corpus.shards,
        "options": {name: to_text(v) if isinstance(v, str) else v for name, v in corpus.options.items()},
        "annotations": corpus.annotations.name if corpus.annotations else None,
        "files": [asdict(file) for file in corpus.files],
    }
    commit_bytes(_file(home, corpus.name), json.dumps(data, indent=1, ensure_ascii=False).encode())


def _files(
    root: Path, found: Iterable[Found], known: Mapping[str, File], shards: int, progress: Progress | None
) -> tuple[list[File], list[str]]:
    files, problems, sizes = [], [], []
    for item in found:
        if item.content is not None:
            sha256, size = item.content
            files.append(_registered(item, (size, 0, 0, 0), sha256, shards))
            continue
        try:
            sizes.append((item, (root / from_text(item.path)).stat()))
        except OSError as error:
            problems.append(f"{item.path}: {error.strerror or error}")
    total, done = sum(status.st_size for _, status in sizes), 0
    for item, status in sizes:
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        before = known.get(item.path)
        try:
            if before is not None and before.stamp == stamp:
                sha256 = before.sha256
            else:
                with (root / from_text(item.path)).open("rb") as handle:
                    sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            problems.append(f"{item.path}: {error.strerror or error}")
            continue
        done += status.st_size
        if progress is not None:
            progress(done, total, item.path)
        files.append(_registered(item, stamp, sha256, shards))
    return files, problems


def _registered(item: Found, stamp: Stamp, sha256: str, shards: int) -> File:
    size, mtime_ns, inode, ctime_ns = stamp
    return File(
        item.path,
        item.video_id,
        size,
        mtime_ns,
        inode,
        sha256,
        shard_of(item.video_id, shards),
        item.split,
        source=item.source or item.video_id,
        labels=digest(item.notes.labels_text),
        captions=digest(item.notes.captions_text),
        windows=item.windows,
        ctime_ns=ctime_ns,
    )


def _changes(old: Corpus | None, new: Corpus, ignored: list[str], told: list[str]) -> Changes:
    before = {f.video_id: f for f in old.files} if old else {}
    after = {f.video_id: f for f in new.files}
    added = [v for v in after if v not in before]
    removed = [v for v in before if v not in after]
    changed = [v for v in after if v in before and _content(before[v]) != _content(after[v])]
    touched = {after[v].shard for v in (*added, *changed)} | {before[v].shard for v in removed}
    return Changes(
        added=tuple(sorted(added)),
        changed=tuple(sorted(changed)),
        removed=tuple(sorted(removed)),
        unchanged=tuple(sorted(set(after) - {*added, *changed})),
        shards=tuple(sorted(touched)),
        ignored=tuple(ignored),
        told=tuple(told),
    )


def _content(file: File) -> tuple[str | None, ...]:
    return file.sha256, file.path, file.split, file.excluded, file.labels, file.captions
