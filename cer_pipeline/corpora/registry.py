"""The registered corpora and their files: `$CER_HOME/corpora/NAME.json`.

Belongs here: registering, refreshing, reading and removing a registration. Does not belong here: the types
(`corpora.corpus`), finding files (`corpora.formats`), decoding them (`media`), or the file of annotations
(`corpora.annotations`).

The number of shards is fixed at the first registration, so that a new video changes one shard. A file is identified by
its SHA-256, which is not computed again while its size, modification time, inode and ctime are unchanged. Tools that
write a file in place and reset its modification time change its ctime; for file systems without one (FAT), `rehash`
reads all files again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora import annotation_fit as fit
from cer_pipeline.corpora import diagnostics, leaks
from cer_pipeline.corpora.annotations import VideoAnnotations, digest, read_text_digests, write
from cer_pipeline.corpora.corpus import Corpus, File, Stamp, shard_of
from cer_pipeline.corpora.formats.registry import CAPTIONS, LABELS, SPLIT, format_of, scan
from cer_pipeline.corpora.names import from_text, to_text
from cer_pipeline.corpora.scan import Scan, ScannedVideo
from cer_pipeline.corpora.splits import TRAIN, apply_split
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import load_profile
from cer_pipeline.status import Status
from cer_pipeline.store.files import commit_bytes

SCHEMA: Final = 1
VIDEOS_PER_SHARD: Final = 256
"""Minutes to hours of computation on one machine, with one Parquet file for each table."""

LEAKS: Final = "leaks"  # option: one of `leaks.MODES`
CONTENT: Final = "content"  # option: digest of a corpus without videos

_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Changes:
    """The difference between a registration and the one before.

    Args:
        added: new video_ids.
        changed: video_ids with another content, path, split, label or caption.
        removed: video_ids that are gone.
        unchanged: all other video_ids.
        shards: labels of the shards with added, changed or removed videos.
        ignored: one line for each kind of file that was left out.
        messages: one line for each other fact that a user may want to know.
        warnings: those of `messages` that are repeated whenever the corpus is used.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    shards: tuple[str, ...]
    ignored: tuple[str, ...]
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def names(home: Path) -> list[str]:
    """Return the names of all registered corpora, sorted."""
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
    annotations = path.parent / data["annotations"] if data.get("annotations") else None
    root = Path(from_text(data["root"]))
    options = {name: from_text(v) if isinstance(v, str) else v for name, v in data["options"].items()}
    return Corpus(data["name"], data["format"], root, data["shards"], files, options, annotations)


def why_absent(corpus: Corpus) -> str:
    """Return why the folder of a corpus cannot be read now, as a clause; empty where it can.

    An empty folder counts as absent: a mount point is empty while its disk is not mounted.
    """
    try:
        if not corpus.root.exists():
            return "is not there"
        if corpus.root.is_dir():
            with os.scandir(corpus.root) as entries:
                return "" if any(entries) else "is empty"
    except OSError as error:  # a broken mount, a folder without permission
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
    """Register a corpus, or refresh its registration.

    Args:
        home: `$CER_HOME`.
        name: of the corpus: lower-case letters, digits and underscores, at most 40.
        path: its folder or file.
        format: name of its format.
        options: option -> value; options of the registration before hold unless given.
        progress: called with bytes hashed so far, bytes in all, and the name of the file.
        rehash: read all files again, also those that seem unchanged.
        probing: called with annotated videos opened so far, their number, and the name of the file.

    Raises:
        CerError: a name, folder or annotation that is not valid, or a corpus of that name has another format.
    """
    old = load(home, name) if _file(home, name).exists() else None
    if old is not None and old.format != format:
        raise CerError(f"a corpus of the format {old.format} has this name", name, "choose another, or remove it first")
    options = {**(old.options if old else {}), **(options or {})}
    root = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (keeps links as the user wrote them)
    try:
        found = _scan(format, root, options)
    except CerError as error:
        if old is None:
            raise
        stays = f"the registration of {name} and its tables stay as they are"
        raise CerError(error.what, error.where, f"{error.then}; {stays}" if error.then else stays) from error
    if format_of(format).trains:
        corpus = Corpus(name, format, root, 0, (), {**options, CONTENT: found.content})
        return _register_without_videos(home, old, corpus, found)
    shards = old.shards if old else max(1, math.ceil(len(found.videos) / VIDEOS_PER_SHARD))
    # A registered path identifies a file only below the same folder.
    known = {file.path: file for file in old.files} if old and old.root == root else {}
    files, problems = _files(root, found.videos, {} if rehash else known, shards, progress)
    if not files:
        raise CerError("no video file can be read", to_text(str(root)), "; ".join(problems[:3]))
    annotations = {video.video_id: video.annotations for video in found.videos}
    files, annotations, misfits = _drop_misfits(root, files, annotations, old, probing)
    mode = options.get(LEAKS, leaks.EXCLUDE)
    files, messages = _separate(name, files, annotations, mode)
    warnings = tuple(messages) if mode == leaks.KEEP else ()
    messages = [*found.messages, *misfits, *messages]
    messages += diagnostics.diagnose(files, annotations, format_of(format).classes)
    stored = write(home / "corpora", name, ((f.shard, f.video_id, annotations[f.video_id]) for f in files))
    ordered = tuple(sorted(files, key=lambda f: f.video_id))
    corpus = Corpus(name, format, root, shards, ordered, options, home / "corpora" / stored if stored else None)
    _save(home, corpus)
    _remove_annotations(home, name, keep={c.annotations for c in (old, corpus) if c})
    return _changes(old, corpus, [*found.ignored, *problems], messages, warnings)


def _scan(format_: str, root: Path, options: Mapping[str, Any]) -> Scan:
    """Return what the format finds, with the options that hold for every format applied."""
    found = scan(format_, root, options)
    videos, ignored = apply_split(found.videos, options.get(SPLIT)), found.ignored
    if options.get(CAPTIONS):
        from cer_pipeline.corpora.formats.captions import attach

        attached = attach(videos, Path(options[CAPTIONS]))
        videos, ignored = attached.videos, [*ignored, *attached.ignored]
    videos = leaks.unique_ids(videos)
    if options.get(LABELS) and format_of(format_).spans:
        from cer_pipeline.corpora.formats.span_tables import attach_spans

        videos = attach_spans(videos, Path(options[LABELS]))
    return replace(found, videos=videos, ignored=ignored)


def _register_without_videos(home: Path, old: Corpus | None, corpus: Corpus, found: Scan) -> Changes:
    """Register path and content of a corpus that is for training alone."""
    _save(home, corpus)
    has_changed = old is not None and old.options.get(CONTENT) != found.content
    messages = [*found.messages, *(["its content has changed"] if has_changed else [])]
    return Changes((), (), (), (), (), tuple(found.ignored), tuple(messages))


def _separate(
    name: str, files: Sequence[File], annotations: Mapping[str, VideoAnnotations], mode: str
) -> tuple[list[File], list[str]]:
    """Return the files, without the splits that leaks make them leave, and the messages about that."""
    for file in files:
        if file.labels:
            leaks.check_name(file.video_id, file.path)
    members = [_member(name, file, annotations[file.video_id].text_digests) for file in files]
    excluded, messages = leaks.separate(members, mode)
    separated = [replace(f, split=None, excluded=excluded[f.video_id]) if f.video_id in excluded else f for f in files]
    return separated, messages


def _drop_misfits(
    root: Path,
    files: list[File],
    annotations: Mapping[str, VideoAnnotations],
    old: Corpus | None,
    probing: Progress | None,
) -> tuple[list[File], dict[str, VideoAnnotations], list[str]]:
    """See `annotation_fit.drop_misfits`; a file is opened once for each content."""
    known = {file.sha256: fit.Length(file.frames, file.duration_s) for file in old.files} if old else {}
    known = {content: length for content, length in known.items() if length.duration_s is not None}
    media = [file for file in files if not file.windows and fit.needs_length(annotations[file.video_id])]
    new = {file.sha256: file for file in media if file.sha256 not in known}
    known |= _lengths(root, new, probing)

    def length_of(file: File) -> fit.Length:
        return fit.listed_length(file.windows) if file.windows else known[file.sha256]

    return fit.drop_misfits(files, annotations, length_of)


def _lengths(root: Path, files: Mapping[str, File], probing: Progress | None) -> dict[str, fit.Length]:
    """Return content -> length of the file; unknown where the file cannot be read."""
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
            except MediaError:  # its row of `videos` gives the reason
                out[content] = fit.Length(None, None)
            if probing is not None:
                probing(done, len(files), file.path)
    return out


def _member(corpus: str, file: File, texts: Iterable[str]) -> leaks.Member:
    return leaks.Member(corpus, file.video_id, file.split, file.source, (file.sha256, *texts))


def members(home: Path, corpora: Iterable[str] | None = None) -> list[leaks.Member]:
    """Return the members of registered corpora for the search for leaks; of all corpora by default."""
    found = []
    for name in corpora if corpora is not None else names(home):
        corpus = load(home, name)
        texts = read_text_digests(corpus.annotations)
        found += [_member(name, file, texts.get(file.video_id, ())) for file in corpus.files]
    return found


def training_members(home: Path, corpora: Iterable[Corpus]) -> list[leaks.Member]:
    """Return the members that a training on some corpora reads: labelled videos of the training split.

    All videos of a corpus without splits are training videos.
    """
    found = []
    for corpus in corpora:
        labelled = {file.video_id for file in corpus.files if file.labels and not file.excluded}
        of_corpus = [m for m in members(home, [corpus.name]) if m.video_id in labelled]
        if not corpus.splits:
            of_corpus = [replace(m, split=TRAIN) for m in of_corpus]
        found += [m for m in of_corpus if m.split == TRAIN]
    return found


def remove(home: Path, name: str) -> None:
    """Remove a registration; tables and media files stay.

    Raises:
        CerError: there is none of that name.
    """
    path = _file(home, name)
    if not path.exists():
        load(home, name)  # raises the error that lists the registered corpora
    path.unlink(missing_ok=True)
    _remove_annotations(home, name, keep=set())


def _remove_annotations(home: Path, name: str, keep: set[Path | None]) -> None:
    """Remove files of annotations; runs in progress may still read those of the registration before."""
    for path in (home / "corpora").glob(f"{name}.*.parquet"):
        if path not in keep:
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
    root: Path, videos: Iterable[ScannedVideo], known: Mapping[str, File], shards: int, progress: Progress | None
) -> tuple[list[File], list[str]]:
    """Return the files with their digests, and one line for each file that cannot be read."""
    files, problems, sizes = [], [], []
    for video in videos:
        if video.content is not None:
            sha256, size = video.content
            files.append(_registered(video, (size, 0, 0, 0), sha256, shards))
            continue
        try:
            sizes.append((video, (root / from_text(video.path)).stat()))
        except OSError as error:
            problems.append(f"{video.path}: {error.strerror or error}")
    total, done = sum(status.st_size for _, status in sizes), 0
    for video, status in sizes:
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        before = known.get(video.path)
        try:
            if before is not None and before.stamp == stamp:
                sha256 = before.sha256
            else:
                with (root / from_text(video.path)).open("rb") as handle:
                    sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            problems.append(f"{video.path}: {error.strerror or error}")
            continue
        done += status.st_size
        if progress is not None:
            progress(done, total, video.path)
        files.append(_registered(video, stamp, sha256, shards))
    return files, problems


def _registered(video: ScannedVideo, stamp: Stamp, sha256: str, shards: int) -> File:
    size, mtime_ns, inode, ctime_ns = stamp
    return File(
        video.path,
        video.video_id,
        size,
        mtime_ns,
        inode,
        sha256,
        shard_of(video.video_id, shards),
        video.split,
        source=video.source or video.video_id,
        labels=digest(video.annotations.labels_json),
        captions=digest(video.annotations.captions_json),
        windows=video.windows,
        ctime_ns=ctime_ns,
    )


def _changes(
    old: Corpus | None, new: Corpus, ignored: list[str], messages: list[str], warnings: tuple[str, ...]
) -> Changes:
    before = {f.video_id: f for f in old.files} if old else {}
    after = {f.video_id: f for f in new.files}
    added = [v for v in after if v not in before]
    removed = [v for v in before if v not in after]
    changed = [v for v in after if v in before and _content(before[v]) != _content(after[v])]
    shards = {after[v].shard for v in (*added, *changed)} | {before[v].shard for v in removed}
    return Changes(
        added=tuple(sorted(added)),
        changed=tuple(sorted(changed)),
        removed=tuple(sorted(removed)),
        unchanged=tuple(sorted(set(after) - {*added, *changed})),
        shards=tuple(sorted(shards)),
        ignored=tuple(ignored),
        messages=tuple(messages),
        warnings=warnings,
    )


def _content(file: File) -> tuple[str | None, ...]:
    return file.sha256, file.path, file.split, file.excluded, file.labels, file.captions
