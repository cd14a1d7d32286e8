"""The `cer` command as a person uses it: real clips, hostile files, kills, mistakes."""

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
class World:
    """A corpus of good, odd and broken files, and the home that it is processed in."""

    home: Path
    folder: Path

    def cer(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CER, *words], env=self.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False
        )

    def told(self, *words: str) -> Any:
        """What a process of its own prints for machines."""
        done = self.cer(*words, "--json")
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    def json(self, *words: str) -> Any:
        """The same by a call in this process, which has the libraries loaded: importing them costs more than a clip."""
        context = contextvars.copy_context()  # Dagster keeps what it loads in context variables
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
def world(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> World:
    """The corpus after one undisturbed run; tests below leave its tables as they are."""
    world = World(tmp_path_factory.mktemp("world") / "home", folder)
    added = world.json("corpus", "add", "clips", str(folder))
    assert added["videos"] == 10
    world_first_run[world.home] = world.told("run", "clips")
    return world


world_first_run: dict[Path, dict[str, Any]] = {}


@pytest.mark.slow
def test_a_full_run_decodes_every_source_once_and_asks_every_model_once_a_sample(world: World) -> None:
    first = world_first_run[world.home]
    frames = world.query("frames", "sum(len(frame_times)), count(*) filter (status = 'ok') from TABLE")[0]
    videos = world.query("videos", "count(*) from TABLE where status = 'ok'")[0][0]
    assert first["counters"]["decoded/frames"] == frames[0] > 0
    assert first["decodes"] == videos
    assert first["counters"]["calls/centerface"] == frames[1]
    subjects = world.query("faces", "count(*) from TABLE where is_subject")[0][0]
    assert first["counters"]["calls/mini_xception"] == subjects > 0
    assert not first["broken"]


@pytest.mark.slow
def test_every_table_answers_for_every_unit(world: World) -> None:
    status = world.json("status", "clips")["corpora"]["clips"]["tables"]
    segments = status["segments"]["rows"]
    expected = world.query(
        "videos",
        "sum(greatest(1, case when duration_s <= 4 then 1 else ceil((duration_s - 4) / 2) + 1 end)) from TABLE "
        "where duration_s is not null",
    )[0][0]
    unknown = world.query("videos", "count(*) from TABLE where duration_s is null")[0][0]
    assert segments == expected + unknown
    for name, table in status.items():
        assert table["states"] == {"current": 1}, name
        if name.startswith(("probabilities/", "features/")) or name in ("fused", "captions", "transcripts"):
            assert table["rows"] == segments, name
    timeline = dict(world.query("frames", "video_id, sum(len(frame_times))::int from TABLE group by 1"))
    rows = dict(world.query("frame_predictions", "video_id, count(*) from TABLE group by 1"))
    assert rows == {video: count for video, count in timeline.items() if count}


@pytest.mark.slow
def test_probabilities_sum_to_one_where_ok_and_are_null_elsewhere(world: World) -> None:
    for table, columns in (
        ("fused", BASIC_COLUMNS),
        ("compound", COMPOUND_COLUMNS),
        ("frame_predictions", BASIC_COLUMNS),
        ("frame_predictions", COMPOUND_COLUMNS),
    ):
        total = " + ".join(columns)
        bad = world.query(table, f"count(*) from TABLE where status = 'ok' and not abs({total} - 1) < 1e-6")
        filled = world.query(
            table, f"count(*) from TABLE where status <> 'ok' and coalesce({', '.join(columns)}) is not null"
        )
        ok = world.query(table, "count(*) from TABLE where status = 'ok'")
        assert (bad, filled) == ([(0,)], [(0,)])
        assert ok[0][0] > 0


@pytest.mark.slow
def test_damaged_and_odd_files_cost_only_their_own_rows(world: World) -> None:
    statuses = dict(world.query("videos", "video_id, status from TABLE"))
    assert statuses["zero"] == statuses["text"] == "undecodable"
    assert statuses["audio_only"] == "no_video"
    assert {"below/same.mp4", "below/same.mov"} <= set(statuses), "two files with one stem keep their endings"
    assert sum("two words" in video for video in statuses) == 1
    reasons = dict(world.query("videos", "video_id, reason from TABLE where status = 'undecodable'"))
    assert all(reasons.values())
    kept = dict(world.query("frames", "video_id, count(*) from TABLE where status = 'ok' group by 1"))
    assert kept["single_face"] == 13, "2.43 s hold the samples 0 to 12"
    spoken = world.query(
        "transcripts", "string_agg(text, ' ' order by segment) from TABLE where video_id = 'obama_speech'"
    )
    assert "two years of negotiations" in spoken[0][0]


@pytest.mark.slow
def test_the_smile_is_seen(world: World) -> None:
    start, end = world.query(
        "frame_predictions",
        "avg(p_happiness) filter (time_s < 0.4), avg(p_happiness) filter (time_s > 1.6) from TABLE "
        "where video_id = 'single_face'",
    )[0]
    assert end - start > 0.1


@pytest.mark.slow
def test_a_second_run_and_a_fusion_setting_decode_nothing_and_call_no_model(world: World) -> None:
    again = world.json("run", "clips")
    assert (again["runs"], again["decodes"], again["model_calls"]) == ([], 0, 0)
    before = world.digests()
    changed = world.json("run", "clips", "--set", "frames_out.time_resolution=window")
    assert (changed["decodes"], changed["model_calls"]) == (0, 0)
    assert [t["table"] for t in changed["tables"]] == ["frame_predictions"]
    world.json("run", "clips")
    assert world.digests() == before, "going back gives the same bytes"


@pytest.mark.slow
def test_one_changed_video_costs_one_video(world: World, media: Path) -> None:
    target = world.folder / "single_face.mp4"
    try:
        shutil.copyfile(media / "small.mp4", target)
        report = world.json("run", "clips")
        units = {t["table"]: t["computed"] for t in report["tables"]}
        assert units["frames"] == units["faces"] == units["audio"] == 1
        assert report["decodes"] == 1
        shutil.copyfile(media / "single_face.mp4", target)
        assert world.json("run", "clips")["decodes"] == 0, "the earlier content is still cached"
    finally:
        shutil.copyfile(media / "single_face.mp4", target)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_goes_on_and_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    """The first kill strikes a fresh run, the second one the run that goes on after it."""
    other = World(tmp_path / "home", world.folder)
    other.json("corpus", "add", "clips", str(world.folder))
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
    assert other.digests() == world.digests()


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_one_line_and_the_next_run_goes_on(folder: Path, tmp_path: Path) -> None:
    other = World(tmp_path / "home", folder)
    other.json("corpus", "add", "clips", str(folder))
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background shell ignores it
    command = [sys.executable, "-c", f"{hear}from cer_pipeline.cli import main; main()", "run", "clips"]
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
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        "stopped; nothing is lost, and this goes on where it stopped: cer run clips --select +frames"
    )
    assert not other.json("run", "clips", "--select", "+frames")["broken"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk")
def test_a_full_disk_ends_in_one_line_and_loses_nothing(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        world = World(disk / "home", folder)
        world.told("corpus", "add", "clips", str(folder))
        done = world.cer("run", "clips", "--select", "+frames")
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        assert "the disk is full" in done.stderr
        for path in (disk / "home" / "tables").rglob("*.parquet"):
            assert pq.ParquetFile(path).read().num_rows, "what was written is whole"
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        assert not world.told("run", "clips", "--select", "+frames")["broken"]
    finally:
        subprocess.run(["umount", disk], check=True)


# --- mistakes ----------------------------------------------------------------------------------------------------


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
def test_a_mistake_ends_in_one_line_that_helps(
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
    one_line_that_helps(capfd.readouterr().err, says)


def test_a_mistake_ends_the_process_with_code_2_and_nothing_else_on_its_streams(tmp_path: Path) -> None:
    """What a shell sees: no library that is loaded on the way adds a line."""
    done = World(tmp_path / "home", tmp_path).cer("run", "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    one_line_that_helps(done.stderr, "nobody")


def one_line_that_helps(errors: str, says: str) -> None:
    """Fail unless what was written to stderr is one line that says what is wrong and what to do."""
    assert "Traceback" not in errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert " - " in line, "the line names the next step"
