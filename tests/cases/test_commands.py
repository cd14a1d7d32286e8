"""Folders, names, places and interruptions as people have them: what the commands must do in each case folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from cer_pipeline.zoo import Zoo
from tests.cases.case_home import CER, REPOSITORY, Home

pytestmark = pytest.mark.cases

CEXPR = (
    "Fearfully Surprised,Happily Surprised,Sadly Surprised,Disgustedly Surprised,Angrily Surprised,"
    "Sadly Fearful,Sadly Angry"
)
LONG_NAMES = [
    "\uac00" * 75,
    "L" * 245,
    unicodedata.normalize("NFC", "Zo\u00eb"),
    unicodedata.normalize("NFD", "Zo\u00eb"),
    "trailing ",
    "-leading",
    "Case",
    "case",
    "a#b?c%20d&e",
    'comma,"quote"',
    "new\nline",
    "emoji \U0001f600",
    "=1+1",
]
ATOM_HEADER = 8


def free_atom(size: int) -> bytes:
    """An MP4 box that players skip, `size` bytes long."""
    return size.to_bytes(4, "big") + b"free" + bytes(size - ATOM_HEADER)


def labelled(home: Home, corpus: str) -> set[object]:
    """Videos of a registered corpus that have a label."""
    return {file["video_id"] for file in registered(home, corpus) if file["labels"]}


def registered(home: Home, corpus: str) -> list[dict[str, object]]:
    return json.loads((home.root / "corpora" / f"{corpus}.json").read_text("utf-8"))["files"]


@pytest.mark.parametrize("name", ["plain", "quoted", "semicolon", "tab", "bomcrlf"])
def test_label_files_are_read_as_tools_write_them(home: Home, cases: Path, name: str) -> None:
    folder = cases / "09-label-csv" / "input"
    code, text = home.cer("corpus", "add", "c", str(folder / "videos"), "--format", "cexpr", "--labels",
                          str(folder / f"{name}.csv"))  # fmt: skip
    assert code == 0, text
    assert labelled(home, "c") == {"clip2"}


@pytest.mark.parametrize("name", ["latin1", "utf16", "hms", "ext"])
def test_label_files_that_cannot_be_read_are_refused_in_one_line_or_read(home: Home, cases: Path, name: str) -> None:
    folder = cases / "09-label-csv" / "input"
    code, text = home.cer("corpus", "add", "c", str(folder / "videos"), "--format", "cexpr", "--labels",
                          str(folder / f"{name}.csv"))  # fmt: skip
    if code:
        assert code == 2 and "Traceback" not in text and " - " in text.strip().splitlines()[-1]
    else:
        assert labelled(home, "c") == {"clip2"}


def test_a_label_finds_its_video_in_either_unicode_form(home: Home, media: Path, tmp_path: Path) -> None:
    folder, name = tmp_path / "v", "Zo\u00eb M\u00fcller"
    folder.mkdir()
    shutil.copyfile(media / "park.mp4", folder / f"{unicodedata.normalize('NFD', name)}.mp4")
    labels = tmp_path / "l.csv"
    row = f"{unicodedata.normalize('NFC', name)},0,0.5,1,0,0,0,0,0,0"
    labels.write_text(f"video,begin,end,{CEXPR}\n{row}\n", "utf-8")
    code, text = home.cer("corpus", "add", "c", str(folder), "--format", "cexpr", "--labels", str(labels))
    assert code == 0, text
    (file,) = registered(home, "c")
    assert file["video_id"] == unicodedata.normalize("NFC", name) and file["labels"]


def test_a_file_replaced_in_place_is_noticed_though_its_time_stamp_was_put_back(
    home: Home, cases: Path, tmp_path: Path
) -> None:
    folder = cases / "11-same-mtime" / "input"
    target = tmp_path / "v" / "a.mp4"
    target.parent.mkdir()
    shutil.copyfile(folder / "s1.mp4", target)
    assert home.cer("corpus", "add", "c", str(target.parent))[0] == 0
    before, other = target.stat(), (folder / "s2.mp4").read_bytes()
    with target.open("r+b") as file:
        file.write(other + free_atom(before.st_size - len(other)))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert target.stat().st_size == before.st_size
    code, text = home.cer("corpus", "add", "c", str(target.parent))
    assert code == 0 and "1 changed" in text


@pytest.mark.parametrize("name", ["space x", "hash#1", "100%25", "pct%20x", "q?x", "\u00e9"])
def test_a_home_works_or_is_refused_before_anything_is_written(media: Path, tmp_path: Path, name: str) -> None:
    home, folder = Home(tmp_path / "homes" / name), tmp_path / "v"
    folder.mkdir()
    (tmp_path / "homes").mkdir()
    shutil.copyfile(media / "park.mp4", folder / "park.mp4")
    code, text = home.cer("corpus", "add", "c", str(folder))
    assert code in (0, 2), text
    if code:
        assert "Traceback" not in text and "CER_HOME" in text
        assert list((tmp_path / "homes").iterdir()) == []
    else:
        assert [path.name for path in (tmp_path / "homes").iterdir()] == [name]
        assert home.cer("run", "c", "--select", "videos")[0] == 0


def test_names_near_the_limit_go_through_all_commands(home: Home, media: Path, weights: Zoo, tmp_path: Path) -> None:
    del weights
    folder, park = tmp_path / "v", (media / "park.mp4").read_bytes()
    folder.mkdir()
    for i, name in enumerate(LONG_NAMES):
        (folder / f"{name}.mp4").write_bytes(park + free_atom(24) + str(i).encode().ljust(16))
    for words in (["corpus", "add", "c", str(folder)], ["run", "c"], ["report", "c"]):
        code, text = home.cer(*words)
        assert code == 0, text[-2000:]
    for target in ("csv", "parquet", "abaw"):
        out = tmp_path / "out" / target
        code, text = home.cer("export", "c", "--to", target, "--out", str(out))
        assert code == 0, text[-2000:]
        assert [path for path in out.rglob("*") if ".tmp" in path.name] == []
    assert len(list((tmp_path / "out" / "abaw").rglob("*.txt"))) >= len(LONG_NAMES)
    assert home.query("select count(distinct video_id) from {frame_predictions}", "c") == [(len(LONG_NAMES),)]


def latin1(home: Home, tmp_path: Path) -> dict[str, str]:
    locale = tmp_path / "locales"
    locale.mkdir()
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(locale / "en_US.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    if not made or not (locale / "en_US.ISO-8859-1" / "LC_CTYPE").is_file():
        pytest.skip("localedef cannot make the locale en_US.ISO-8859-1 here (install the package locales)")
    clean = {k: v for k, v in home.env.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING"))}
    return clean | {"LOCPATH": str(locale), "LC_ALL": "en_US.ISO-8859-1"}


def test_ids_and_reports_are_the_same_in_every_locale(home: Home, media: Path, weights: Zoo, tmp_path: Path) -> None:
    del weights
    folder = tmp_path / "v"
    folder.mkdir()
    shutil.copyfile(media / "park.mp4", folder / "Zo\u00eb.mp4")
    assert home.cer("corpus", "add", "c", str(folder))[0] == 0
    assert home.cer("run", "c")[0] == 0
    env = latin1(home, tmp_path)
    code, text = home.cer("report", "c", env=env)
    assert code == 0, text
    code, text = home.cer("corpus", "add", "c", str(folder), env=env)
    assert code == 0 and "0 new" in text and "1 unchanged" in text
    assert [file["video_id"] for file in registered(home, "c")] == ["Zo\u00eb"]
    for encoding in ("ascii", "latin-1"):
        assert home.cer("report", "c", env=home.env | {"PYTHONIOENCODING": encoding})[0] == 0


def test_two_runs_at_once_compute_every_row_once(home: Home, cases: Path, weights: Zoo) -> None:
    del weights
    assert home.cer("corpus", "add", "c", str(cases / "24-running" / "input"))[0] == 0
    both = [
        subprocess.Popen([*CER, "run", "c"], env=home.env, cwd=REPOSITORY, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]  # fmt: skip
    assert [process.wait(900) for process in both] == [0, 0]
    ((rows, distinct),) = home.query("select count(*), count(distinct (video_id, frame)) from {frame_predictions}", "c")
    assert rows == distinct > 0


PEAK = """
import os, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""
MORE_PER_MINUTE_MB = 40
"""20 MB a minute were measured with two faces a frame, from 1 to 8 minutes."""


def test_memory_does_not_grow_in_step_with_the_length(cases: Path, media: Path, weights: Zoo, tmp_path: Path) -> None:
    import imageio_ffmpeg

    del cases, weights
    peaks = {}
    for seconds in (60, 240):
        folder, home = tmp_path / str(seconds), Home(tmp_path / f"home{seconds}")
        folder.mkdir()
        loop = ["-v", "error", "-stream_loop", "60", "-i", str(media / "obama_speech.mp4"), "-c", "copy"]
        out = ["-t", str(seconds), str(folder / "a.mp4")]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *loop, *out], check=True)
        assert home.cer("corpus", "add", "c", str(folder))[0] == 0
        done = subprocess.run([sys.executable, "-c", PEAK, *CER, "run", "c"], env=home.env, cwd=REPOSITORY,
                              capture_output=True, text=True, check=True)  # fmt: skip
        code, peak = map(int, done.stdout.split())
        assert code == 0
        peaks[seconds] = peak
    assert peaks[240] - peaks[60] < 3 * MORE_PER_MINUTE_MB


def test_ctrl_c_ends_in_one_line_and_the_next_run_goes_on(home: Home, cases: Path, weights: Zoo) -> None:
    del weights
    assert home.cer("corpus", "add", "c", str(cases / "27-ctrl-c" / "input"))[0] == 0
    process = subprocess.Popen([*CER, "run", "c"], env=home.env, cwd=REPOSITORY, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    until = time.monotonic() + 60
    while time.monotonic() < until and not list((home.root / "tables").glob("videos/*/*/data.parquet")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    text = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130
    last = text.strip().splitlines()[-1]
    assert "stopped" in last and "cer run c" in last and "dagster" not in text.lower()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    code, text = home.cer("run", "c")
    assert code == 0, text


OLD = "286a531"


def test_a_home_of_an_older_version_is_taken_over(home: Home, cases: Path, weights: Zoo, tmp_path: Path) -> None:
    del weights
    old = tmp_path / "old"
    cloned = subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(old)], capture_output=True, check=False)
    if cloned.returncode or subprocess.run(["git", "-C", str(old), "checkout", "-q", OLD], check=False,
                                           capture_output=True).returncode:  # fmt: skip
        pytest.skip(f"the history of this checkout does not reach commit {OLD}")
    env = home.env | {"PYTHONPATH": str(old)}
    folder = str(cases / "30-upgrade" / "input")
    assert home.cer("corpus", "add", "c", folder, env=env)[0] == 0
    home.cer("run", "c", "--select", "+frames", env=env)
    assert home.cer("run", "c")[0] == 0
    fresh = Home(tmp_path / "fresh")
    assert fresh.cer("corpus", "add", "c", folder)[0] == 0
    assert fresh.cer("run", "c")[0] == 0
    tables = {
        base: {p.relative_to(base / "tables"): p.read_bytes() for p in (base / "tables").rglob("*.parquet")}
        for base in (home.root, fresh.root)
    }
    assert tables[home.root] == tables[fresh.root]
