"""The command line where people live: stopped by hand, in other locales, with folders that are away or leaks kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from cer_pipeline.cli import launch
from cer_pipeline.cli import run as run_command
from cer_pipeline.cli.app import Stopped, app
from cer_pipeline.cli.output import PLAIN
from cer_pipeline.cli.stopping import insisting
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from cer_pipeline.store.home import Home
from tests.helpers import corpus_files as files

REPOSITORY = Path(__file__).resolve().parents[3]


def cer(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A process of its own that runs some code with the words as its command line."""
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(
        [sys.executable, "-c", f"{HEAR}\n{code}", *words], env=env, capture_output=True, timeout=120, check=False
    )


HEAR = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""A shell that starts tests in the background has them ignore Ctrl-C, and so would the processes that they start."""


@pytest.fixture(autouse=True)
def hear():
    """Let this process hear Ctrl-C while a test runs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


MAIN = "from cer_pipeline.cli import main; main()"


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("cer_pipeline.corpora.registry.register", ["corpus", "add", "two words", "/x"]),
        ("cer_pipeline.cli.run.run_corpus", ["run", "c"]),
        ("cer_pipeline.cli.evaluate.evaluated", ["evaluate", "c"]),
        ("cer_pipeline.cli.train._launch", ["train", "mhpf", "--corpora", "c"]),
        ("cer_pipeline.cli.models.pull_models", ["models", "pull"]),
    ],
)
def test_ctrl_c_is_one_line_with_the_command_that_goes_on(tmp_path, place, words):
    module, _, name = place.rpartition(".")
    stop = f"import os, signal, {module} as m; m.{name} = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)"
    ready = "import cer_pipeline.training.trainer as t; t.training_corpora = lambda *a: None"
    done = python(f"{stop}; {ready}; {MAIN}", *words, CER_HOME=str(tmp_path))
    (line,) = done.stderr.decode().strip().splitlines()
    assert line.startswith("stopped; nothing is lost, and this goes on where it stopped: cer ")
    assert line.endswith("cer corpus add 'two words' /x" if "two words" in words else f"cer {' '.join(words)}")
    assert done.returncode == 130


def test_a_command_that_is_stopped_raises_one_exception_that_typer_leaves_alone(monkeypatch, tmp_home):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "names", stop)
    assert isinstance(cer("corpus", "list").exception, Stopped)


def job(body):
    @dg.op
    def work():
        body()

    @dg.job
    def one():
        work()

    return one


def test_a_run_that_ctrl_c_ends_is_stopped_and_not_failed():
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(KeyboardInterrupt):
        launch.execute(instance, job(lambda: os.kill(os.getpid(), signal.SIGINT)))


def test_a_run_that_fails_by_itself_is_no_stopped_one():
    def body() -> None:
        raise CerError("the disk is full")

    with dg.DagsterInstance.ephemeral() as instance:
        result = launch.execute(instance, job(body))
        assert run_command.broken_steps(result) == {"work": "cer_pipeline.errors.CerError: the disk is full"}
        assert launch.execute(instance, job(lambda: None)).success


# --- locales and encodings ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latin1(tmp_path_factory) -> dict[str, str]:
    """The environment of a machine whose locale is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locale")
    if not shutil.which("localedef"):
        pytest.skip("localedef is not on this machine: install the package locales or glibc-common")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    made = subprocess.run(command, capture_output=True, check=False).returncode <= 1
    if not made or not (folder / "en_US.ISO-8859-1" / "LC_CTYPE").is_file():
        pytest.skip("localedef cannot make en_US.ISO-8859-1 on this machine: install the package locales")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1", "LANG": "", "PYTHONUTF8": ""}


SAY = (
    f"import typer, cer_pipeline.cli.app as c; c.app.command('say')(lambda: print('Zo\\u00eb \\u25a0 \\uac00')); {MAIN}"
)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"Zo? # ?\n"), ("iso-8859-1", b"Zo\xeb # ?\n"), ("utf-8", "Zoë ■ 가\n".encode())]
)
def test_output_replaces_what_its_encoding_cannot_show(tmp_path, encoding, shown):
    done = python(SAY, "say", CER_HOME=str(tmp_path), PYTHONIOENCODING=encoding)
    assert (done.stdout, done.returncode) == (shown, 0), done.stderr


def test_one_sign_is_replaced_by_one_so_that_columns_stay():
    assert all(len(sign) == len(plain) == 1 and plain.isascii() for sign, plain in PLAIN.items())


@pytest.mark.slow
def test_ids_are_the_same_and_the_output_is_the_terminals_in_a_latin_1_locale(tmp_path, latin1):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "Zoë.mp4").write_bytes(b"x")
    (tmp_path / "v" / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"y")
    home = tmp_path / "Zuhause ä"
    first = python(MAIN, "corpus", "add", "c", str(tmp_path / "v"), "--json", CER_HOME=str(home))
    assert json.loads(first.stdout)["added"] == ["Zoë", "bad\\xff"]
    again = python(MAIN, "corpus", "add", "c", str(tmp_path / "v"), "--json", CER_HOME=str(home), **latin1)
    told = json.loads(again.stdout)
    assert (told["added"], told["removed"], told["unchanged"]) == ([], [], 2)
    assert [f.video_id for f in registry.load(home, "c").files] == ["Zoë", "bad\\xff"]
    said = python(SAY, "say", CER_HOME=str(home), **latin1)
    assert said.stdout == b"Zo\xeb # ?\n"


def test_the_sandbox_opens_a_file_by_its_bytes_in_a_latin_1_locale(tmp_path, latin1):
    from tests.helpers.clips import make_clip

    make_clip(tmp_path / "Zoë ■.mkv", [0.0, 0.04, 0.08])
    code = (
        "import os, sys; from cer_pipeline.media.sandbox import Limits, Sandbox\n"
        "folder = sys.argv[1]; name = next(n for n in os.listdir(folder) if n.endswith('.mkv'))\n"
        "with Sandbox(Limits()) as s:\n"
        "    print(s.run('probe', os.path.join(folder, name), {'max_duration_s': 9.0})['frames'])"
    )
    done = python(code, str(tmp_path), **latin1)
    assert done.stdout == b"3\n", done.stderr


def test_an_error_about_a_hostile_name_is_one_line_without_control_characters(tmp_path):
    done = python(MAIN, "corpus", "add", "c", str(tmp_path / "a\n\x1b[31mb"), CER_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize(("name", "words"), [("q?x", ["corpus", "list"]), ("pct%20x", ["run", "c"])])
def test_a_home_that_cannot_be_used_is_one_line_and_nothing_is_written(tmp_path, name, words):
    done = python(MAIN, *words, CER_HOME=str(tmp_path / name))
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: the path of the home folder holds ? or a percent sign")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


# --- folders that are away, leaks that are kept ------------------------------------------------------------------


@pytest.fixture
def videos(tmp_path: Path, tmp_home: Path) -> Path:
    files.put(tmp_path / "videos" / "a.mp4", b"no video")
    cer("corpus", "add", "c", tmp_path / "videos")
    return tmp_path / "videos"


@pytest.mark.slow
@pytest.mark.parametrize("away", ["gone", "empty"])
def test_a_folder_that_is_away_is_told_and_keeps_its_videos_and_tables(videos, tmp_home, away):
    made = cer("run", "c", "--select", "videos")
    assert made.exit_code == 0, made.output
    table = Home(tmp_home).table("videos", "c", "s000")
    before = table.read_bytes()
    videos.rename(videos.with_name("elsewhere"))
    if away == "empty":
        videos.mkdir()
    status = cer("status", "c")
    assert status.exit_code == 0
    assert f"the folder of c {'is empty' if away == 'empty' else 'is not there'}" in status.stderr
    assert "its videos stay registered and its tables stay" in status.stderr
    up_to_date = cer("run", "c", "--select", "videos")
    assert up_to_date.exit_code == 0
    needing = cer("run", "c", "--set", "media.max_duration_s=100")
    assert isinstance(needing.exception, CerError)
    assert "the videos are needed for" in needing.exception.line()
    assert "cer corpus add c PATH`; all tables stay as they are" in needing.exception.line()
    assert (table.read_bytes(), registry.load(tmp_home, "c").files[0].video_id) == (before, "a")
    moved = cer("corpus", "add", "c", videos.with_name("elsewhere"))
    assert "0 new, 0 changed, 0 removed, 1 unchanged" in moved.stdout


@pytest.mark.slow
def test_leaks_that_are_kept_are_said_by_every_run(tmp_path, tmp_home):
    root = files.afew_captions(tmp_path / "texts", dev={"000002000___Fear_0000.avi": "Fear"})
    added = cer("corpus", "add", "c", root, "--format", "captions", "--leaks", "keep")
    assert "1 leaks between splits are kept" in added.stderr
    for _ in range(2):
        assert (
            "c: 1 leaks between splits are kept, first 000002000@train" in cer("run", "c", "--select", "videos").stderr
        )
    cer("corpus", "add", "c", root, "--format", "captions", "--leaks", "exclude")
    assert "leaks" not in cer("run", "c", "--select", "videos").stderr


def test_annotations_that_do_not_fit_are_told_when_a_corpus_is_added(tmp_path, tmp_home):
    from tests.helpers.clips import make_clip

    (tmp_path / "v").mkdir()
    for name in ("a", "b"):
        make_clip(tmp_path / "v" / f"{name}.mkv", [i / 25 for i in range(50)])
    files.annotation(tmp_path / "n/Train_Set/a.txt", [0] * 90)
    files.annotation(tmp_path / "n/Train_Set/b.txt", [0] * 51)
    done = cer("corpus", "add", "w", tmp_path / "v", "--format", "affwild2", "--labels", tmp_path / "n")
    assert done.exit_code == 0
    assert "a: 90 annotated frames, 50 frames in the file; left out: it does not fit this video" in done.stderr
    assert "b: 51 annotated frames, 50 frames in the file; what lies beyond the end counts for nothing" in done.stderr


def test_ctrl_c_that_a_destructor_swallows_is_sent_again(capfd):
    """The first signal arrives inside `__del__`, where Python prints the exception and goes on."""

    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def work() -> None:
        with insisting(again_s=0.1):
            Swallows()
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:  # as SQLAlchemy does while it closes a connection
                logging.getLogger("some.library").exception("lost")
            while time.monotonic() - started < 20:
                time.sleep(0.01)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert time.monotonic() - started < 10
    assert "KeyboardInterrupt" not in capfd.readouterr().err
    before = signal.getsignal(signal.SIGINT)
    with insisting():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_the_command_is_imported_is_no_traceback(tmp_path):
    code = (
        "import os, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'cer_pipeline.cli.app': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from cer_pipeline.cli import main; main()"
    )
    done = python(code, "status", CER_HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (130, b"stopped before it began\n")
