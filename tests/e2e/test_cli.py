"""The `cer` command on real clips, under hostile files, kills and mistakes of the user."""

from __future__ import annotations

import contextvars
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cer_pipeline.cli.app import app, main
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.zoo import Zoo

REPOSITORY = Path(__file__).resolve().parents[2]
CER = [sys.executable, "-c", "from cer_pipeline.cli import main; main()"]
HOSTILE_NAME = 'two words \'and "quotes"\n\N{GRINNING FACE} $(touch x)...mp4'


@dataclass(frozen=True)
class Corpus:
    """A folder of valid, unusual and damaged files, and the home folder in which it is processed."""

    home: Path
    folder: Path

    def cer(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CER, *words], env=self.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False
        )

    def json_of_process(self, *words: str) -> Any:
        """Run a command with --json in a process of its own and return its document."""
        done = self.cer(*words, "--json")
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    def json(self, *words: str) -> Any:
        """Run a command with --json in this process, whose libraries are imported, and return its document."""
        context = contextvars.copy_context()  # Dagster keeps state in context variables
        with patch.dict(os.environ, {"CER_HOME": str(self.home)}):
            done = context.run(CliRunner().invoke, app, [*words, "--json"])
        assert done.exit_code == 0, done.output[-2000:]
        return json.loads(done.stdout)

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"CER_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY)}

    def query(self, table: str, sql: str) -> list[tuple[Any, ...]]:
        glob = self.home / "tables" / table / "*" / "*" / "*.parquet"
        found = duckdb.sql(f"select {sql}".replace("TABLE", f"read_parquet('{glob}', hive_partitioning=true)"))
        assert found is not None
        return found.fetchall()

    def digests(self) -> dict[str, str]:
        root = self.home / "tables"
        return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*.parquet")}


def clips(folder: Path, media: Path) -> None:
    folder.mkdir()
    for name in ("single_face.mp4", "audio_only.mp4", "obama_speech.mp4"):
        shutil.copyfile(media / name, folder / name)
    shutil.copyfile(media / "park.mp4", folder / HOSTILE_NAME)
    shutil.copyfile(media / "park.mp4", os.fsencode(folder) + b"/bytes\xff\xfe.mp4")
    talking = (media / "talking_5.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(talking[: len(talking) * 6 // 10])
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    below = folder / "below"
    below.mkdir()
    shutil.copyfile(media / "no_face.mp4", below / "same.mp4")
    shutil.copyfile(media / "park.mp4", below / "same.mov")
    (below / "loop").symlink_to(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, media: Path, weights: Zoo) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "clips"
    clips(folder, media)
    return folder


@pytest.fixture(scope="module")
def unprocessed(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Corpus:
    """The registered corpus before its first run."""
    corpus = Corpus(tmp_path_factory.mktemp("processed") / "home", folder)
    added = corpus.json("corpus", "add", "clips", str(folder))
    assert added["videos"] == 10
    return corpus


@pytest.fixture(scope="module")
def first_run(unprocessed: Corpus) -> dict[str, Any]:
    """The document of the first run."""
    return unprocessed.json_of_process("run", "clips")


@pytest.fixture(scope="module")
def processed(unprocessed: Corpus, first_run: dict[str, Any]) -> Corpus:
    """The corpus after its first run."""
    return unprocessed


@pytest.mark.slow
def test_a_full_run_decodes_every_source_once_and_calls_every_model_once_a_sample(
    processed: Corpus, first_run: dict[str, Any]
) -> None:
    frames = processed.query("frames", "sum(len(frame_times)), count(*) filter (status = 'ok') from TABLE")[0]
    videos = processed.query("videos", "count(*) from TABLE where status = 'ok'")[0][0]
    assert first_run["counters"]["decoded/frames"] == frames[0] > 0
    assert first_run["decodes"] == videos
    assert first_run["counters"]["calls/centerface"] == frames[1]
    subjects = processed.query("faces", "count(*) from TABLE where is_subject")[0][0]
    assert first_run["counters"]["calls/mini_xception"] == subjects > 0
    assert not first_run["broken"]


@pytest.mark.slow
def test_every_table_has_rows_for_every_unit(processed: Corpus) -> None:
    status = processed.json("status", "clips")["corpora"]["clips"]["tables"]
    segments = status["segments"]["rows"]
    expected = processed.query(
        "videos",
        "sum(greatest(1, case when duration_s <= 4 then 1 else ceil((duration_s - 4) / 2) + 1 end)) from TABLE "
        "where duration_s is not null",
    )[0][0]
    unknown = processed.query("videos", "count(*) from TABLE where duration_s is null")[0][0]
    assert segments == expected + unknown
    for name, table in status.items():
        assert table["states"] == {"current": 1}, name
        if name.startswith(("probabilities/", "features/")) or name in ("fused", "captions", "transcripts"):
            assert table["rows"] == segments, name
    timeline = dict(processed.query("frames", "video_id, sum(len(frame_times))::int from TABLE group by 1"))
    rows = dict(processed.query("frame_predictions", "video_id, count(*) from TABLE group by 1"))
    assert rows == {video: count for video, count in timeline.items() if count}


@pytest.mark.slow
def test_probabilities_sum_to_one_where_ok_and_are_null_elsewhere(processed: Corpus) -> None:
    for table, columns in (
        ("fused", BASIC_COLUMNS),
        ("compound", COMPOUND_COLUMNS),
        ("frame_predictions", BASIC_COLUMNS),
        ("frame_predictions", COMPOUND_COLUMNS),
    ):
        total = " + ".join(columns)
        bad = processed.query(table, f"count(*) from TABLE where status = 'ok' and not abs({total} - 1) < 1e-6")
        filled = processed.query(
            table, f"count(*) from TABLE where status <> 'ok' and coalesce({', '.join(columns)}) is not null"
        )
        ok = processed.query(table, "count(*) from TABLE where status = 'ok'")
        assert (bad, filled) == ([(0,)], [(0,)])
        assert ok[0][0] > 0


@pytest.mark.slow
def test_damaged_files_affect_only_their_own_rows(processed: Corpus) -> None:
    statuses = dict(processed.query("videos", "video_id, status from TABLE"))
    assert statuses["zero"] == statuses["text"] == "undecodable"
    assert statuses["audio_only"] == "no_video"
    assert {"below/same.mp4", "below/same.mov"} <= set(statuses), "two files with one stem keep their endings"
    assert sum("two words" in video for video in statuses) == 1
    reasons = dict(processed.query("videos", "video_id, reason from TABLE where status = 'undecodable'"))
    assert all(reasons.values())
    kept = dict(processed.query("frames", "video_id, count(*) from TABLE where status = 'ok' group by 1"))
    assert kept["single_face"] == 13, "2.43 s hold the samples 0 to 12"
    spoken = processed.query(
        "transcripts", "string_agg(text, ' ' order by segment) from TABLE where video_id = 'obama_speech'"
    )
    assert "two years of negotiations" in spoken[0][0]


@pytest.mark.slow
def test_the_probability_of_happiness_rises_with_the_smile(processed: Corpus) -> None:
    start, end = processed.query(
        "frame_predictions",
        "avg(p_happiness) filter (time_s < 0.4), avg(p_happiness) filter (time_s > 1.6) from TABLE "
        "where video_id = 'single_face'",
    )[0]
    assert end - start > 0.1


@pytest.mark.slow
def test_a_second_run_and_a_fusion_setting_decode_nothing_and_call_no_model(processed: Corpus) -> None:
    again = processed.json("run", "clips")
    assert (again["runs"], again["decodes"], again["model_calls"]) == ([], 0, 0)
    before = processed.digests()
    changed = processed.json("run", "clips", "--set", "frames_out.time_resolution=window")
    assert (changed["decodes"], changed["model_calls"]) == (0, 0)
    assert [t["table"] for t in changed["tables"]] == ["frame_predictions"]
    processed.json("run", "clips")
    assert processed.digests() == before, "going back gives the same bytes"


@pytest.mark.slow
def test_one_changed_video_recomputes_one_video(processed: Corpus, media: Path) -> None:
    target = processed.folder / "single_face.mp4"
    try:
        shutil.copyfile(media / "small.mp4", target)
        report = processed.json("run", "clips")
        units = {t["table"]: t["computed"] for t in report["tables"]}
        assert units["frames"] == units["faces"] == units["audio"] == 1
        assert report["decodes"] == 1
        shutil.copyfile(media / "single_face.mp4", target)
        assert processed.json("run", "clips")["decodes"] == 0, "the earlier content is still cached"
    finally:
        shutil.copyfile(media / "single_face.mp4", target)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_continues_and_gives_the_same_bytes(processed: Corpus, tmp_path: Path) -> None:
    """The first kill hits a new run, the second one the run that continues it."""
    other = Corpus(tmp_path / "home", processed.folder)
    other.json("corpus", "add", "clips", str(processed.folder))
    for seed in (1, 2):
        process = subprocess.Popen(
            [*CER, "run", "clips"],
            env=other.env,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        lines = random.Random(seed).randint(2, 16)
        for _ in range(lines):
            process.stderr.readline()
        time.sleep(random.Random(seed).random())
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was not done before"
    other.json("run", "clips")
    assert other.digests() == processed.digests()


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_one_line_and_the_next_run_continues(folder: Path, tmp_path: Path) -> None:
    other = Corpus(tmp_path / "home", folder)
    other.json("corpus", "add", "clips", str(folder))
    # A shell that runs the tests in the background ignores SIGINT.
    default = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", f"{default}from cer_pipeline.cli import main; main()", "run", "clips"]
    process = subprocess.Popen(
        [*command, "--select", "+frames"],
        env=other.env,
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("1/"), first
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == ("stopped; nothing is lost; to continue: cer run clips --select +frames")
    assert not other.json("run", "clips", "--select", "+frames")["broken"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk")
def test_a_full_disk_ends_with_one_line_and_loses_no_rows(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        corpus = Corpus(disk / "home", folder)
        corpus.json_of_process("corpus", "add", "clips", str(folder))
        done = corpus.cer("run", "clips", "--select", "+frames")
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        assert "the disk is full" in done.stderr
        for path in (disk / "home" / "tables").rglob("*.parquet"):
            assert pq.ParquetFile(path).read().num_rows, "a written file is complete"
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        assert not corpus.json_of_process("run", "clips", "--select", "+frames")["broken"]
    finally:
        subprocess.run(["umount", disk], check=True)


# --- mistakes of the user ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "nobody"], "nobody"),
        (["status", "nobody"], "nobody"),
        (["report", "nobody"], "nobody"),
        (["corpus", "add", "x", "/no/such/folder"], "/no/such/folder"),
        (["corpus", "add", "x", "EMPTY"], "EMPTY"),
        (["corpus", "add", "Bad Name", "EMPTY"], "Bad Name"),
        (["corpus", "add", "x", "EMPTY", "--format", "nonsense"], "nonsense"),
        (["status", "--set", "fusion.nonsense=1"], "fusion.nonsense"),
        (["status", "--set", "nonsense"], "section.setting=value"),
        (["status", "--profile", "nonsense"], "choose one of: embedded"),
        (["models", "pull", "nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_line_with_the_next_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    empty = tmp_path / "EMPTY"
    empty.mkdir()
    monkeypatch.setenv("CER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["cer", *[str(empty) if w == "EMPTY" else w for w in words]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert_one_line_with_next_step(capfd.readouterr().err, says)


def test_a_mistake_ends_the_process_with_code_2_and_nothing_else_on_its_streams(tmp_path: Path) -> None:
    """No imported library adds a line to the output of the process."""
    done = Corpus(tmp_path / "home", tmp_path).cer("run", "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line_with_next_step(done.stderr, "nobody")


def assert_one_line_with_next_step(errors: str, says: str) -> None:
    """Fail unless what was written to stderr is one line that says what is wrong and what to do."""
    assert "Traceback" not in errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert " - " in line, "the line names the next step"
