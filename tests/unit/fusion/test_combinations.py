"""Named combinations of branches: their columns are those of a fusion of these branches alone, and change no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cer_pipeline import tables
from cer_pipeline.arrow import pc
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.evaluate import evaluate
from cer_pipeline.fusion.mhpf import MHPF, STATIC, save_mhpf
from cer_pipeline.fusion.specs import HEAD, combinations_of, fusion_stages
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.pipeline import changed_tables, stages
from cer_pipeline.predictions.specs import compound_stages
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageSpec, placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import stage_fingerprint
from cer_pipeline.store.parquet import conform
from tests.helpers.evaluated_home import BRANCHES, NAME, ToyCorpus, write, write_rows
from tests.helpers.memory_inputs import MemoryInputs, NoWeights, branch, context, shard

NAMES = ("face_static", "scene_minilm", "text_minilm")
DURATIONS = {"a": 21.3, "b": 2.4, "c": 9.0}
NAMED = 'combinations.named={face_text=["text_minilm", "face_static"], scene=["scene_minilm"]}'
SUBSETS = {"face_text": ("face_static", "text_minilm"), "scene": ("scene_minilm",)}
ADJUSTED = ["compound.prior_correction=0.7", "compound.smoothing=0.4"]


class OneHead(NoWeights):
    """`stage.Weights` with a trained fusion."""

    def __init__(self, path: Path) -> None:
        self.file = path

    def path(self, model: str) -> Path:
        assert model == HEAD
        return self.file


def specs(branches: tuple[str, ...], profile: Profile) -> tuple[StageSpec, ...]:
    """The stages `fused`, `compound` and `frame_predictions` of a profile."""
    enabled = [branch(name, sampled=name == NAMES[0]) for name in branches]
    combinations = combinations_of(profile, branches)
    return *fusion_stages(enabled, profile["fusion"]["method"], combinations), *compound_stages(enabled, combinations)


def run(branches: tuple[str, ...], profile: Profile, head: Path | None = None) -> dict[str, pa.Table]:
    """Compute the three tables of a shard, and check the rows as the store checks them."""
    inputs: MemoryInputs = shard(DURATIONS, NAMES, fps=5.0, missing=0.4, seed=3)
    for spec in specs(branches, profile):
        made = context(inputs, profile)
        made.weights = NoWeights() if head is None or spec.name != "fused" else OneHead(head)
        inputs.tables[spec.name] = conform(spec.table, spec.load()(made)(spec.plan(inputs, profile)))
    return inputs.tables


def unprefixed(table: pa.Table, combination: str) -> list[dict]:
    """Rows with the columns of a combination only, without its prefix."""
    prefix = f"{combination}__"
    return [{k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)} for row in table.to_pylist()]


@pytest.mark.parametrize("adjustment", [[], ADJUSTED])
def test_the_columns_of_a_combination_are_those_of_a_run_with_its_branches_alone(adjustment):
    tables_ = run(NAMES, load_profile(overrides=[NAMED, *adjustment]))
    differs = 0
    for name, own in SUBSETS.items():
        alone = run(own, load_profile(overrides=adjustment))
        for got, expected in zip(unprefixed(tables_["fused"], name), alone["fused"].to_pylist(), strict=True):
            assert got == {k: v for k, v in expected.items() if k not in ("segment_id", "video_id", "segment")}
        ppa_rows = tables_["compound"].filter(pc.equal(tables_["compound"].column("method"), "ppa"))
        compound = unprefixed(ppa_rows, name)
        ppa = [row for row in alone["compound"].to_pylist() if row["method"] == "ppa"]
        for got, expected in zip(compound, ppa, strict=True):
            assert got == {k: expected[k] for k in got}
        statuses = zip(
            tables_["fused"].column("status").to_pylist(), alone["fused"].column("status").to_pylist(), strict=True
        )
        differs += sum(whole != some for whole, some in statuses)
    assert differs > 3, "some segment must have a value of all branches and none of a combination"


def test_a_combination_changes_no_other_column_and_no_row_of_the_frames():
    plain, named = run(NAMES, load_profile()), run(NAMES, load_profile(overrides=[NAMED]))
    for name in ("fused", "compound", "frame_predictions"):
        assert named[name].select(plain[name].column_names).equals(plain[name])
    assert named["frame_predictions"].column_names == plain["frame_predictions"].column_names


def test_pfsa_does_not_apply_to_a_combination():
    rows = run(NAMES, load_profile(overrides=[NAMED]))["compound"].to_pylist()
    pfsa = [row for row in rows if row["method"] == "pfsa"]
    assert {row["face_text__status"] for row in pfsa} == {"not_applicable"}
    assert {row[f"scene__{c}"] for row in pfsa for c in COMPOUND_COLUMNS} == {None}


def test_a_trained_fusion_weighs_the_branches_of_a_combination_and_says_where_it_knows_none(tmp_path):
    rng, none = np.random.default_rng(0), np.empty(0)
    fusion = MHPF(
        STATIC, NAMES[::2], BASIC, (True,) * 8, rng.normal(size=(3, 2, 8)), rng.normal(size=3), none, none, none
    )
    save_mhpf(tmp_path / "mhpf.safetensors", fusion, {})
    overrides = ["fusion.method=static", NAMED]
    rows = run(NAMES, load_profile(overrides=overrides), tmp_path / "mhpf.safetensors")["fused"].to_pylist()
    alone = run(SUBSETS["face_text"], load_profile(overrides=overrides[:1]), tmp_path / "mhpf.safetensors")["fused"]
    for row, expected in zip(rows, alone.to_pylist(), strict=True):
        assert [row[f"face_text__{c}"] for c in BASIC_COLUMNS] == [expected[c] for c in BASIC_COLUMNS]
        if row["scene__present"]:
            assert row["scene__status"] == "model_unavailable"
            assert row["scene__reason"] == "the fusion was not trained with scene_minilm: scene_minilm ok"
    assert {row["scene__status"] for row in rows} == {"model_unavailable", "no_face"}


def test_rows_of_a_unit_that_failed_have_the_status_in_every_combination():
    profile = load_profile(overrides=[NAMED])
    unit = {"unit": "a/0000", "segment_id": "a/0000", "video_id": "a", "segment": 0}
    for spec in specs(NAMES, profile)[:2]:
        rows = placeholder_rows(spec, unit, Status.FAILED, "out of memory")
        conform(spec.table, pa.Table.from_pylist(rows, schema=spec.table.schema))
        for row in rows:
            assert [row[f"{p}status"] for p in ("", "face_text__", "scene__")] == ["failed"] * 3
            assert row["scene__reason"] == "out of memory"


def test_without_a_named_combination_keys_stay_and_with_one_those_of_fused_and_compound_change():
    plain, named = load_profile(), load_profile(overrides=[NAMED])
    assert "combinations" not in {section for spec in stages(plain) for section in spec.config}
    assert changed_tables(stages(plain), stages(named)) == ["compound", "fused"]
    other = load_profile(overrides=['combinations.named={face_text=["face_static"]}'])
    keys = []
    for profile in (plain, named, other):
        spec = next(s for s in stages(profile) if s.name == "fused")
        keys.append(stage_fingerprint(spec, profile, NoWeights()))
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ('{x=["voice"]}', r"a branch that is not enabled: voice in combinations\.named\.x"),
        ('{x=["face_statik"]}', "did you mean face_static"),
        ('{text_minilm=["face_static"]}', "the name of another system: text_minilm"),
        ('{fused=["face_static"]}', "the name of another system: fused"),
        ('{x=["face_static", "face_static"]}', "x must name at least one branch, and none twice"),
        ("{x=[]}", "x must name at least one branch"),
        ('{w_x=["face_static"]}', "must not start with w_"),
        ('{a__b=["face_static"]}', "small letters, digits and single underscores"),
    ],
)
def test_a_combination_that_cannot_be_fused_is_refused_in_one_line(named, message):
    with pytest.raises(CerError, match=message) as error:
        stages(load_profile(overrides=[f"combinations.named={named}"]))
    assert "\n" not in error.value.line()


def test_an_evaluation_scores_a_combination_of_one_branch_like_that_branch(tmp_path):
    corpus = ToyCorpus(videos=6)
    home = write(tmp_path, corpus, shards=1)
    (branch_name, *_) = BRANCHES
    combination = {"alone": (branch_name,)}
    values = {r["segment_id"]: r for r in corpus.rows[f"probabilities/{branch_name}"]}
    fused = [
        row
        | {f"alone__{c}": values[row["segment_id"]][c] for c in BASIC_COLUMNS}
        | {"alone__present": [], "alone__status": values[row["segment_id"]].get("status", "ok")}
        for row in corpus.rows["fused"]
    ]
    write_rows(home, tables.fused(BRANCHES, combination), fused, NAME, "s000")
    pairs = {r["segment_id"]: r for r in corpus.rows["compound"] if r["method"] == "ppa"}
    compound = [
        row
        | {f"alone__{c}": pairs[row["segment_id"]][c] for c in COMPOUND_COLUMNS}
        | {"alone__status": pairs[row["segment_id"]].get("status", "ok")}
        for row in corpus.rows["compound"]
    ]
    write_rows(home, tables.compounds(combination), compound, NAME, "s000")
    rows = evaluate(home, NAME, 10).rows
    scores = {(r.split, r.protocol, r.system, r.metric): (r.value, r.n) for r in rows}
    same = [key for key in scores if key[2] == "alone"]
    assert {key[1] for key in same} >= {"segment", "segment_all", "frame"}
    for split, protocol, _, metric in same:
        assert scores[split, protocol, "alone", metric] == scores[split, protocol, branch_name, metric]
    assert scores["dev", "segment", "alone/ppa", "macro_f1"] == scores["dev", "segment", "ppa", "macro_f1"]
    assert ("dev", "segment_paired", "fused - alone", "macro_f1") in scores
