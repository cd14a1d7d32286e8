"""The table store: what it keys, keeps, isolates and writes, over small stages of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.errors import CerError, ModelUnavailable
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import Profile
from cer_pipeline.stage import Inputs, StageContext, StageSpec
from cer_pipeline.store import materialise as engine
from cer_pipeline.store.cache import RowCache
from cer_pipeline.store.fingerprint import content_digests, digest
from cer_pipeline.store.home import Home
from cer_pipeline.store.materialise import Report, is_current, materialise, prepare
from cer_pipeline.store.parquet import InvalidRows, conform, read_table, read_unit
from cer_pipeline.tables import Column, TableSpec, probabilities

TEXTS = {"b": "two words", "a": "one", "c": "three words here"}
STATUS = (Column("status", pa.string(), "status", nullable=False), Column("reason", pa.string(), "reason"))
WORDS = TableSpec(
    name="words",
    row="word",
    unit="video_id",
    key=("video_id", "n"),
    columns=(
        Column("video_id", pa.string(), "video", nullable=False),
        Column("n", pa.int32(), "number", nullable=False),
        Column("word", pa.string(), "word"),
        *STATUS,
    ),
)


class Weights:
    """Weights of which some are on the machine."""

    def __init__(self, **digests: str) -> None:
        self.digests = digests

    def path(self, model: str) -> Path:
        raise ModelUnavailable(model)

    def digest(self, model: str) -> str | None:
        return self.digests.get(model)


class World:
    """What the stages below see from outside: texts, faults and a log of calls."""

    texts: dict[str, str]
    broken: set[str]
    calls: list[str]


WORLD = World()


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD.texts, WORLD.broken, WORLD.calls = dict(TEXTS), set(), []
    return WORLD


def plan(inputs: Inputs, profile: Profile) -> pa.Table:
    units = list(WORLD.texts)
    return pa.table({"unit": units, "video_id": units, "inputs": [digest(WORLD.texts[u]) for u in units]})


class Split:
    """Splits texts into words; rows come out in a wrong order on purpose."""

    def __init__(self, context: StageContext) -> None:
        self.context = context

    def __call__(self, units: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for unit in units.column("unit").to_pylist():
            if unit in WORLD.broken:
                raise RuntimeError(f"cannot split\n{unit}")
            WORLD.calls.append(unit)
            self.context.counters["calls/split"] += 1
            words = WORLD.texts[unit].split()
            rows += [
                {"video_id": unit, "n": n, "word": w, "status": "ok", "reason": None} for n, w in enumerate(words)
            ][::-1]
        return pa.Table.from_pylist(rows, schema=WORDS.schema)


def spec(**changes: Any) -> StageSpec:
    base = StageSpec(
        table=WORDS,
        description="words",
        group="test",
        inputs=(),
        plan=plan,
        stage=f"{__name__}:Split",
        code_version="1",
        config=("split",),
    )
    return replace(base, **changes)


PROFILE = Profile("test", {"split": {"mode": 1}, "execution": {"threads": 1}})


def shard_of(home: Home) -> ShardInputs:
    """The one shard of these tests."""
    return ShardInputs(home, "toy", "s000")


def make(
    home: Home, stage: StageSpec | None = None, profile: Profile = PROFILE, weights: Weights | None = None
) -> Report:
    return materialise(stage or spec(), home, shard_of(home), profile, weights or Weights(), run_chunks, "run-1")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(StageSpec, "load", lambda self: globals()[self.stage.partition(":")[2]])


def file_digest(home: Home) -> str:
    return hashlib.sha256(home.table("words", "toy", "s000").read_bytes()).hexdigest()


def rows(home: Home, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    return read_table(home.table("words", "toy", "s000"), columns).to_pylist()


def test_a_table_is_written_in_key_order_and_duckdb_reads_it_by_one_glob(home: Home) -> None:
    report = make(home)
    assert (report.computed, report.cached, report.footer.rows) == (3, 0, 6)
    glob = str(home.root / "tables" / "words" / "*" / "*" / "*.parquet")
    found = duckdb.sql(f"select video_id, n, word, corpus, shard from read_parquet('{glob}', hive_partitioning=true)")
    assert found is not None
    assert found.fetchall() == [
        ("a", 0, "one", "toy", "s000"),
        ("b", 0, "two", "toy", "s000"),
        ("b", 1, "words", "toy", "s000"),
        ("c", 0, "three", "toy", "s000"),
        ("c", 1, "words", "toy", "s000"),
        ("c", 2, "here", "toy", "s000"),
    ]


def test_an_unchanged_plan_computes_nothing_and_leaves_the_file_alone(home: Home) -> None:
    first = make(home)
    stamp = home.table("words", "toy", "s000").stat().st_mtime_ns
    second = make(home)
    assert second.unchanged and second.computed == 0 and second.cached == 3
    assert second.footer == first.footer
    assert home.table("words", "toy", "s000").stat().st_mtime_ns == stamp


def test_one_changed_input_computes_one_unit(home: Home, world: World) -> None:
    first = make(home)
    world.calls.clear()
    world.texts["b"] = "three new words"
    report = make(home)
    assert world.calls == ["b"] and report.computed == 1 and report.cached == 2
    assert report.footer.data_version != first.footer.data_version
    assert [r["word"] for r in rows(home) if r["video_id"] == "b"] == ["three", "new", "words"]


def test_a_unit_that_is_gone_leaves_the_table_and_costs_nothing(home: Home, world: World) -> None:
    make(home)
    world.calls.clear()
    del world.texts["b"]
    make(home)
    assert world.calls == [] and {r["video_id"] for r in rows(home)} == {"a", "c"}


def test_going_back_to_an_earlier_setting_costs_nothing_and_gives_the_same_bytes(home: Home, world: World) -> None:
    make(home)
    before = file_digest(home)
    other = Profile("test", {"split": {"mode": 2}, "execution": {"threads": 1}})
    assert make(home, profile=other).computed == 3
    world.calls.clear()
    assert make(home).computed == 0
    assert world.calls == [] and file_digest(home) == before


def test_threads_are_no_part_of_a_key_but_settings_code_and_weights_are(home: Home) -> None:
    def key(stage: StageSpec | None = None, profile: Profile = PROFILE, weights: Weights | None = None) -> str:
        return prepare(stage or spec(), shard_of(home), profile, weights or Weights()).keys["a"]

    assert key(profile=Profile("test", {"split": {"mode": 1}, "execution": {"threads": 9}})) == key()
    assert key(profile=Profile("test", {"split": {"mode": 2}, "execution": {"threads": 1}})) != key()
    assert key(spec(code_version="2")) != key()
    assert key(spec(optional_models=("net",))) != key(spec(optional_models=("net",)), weights=Weights(net="d1"))
    one, two = Weights(net="d1"), Weights(net="d2")
    assert key(spec(models=("net",)), weights=one) != key(spec(models=("net",)), weights=two)


def test_a_failing_unit_costs_only_its_own_rows_and_is_tried_again(home: Home, world: World) -> None:
    world.broken = {"b"}
    report = make(home)
    assert report.footer.by_status == {"failed": 1, "ok": 4}
    (failed,) = [r for r in rows(home) if r["video_id"] == "b"]
    assert failed["reason"] == "RuntimeError: cannot split b" and failed["word"] is None
    world.broken, world.calls = set(), []
    assert not is_current(prepare(spec(), shard_of(home), PROFILE, Weights()), home)
    assert make(home).footer.by_status == {"ok": 6}
    assert world.calls == ["b"]


def test_a_missing_model_gives_typed_rows_until_it_is_there(home: Home, world: World) -> None:
    stage = spec(models=("net",))
    report = make(home, stage)
    assert report.footer.by_status == {"model_unavailable": 3} and world.calls == [] and report.computed == 0
    assert {row["reason"] for row in rows(home)} == {"net: not on this machine; run `cer models pull net`"}
    assert make(home, stage, weights=Weights(net="d")).footer.by_status == {"ok": 6}


def test_rows_for_other_units_are_a_failure_not_a_silent_loss(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Split):
        def __call__(self, units: pa.Table) -> pa.Table:
            return super().__call__(units.filter(pa.array([u != "c" for u in units.column("unit").to_pylist()])))

    monkeypatch.setitem(globals(), "Split", Forgetful)
    report = make(home)
    assert report.footer.by_status == {"failed": 1, "ok": 3}
    assert "missing ['c']" in next(r["reason"] for r in rows(home) if r["video_id"] == "c")


@pytest.mark.parametrize("chunks_before_death", [0, 1, 2])
def test_a_run_that_dies_loses_one_chunk_and_the_next_gives_the_same_bytes(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, chunks_before_death: int
) -> None:
    undisturbed = Home(tmp_path / "undisturbed")
    make(undisturbed, spec(chunk_units=1))
    disturbed = Home(tmp_path / "disturbed")
    world.calls.clear()
    kept = 0
    append = RowCache.append

    def dying(self: RowCache, table: pa.Table, keys: Sequence[str], run_id: str) -> None:
        nonlocal kept
        if kept == chunks_before_death:
            raise KeyboardInterrupt
        append(self, table, keys, run_id)
        kept += 1

    with monkeypatch.context() as patch:
        patch.setattr(RowCache, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            make(disturbed, spec(chunk_units=1))
    assert not disturbed.table("words", "toy", "s000").exists()
    assert len(world.calls) == chunks_before_death + 1
    report = make(disturbed, spec(chunk_units=3))
    assert report.cached == chunks_before_death
    assert file_digest(disturbed) == file_digest(undisturbed)


def test_a_unit_may_have_no_row_where_the_stage_says_so(home: Home, world: World) -> None:
    world.texts["b"] = ""
    assert make(home).footer.by_status == {"failed": 1, "ok": 4}
    assert make(home, spec(may_be_empty=True)).footer.by_status == {"ok": 4}
    world.calls.clear()
    home.table("words", "toy", "s000").unlink()
    report = make(home, spec(may_be_empty=True))
    assert (report.cached, report.computed, world.calls) == (3, 0, [])


def test_a_damaged_chunk_counts_as_absent(home: Home, world: World) -> None:
    make(home)
    before = file_digest(home)
    chunk = next((home.root / "cache").rglob("*.parquet"))
    chunk.write_bytes(chunk.read_bytes()[:50])
    home.table("words", "toy", "s000").unlink()
    world.calls.clear()
    assert make(home).computed == 3 and sorted(world.calls) == ["a", "b", "c"]
    assert file_digest(home) == before


def test_a_full_disk_leaves_the_old_table_and_one_line(
    home: Home, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(home)
    before = file_digest(home)
    world.texts["b"] = "changed"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(CerError, match=r"the disk is full.*free some space"):
        make(home)
    assert file_digest(home) == before
    assert not [p for p in home.root.rglob(".*") if p.is_file()]


def test_the_origin_of_a_value_outlives_later_runs(home: Home) -> None:
    make(home)
    stage, profile = spec(), Profile("test", {"split": {"mode": 2}, "execution": {}})
    materialise(stage, home, shard_of(home), profile, Weights(), run_chunks, "run-2")
    runs = {c.run_id for folder in (home.root / "cache").rglob("shard=s000") for c in RowCache(folder).chunks()}
    assert runs == {"run-1", "run-2"}


def test_one_unit_is_read_without_the_others(home: Home) -> None:
    make(home)
    batches = list(read_unit(home.table("words", "toy", "s000"), "video_id", "b", ["n", "word"]))
    assert pa.Table.from_batches(batches).to_pylist() == [{"n": 0, "word": "two"}, {"n": 1, "word": "words"}]
    assert list(read_unit(home.table("words", "toy", "s000"), "video_id", "nobody")) == []


# --- what a table may hold ---------------------------------------------------------------------------------------


def distribution(values: Sequence[float | None], status: str = "ok") -> pa.Table:
    table = probabilities("x")
    row: dict[str, Any] = {"segment_id": "v/0000", "video_id": "v", "segment": 0, "model": "m", "status": status}
    row |= dict(zip(BASIC_COLUMNS, values, strict=True)) | {"reason": None}
    return pa.Table.from_pylist([row], schema=table.schema)


EVEN = [0.125] * 8


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (distribution([0.2] * 8), "do not sum to 1"),
        (distribution([1.5, -0.5, *[0.0] * 6]), "leaves the range"),
        (distribution([None, *[1 / 7] * 7]), "must have a value"),
        (distribution(EVEN, "no_face"), "only there"),
        (distribution([None] * 8, "asleep"), "unknown status: asleep"),
        (pa.concat_tables([distribution(EVEN)] * 2), "same video_id, segment"),
        (distribution(EVEN).drop_columns(["p_fear"]), "columns are missing: p_fear"),
        (distribution([float("nan"), *[1 / 7] * 7]), "leaves the range"),
    ],
)
def test_rows_that_break_their_contract_are_refused(table: pa.Table, complaint: str) -> None:
    with pytest.raises(InvalidRows, match=complaint):
        conform(probabilities("x"), table)


def test_good_rows_pass() -> None:
    assert conform(probabilities("x"), distribution(EVEN)).num_rows == 1
    assert conform(probabilities("x"), distribution([None] * 8, "no_face")).num_rows == 1


# --- digests of content ------------------------------------------------------------------------------------------

NESTED = pa.struct([("s", pa.string()), ("f", pa.list_(pa.float64()))])
NESTED_VALUES = st.fixed_dictionaries({"s": st.text(max_size=2), "f": st.lists(st.floats(0, 1), max_size=2)})
VALUES = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-5, 5),
            "t": st.none() | st.text(max_size=3),
            "b": st.none() | st.binary(max_size=3),
            "o": st.none() | st.booleans(),
            "l": st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
            "x": st.none() | st.lists(st.floats(-1, 1), min_size=2, max_size=2),
            "n": st.lists(NESTED_VALUES, max_size=2),
        }
    ),
    min_size=1,
    max_size=3,
)
SCHEMA = pa.schema(
    [
        ("i", pa.int32()),
        ("t", pa.string()),
        ("b", pa.binary()),
        ("o", pa.bool_()),
        ("l", pa.list_(pa.int64())),
        ("x", pa.list_(pa.float32(), 2)),
        ("n", pa.list_(NESTED)),
    ]
)


@given(VALUES, VALUES)
def test_content_digests_depend_on_values_and_not_on_memory_layout(
    values: list[dict[str, Any]], others: list[dict[str, Any]]
) -> None:
    alone = pa.Table.from_pylist(values, schema=SCHEMA)
    within = pa.concat_tables([pa.Table.from_pylist(others, schema=SCHEMA), alone])
    expected = content_digests(alone, range(alone.num_rows))
    assert content_digests(within, range(within.num_rows))[len(others) :] == expected
    assert content_digests(within.combine_chunks(), range(within.num_rows))[len(others) :] == expected
    stored = [pa.Table.from_pylist([row], schema=SCHEMA).to_pylist()[0] for row in values + others]
    digests = content_digests(within, range(within.num_rows))
    both = [*digests[len(others) :], *digests[: len(others)]]
    for i, one in enumerate(stored):
        for j, two in enumerate(stored):
            assert (both[i] == both[j]) == (repr(one) == repr(two))


def test_parts_of_a_digest_do_not_run_together() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def test_a_plan_that_names_a_unit_twice_is_a_defect(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"unit": ["a", "a"], "video_id": ["a", "a"], "inputs": ["1", "2"]})
    twice = spec(plan=lambda inputs, profile: table)
    with pytest.raises(ValueError, match="names a unit twice"):
        engine.prepare(twice, shard_of(home), PROFILE, Weights())
