"""The command line under Ctrl-C, in other locales, with absent folders and kept leaks."""

from __future__ import annotations

import io
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

from assets.step_errors import step_errors
from cer_pipeline.cli import launch
from cer_pipeline.cli.app import Interrupted, app, main
from cer_pipeline.cli.output import PLAIN, plain_output
from cer_pipeline.cli.stopping import repeat_interrupt
from cer_pipeline.corpora import registry
from cer_pipeline.errors import CerError
from cer_pipeline.store.home import Home
from tests.helpers import corpus_files as files

REPOSITORY = Path(__file__).resolve().parents[3]


def cer(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a process of its own, with the words as its command line."""
    command = [sys.executable, "-c", f"{DEFAULT_SIGINT}\n{code}", *words]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(command, env=env, capture_output=True, timeout=120, check=False)


DEFAULT_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""A shell that starts the tests in the background has them, and the processes that they start, ignore Ctrl-C."""


@pytest.fixture
def default_sigint():
    """Let Ctrl-C raise KeyboardInterrupt while a test runs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


MAIN = "from cer_pipeline.cli import main; main()"


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "words", "command"),
    [
        ("cer_pipeline.corpora.registry.register", ["corpus", "add", "two words", "/x"], "corpus add 'two words' /x"),
        ("cer_pipeline.cli.run.run_corpus", ["run", "c"], "run c"),
        ("cer_pipeline.cli.evaluate.evaluated", ["evaluate", "c"], "evaluate c"),
        ("cer_pipeline.cli.train.trained", ["train", "mhpf", "--corpora", "c"], "train mhpf --corpora c"),
        ("cer_pipeline.cli.models.pull_with_progress", ["models", "pull"], "models pull"),
    ],
)
def test_ctrl_c_is_one_line_with_the_command_that_continues(
    tmp_home, monkeypatch, capfd, default_sigint, function, words, command
):
    monkeypatch.setattr(function, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr("cer_pipeline.training.trainer.training_corpora", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["cer", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"stopped; nothing is lost; to continue: cer {command}"


def test_ctrl_c_ends_the_process_with_code_130_and_no_traceback(tmp_path):
    stop = "import cer_pipeline.cli.run as m, signal; m.run_corpus = lambda *a, **k: signal.raise_signal(signal.SIGINT)"
    done = python(f"{stop}; {MAIN}", "run", "c", CER_HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (130, b"stopped; nothing is lost; to continue: cer run c\n")


def test_ctrl_c_raises_an_exception_that_typer_does_not_handle(monkeypatch, tmp_home):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "names", stop)
    assert isinstance(cer("corpus", "list").exception, Interrupted)


def job(body):
    @dg.op
    def work():
        body()

    @dg.job
    def one():
        work()

    return one


def test_a_run_that_ctrl_c_ends_is_interrupted_and_not_failed(default_sigint):
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(KeyboardInterrupt):
        launch.execute(instance, job(lambda: os.kill(os.getpid(), signal.SIGINT)))


def test_a_failed_run_names_its_steps_with_the_line_of_the_mistake():
    def mistake() -> None:
        with step_errors():
            raise CerError("no such corpus", "c", "run `cer corpus list`")

    def defect() -> None:
        raise ValueError("two\nlines")

    with dg.DagsterInstance.ephemeral() as instance:
        (failure,) = launch.execute(instance, job(mistake)).failures
        assert (failure.step, failure.expected) == ("work", True)
        assert failure.error().line() == "no such corpus: c - run `cer corpus list`"
        (failure,) = launch.execute(instance, job(defect)).failures
        assert failure.error().line() == "ValueError: two lines - `cer ui` shows the run"
        with pytest.raises(CerError, match="two lines"):
            launch.execute(instance, job(defect)).require_success()
        done = launch.execute(instance, job(lambda: None))
        done.require_success()
        assert (done.failures, done.interrupted) == ((), False)


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


PRINT = (
    "import typer, cer_pipeline.cli.app as c; "
    f"c.app.command('print')(lambda: print('Zo\\u00eb \\u25a0 \\uac00')); {MAIN}"
)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"Zo? # ?\n"), ("iso-8859-1", b"Zo\xeb # ?\n"), ("utf-8", "Zoë ■ 가\n".encode())]
)
def test_output_replaces_characters_that_its_encoding_lacks(monkeypatch, encoding, shown):
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        plain_output()
        print("Zo\u00eb \u25a0 \uac00")
        stream.flush()
        assert buffer.getvalue() == shown


def test_the_command_replaces_characters_of_its_output(tmp_path):
    done = python(PRINT, "print", CER_HOME=str(tmp_path), PYTHONIOENCODING="ascii")
    assert (done.stdout, done.returncode) == (b"Zo? # ?\n", 0), done.stderr


def test_a_replacement_is_one_ascii_character_so_that_columns_stay_aligned():
    assert all(len(sign) == len(plain) == 1 and plain.isascii() for sign, plain in PLAIN.items())


@pytest.mark.slow
def test_a_latin_1_locale_changes_the_output_encoding_and_no_id(tmp_path, latin1):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "Zoë.mp4").write_bytes(b"x")
    (tmp_path / "v" / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"y")
    home = tmp_path / "Zuhause ä"
    first = python(MAIN, "corpus", "add", "c", str(tmp_path / "v"), "--json", CER_HOME=str(home))
    assert json.loads(first.stdout)["added"] == ["Zoë", "bad\\xff"]
    again = python(MAIN, "corpus", "add", "c", str(tmp_path / "v"), "--json", CER_HOME=str(home), **latin1)
    changes = json.loads(again.stdout)
    assert (changes["added"], changes["removed"], changes["unchanged"]) == ([], [], 2)
    assert [f.video_id for f in registry.load(home, "c").files] == ["Zoë", "bad\\xff"]
    printed = python(PRINT, "print", CER_HOME=str(home), **latin1)
    assert printed.stdout == b"Zo\xeb # ?\n"


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


def test_an_error_about_a_hostile_name_is_one_line_without_control_characters(tmp_path, tmp_home, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["cer", "corpus", "add", "c", str(tmp_path / "a\n\x1b[31mb")])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capfd.readouterr().err
    assert (ended.value.code, error.count("\n")) == (2, 1)
    assert "\x1b" not in error


@pytest.mark.parametrize(("name", "words"), [("q?x", ["corpus", "list"]), ("pct%20x", ["run", "c"])])
def test_a_home_that_cannot_be_used_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, name, words):
    monkeypatch.setenv("CER_HOME", str(tmp_path / name))
    error = cer(*words).exception
    assert isinstance(error, CerError)
    assert error.line().startswith("the path of the home folder holds ? or a percent sign")
    assert list(tmp_path.iterdir()) == []


# --- absent folders, kept leaks ----------------------------------------------------------------------------------


@pytest.fixture
def videos(tmp_path: Path, tmp_home: Path) -> Path:
    files.put(tmp_path / "videos" / "a.mp4", b"no video")
    cer("corpus", "add", "c", tmp_path / "videos")
    return tmp_path / "videos"


@pytest.mark.slow
@pytest.mark.parametrize("state", ["absent", "empty"])
def test_a_corpus_whose_folder_is_absent_or_empty_keeps_its_videos_and_tables(videos, tmp_home, state):
    made = cer("run", "c", "--select", "videos")
    assert made.exit_code == 0, made.output
    table = Home(tmp_home).table("videos", "c", "s000")
    before = table.read_bytes()
    videos.rename(videos.with_name("elsewhere"))
    if state == "empty":
        videos.mkdir()
    status = cer("status", "c")
    assert status.exit_code == 0
    assert f"the folder of c {'is empty' if state == 'empty' else 'is not there'}" in status.stderr
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
def test_every_run_warns_of_leaks_that_are_kept(tmp_path, tmp_home):
    root = files.afew_captions(tmp_path / "texts", dev={"000002000___Fear_0000.avi": "Fear"})
    added = cer("corpus", "add", "c", root, "--format", "captions", "--leaks", "keep")
    assert "1 leaks between splits are kept" in added.stderr
    for _ in range(2):
        assert (
            "c: 1 leaks between splits are kept, first 000002000@train" in cer("run", "c", "--select", "videos").stderr
        )
    cer("corpus", "add", "c", root, "--format", "captions", "--leaks", "exclude")
    assert "leaks" not in cer("run", "c", "--select", "videos").stderr


def test_adding_a_corpus_names_annotations_that_do_not_fit_their_videos(tmp_path, tmp_home):
    from tests.helpers.clips import make_clip

    (tmp_path / "v").mkdir()
    for name in ("a", "b"):
        make_clip(tmp_path / "v" / f"{name}.mkv", [i / 25 for i in range(50)])
    files.annotation(tmp_path / "n/Train_Set/a.txt", [0] * 90)
    files.annotation(tmp_path / "n/Train_Set/b.txt", [0] * 51)
    done = cer("corpus", "add", "w", tmp_path / "v", "--format", "affwild2", "--labels", tmp_path / "n")
    assert done.exit_code == 0
    assert "a: 90 annotated frames, 50 frames in the file; left out: it does not fit this video" in done.stderr
    assert "b: 51 annotated frames, 50 frames in the file; annotations beyond the end are ignored" in done.stderr


def test_ctrl_c_that_a_destructor_drops_is_sent_again(capfd, default_sigint):
    """The first signal arrives inside `__del__`, where Python prints the exception and continues."""

    class DropsInterrupt:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def work() -> None:
        with repeat_interrupt(interval_s=0.1):
            DropsInterrupt()
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
    with repeat_interrupt():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_during_the_imports_of_the_command_shows_no_traceback(tmp_path):
    code = (
        "import os, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'cer_pipeline.cli.app': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from cer_pipeline.cli import main; main()"
    )
    done = python(code, "status", CER_HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (130, b"stopped before the command began\n")
