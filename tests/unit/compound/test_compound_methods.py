"""Both methods of `compound`, and the two adjustments, each against an independent naive version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.compound.adjust import Adjustment, adjusted, corrected, neighbours, prior, smoothed
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.lineage.contributions import contributions
from cer_pipeline.predictions.predict_frames import VideoReader
from cer_pipeline.predictions.specs import SCENE_HEAD, compound_stages, methods_of
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageContext, placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.zoo.head_file import save_head
from tests.helpers.memory_inputs import MemoryInputs, NoWeights, shard
from tests.unit.compound.test_compound import DURATIONS, NAMES, naive_ppa, run, specs

FIRST, *_ = compound_stages([])


def rows_of(inputs: MemoryInputs, profile, weights=None, size: int | None = None) -> list[dict]:
    """Rows of `compound`, computed in chunks of some size by one instance of the stage."""
    spec = next(s for s in specs() if s.name == "compound")
    plan = spec.plan(inputs, profile)
    stage = spec.load()(StageContext(profile, weights or NoWeights(), inputs))
    size = size or plan.num_rows
    return [row for i in range(0, plan.num_rows, size) for row in stage(plan.slice(i, size)).to_pylist()]


def prepared(seed: int = 3) -> MemoryInputs:
    inputs = shard(DURATIONS, NAMES, missing=0.4, seed=seed)
    run(inputs, load_profile())
    return inputs


class SceneHeadOnly:
    """Weights of a machine that has a scene head with prototypes."""

    def __init__(self, folder: Path, prototypes: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.prototypes = rng.normal(size=(7, 384))
        self.prototypes /= np.linalg.norm(self.prototypes, axis=1, keepdims=True)
        tensors = {
            "grams": np.frombuffer(b"smile", np.uint8),
            "idf": np.ones(1),
            "bag": np.zeros((1, 7)),
            "mean": np.zeros(384),
            "spread": np.ones(384),
            "state": np.zeros((384, 7)),
        }
        extra = {"prototypes": self.prototypes} if prototypes else {}
        self.file = folder / "scene_minilm.safetensors"
        save_head(self.file, tensors | extra, {"unknown": 1.0, "scale": 1.0, "repeat": 1.0, "pfsa_temperature": 0.1})

    def path(self, model: str) -> Path:
        assert model == SCENE_HEAD
        return self.file

    def digest(self, model: str) -> str | None:
        return "d" if model == SCENE_HEAD else None


def with_model(inputs: MemoryInputs, model: str, view: str = "qwen_1") -> MemoryInputs:
    """The same shard with a name in the column `model` of the scene branch, and its captions of one view."""
    captions = inputs.tables["captions"]
    viewed = [r | {"view": view} for r in captions.to_pylist()]
    inputs.tables["captions"] = captions.from_pylist(viewed, schema=captions.schema)
    table = inputs.tables["probabilities/scene_minilm"]
    with_name = [r | {"model": model if r["status"] == "ok" else None} for r in table.to_pylist()]
    inputs.tables["probabilities/scene_minilm"] = table.from_pylist(with_name, schema=table.schema)
    return inputs


def test_pfsa_has_rows_beside_ppa_where_the_trained_head_predicted_the_segment(tmp_path):
    weights = SceneHeadOnly(tmp_path)
    inputs = with_model(prepared(), SCENE_HEAD)
    found = rows_of(inputs, load_profile(), weights)
    features = {r["segment_id"]: r for r in inputs.tables["features/scene_minilm"].to_pylist()}
    fused = {r["segment_id"]: r for r in inputs.tables["fused"].to_pylist()}
    assert [r["method"] for r in found] == ["ppa", "pfsa"] * len(fused)
    for row in found:
        values = [row[c] for c in COMPOUND_COLUMNS]
        source = fused if row["method"] == "ppa" else features
        assert (row["status"], row["reason"]) == tuple(source[row["segment_id"]][k] for k in ("status", "reason"))
        if row["status"] != "ok":
            assert values == [None] * 7
        elif row["method"] == "ppa":
            np.testing.assert_allclose(values, naive_ppa([fused[row["segment_id"]][c] for c in BASIC_COLUMNS]))
        else:
            f = np.array(features[row["segment_id"]]["features"])
            powers = [np.exp(f @ p / (np.sqrt(f @ f) * np.sqrt(p @ p)) / 0.1) for p in weights.prototypes]
            np.testing.assert_allclose(values, np.array(powers) / sum(powers), atol=1e-9)
    assert {r["status"] for r in found} == {"ok", "no_face"}


@pytest.mark.parametrize("why", ["no head", "no prototypes", "older features"])
def test_pfsa_of_an_imported_caption_names_what_is_missing_and_the_command(why, tmp_path):
    weights = None if why == "no head" else SceneHeadOnly(tmp_path, prototypes=why != "no prototypes")
    inputs = with_model(prepared(), "prompts" if why == "older features" else SCENE_HEAD)
    found = [r for r in rows_of(inputs, load_profile(), weights) if r["method"] == "pfsa"]
    features = inputs.tables["features/scene_minilm"].to_pylist()
    for row, source in zip(found, features, strict=True):
        if source["status"] == "ok":
            assert row["status"] == Status.MODEL_UNAVAILABLE and "run `cer " in row["reason"]
        else:
            assert (row["status"], row["reason"]) == (source["status"], source["reason"])
        assert [row[c] for c in ("p_sadly_angry", "expressed", "confidence", "entropy")] == [None] * 4
    assert {r["status"] for r in found} == {"model_unavailable", "no_face"}


@pytest.mark.parametrize("head", [True, False])
def test_pfsa_does_not_apply_to_a_text_of_the_rule_based_captioner_with_or_without_the_head(head, tmp_path):
    """The status is not `model_unavailable`, because no model is missing."""
    inputs = with_model(prepared(), "head_scene_signs", view="describer")
    found = rows_of(inputs, load_profile(), SceneHeadOnly(tmp_path) if head else None)
    features = inputs.tables["features/scene_minilm"].to_pylist()
    for row, source in zip([r for r in found if r["method"] == "pfsa"], features, strict=True):
        expected = "not_applicable" if source["status"] == "ok" else source["status"]
        assert row["status"] == expected
        assert row["reason"] and row["p_sadly_angry"] is None
        assert ("imported captions only" in row["reason"]) == (source["status"] == "ok")
    assert not {r["status"] for r in found} & {"model_unavailable", "failed"}


def test_an_imported_text_counts_before_one_of_the_rule_based_captioner(tmp_path):
    inputs = with_model(prepared(), SCENE_HEAD)
    captions = inputs.tables["captions"].to_pylist()
    both = sorted([*captions, *(r | {"view": "describer"} for r in captions)], key=lambda r: r["segment_id"])
    inputs.tables["captions"] = inputs.tables["captions"].from_pylist(both, schema=inputs.tables["captions"].schema)
    found = [r["status"] for r in rows_of(inputs, load_profile(), SceneHeadOnly(tmp_path)) if r["method"] == "pfsa"]
    assert set(found) == {"ok", "no_face"}


def test_a_frame_of_a_method_that_does_not_apply_is_not_applicable():
    profile = load_profile(overrides=["compound.method=pfsa"])
    inputs = prepared()
    for spec in specs()[-2:]:
        inputs.tables[spec.name] = spec.load()(StageContext(profile, NoWeights(), inputs))(spec.plan(inputs, profile))
    frames = inputs.tables["frame_predictions"].to_pylist()
    assert {r["status"] for r in frames} == {"not_applicable", "no_face"}
    assert all("imported captions" in r["reason"] for r in frames if r["status"] == "not_applicable")


def test_without_the_scene_branch_the_only_method_is_ppa():
    assert methods_of(["face_static"]) == ("ppa",)
    unit = {"unit": "a/0000", "segment_id": "a/0000", "video_id": "a", "segment": 0}
    assert [r["method"] for r in placeholder_rows(FIRST, unit, Status.FAILED, "why")] == ["ppa"]
    both = next(s for s in specs() if s.name == "compound")
    assert [r["method"] for r in placeholder_rows(both, unit, Status.FAILED, "why")] == ["ppa", "pfsa"]


def test_frames_follow_the_method_of_the_profile(tmp_path):
    weights, profile = SceneHeadOnly(tmp_path), load_profile(overrides=["compound.method=pfsa"])
    inputs = with_model(prepared(), SCENE_HEAD)
    for spec in specs()[-2:]:
        stage = spec.load()(StageContext(profile, weights, inputs))
        inputs.tables[spec.name] = stage(spec.plan(inputs, profile))
    own = {(r["video_id"], r["segment"]): r for r in inputs.tables["compound"].to_pylist() if r["method"] == "pfsa"}
    fused = {(r["video_id"], r["segment"]): r["status"] for r in inputs.tables["fused"].to_pylist()}
    seen = 0
    for row in inputs.tables["frame_predictions"].to_pylist():
        for segment in row["segments"]:
            assert own[row["video_id"], segment]["status"] == fused[row["video_id"], segment] == "ok"
        if row["status"] == "ok":
            values = [[own[row["video_id"], s][c] for c in COMPOUND_COLUMNS] for s in row["segments"]]
            np.testing.assert_allclose([row[c] for c in COMPOUND_COLUMNS], np.mean(values, axis=0), atol=1e-12)
            seen += 1
    assert seen > 100
    reader = VideoReader(inputs, profile, NAMES, NAMES[:1])
    targets = {p["target"] for p in contributions(reader.read("a"), NAMES, 10.0).to_pylist()}
    assert not targets & set(COMPOUND)
    with pytest.raises(CerError, match=r"compound\.method: Input should be 'ppa' or 'pfsa'"):
        VideoReader(inputs, load_profile(overrides=["compound.method=sum"]), NAMES, NAMES[:1])


def table(seed: int, missing: float = 0.2):
    """Random distributions of two videos with gaps: values, videos, segments."""
    rng = np.random.default_rng(seed)
    videos = ["a"] * 6 + ["b"] * 4
    segments = [0, 1, 2, 3, 5, 6, 0, 1, 2, 3]
    values = rng.dirichlet(np.full(7, 0.5), size=10)
    values[rng.random(10) < missing] = np.nan
    return values, videos, segments


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_prior_correction_equals_the_naive_one_and_keeps_distributions(seed, strength):
    values, *_ = table(seed)
    got = corrected(values, prior(values), strength)
    known = [row for row in values if not np.isnan(row[0])]
    means = [sum(row[k] for row in known) / len(known) if known else 1 / 7 for k in range(7)]
    for row, new in zip(values, got, strict=True):
        if np.isnan(row[0]):
            assert np.isnan(new).all()
            continue
        scaled = [p / m**strength for p, m in zip(row, means, strict=True)]
        np.testing.assert_allclose(new, np.array(scaled) / sum(scaled), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(corrected(values, prior(values), 0.0), values, atol=1e-12)


def test_prior_correction_keeps_the_probability_of_an_absent_compound_at_0():
    values = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0]])
    got = corrected(values, prior(values), 1.0)
    np.testing.assert_allclose(got.sum(axis=1), 1)
    assert (got[:, 2:] == 0).all() and got[0, 1] > got[0, 0]


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_smoothing_equals_the_naive_mean_over_neighbours_of_the_same_video(seed, share):
    values, videos, segments = table(seed)
    known = ~np.isnan(values[:, 0])
    got = smoothed(values, neighbours(videos, segments, known, share))
    for i in range(10):
        if not known[i]:
            assert np.isnan(got[i]).all()
            continue
        total, weight = (1 - share) * values[i], 1 - share
        for j in range(10):
            if videos[i] == videos[j] and abs(segments[i] - segments[j]) == 1 and known[j]:
                total, weight = total + share / 2 * values[j], weight + share / 2
        np.testing.assert_allclose(got[i], total / weight, atol=1e-12)


def test_no_adjustment_changes_no_bit():
    values, videos, segments = table(1)
    assert adjusted(values, videos, segments, Adjustment(0.0, 0.0)).tobytes() == values.tobytes()
    assert Adjustment.of(load_profile()) == Adjustment(0.0, 0.0) and not Adjustment.of(load_profile())


@pytest.mark.parametrize("wrong", ["prior_correction=1.5", "smoothing=1.0", "smoothing=-0.1"])
def test_an_adjustment_out_of_range_is_refused(wrong):
    key = f"compound.{wrong.partition('=')[0]}"
    with pytest.raises(CerError, match=f"{key}: Input should be (less|greater) than"):
        Adjustment.of(load_profile(overrides=[f"compound.{wrong}"]))


ADJUSTED = ["compound.prior_correction=0.7", "compound.smoothing=0.4"]


def test_adjusted_rows_are_those_of_the_whole_shard_whatever_the_chunks():
    inputs, profile = prepared(), load_profile(overrides=ADJUSTED)
    plain = [r for r in rows_of(inputs, load_profile()) if r["method"] == "ppa"]
    values = np.array([[np.nan if r[c] is None else r[c] for c in COMPOUND_COLUMNS] for r in plain])
    expected = adjusted(values, [r["video_id"] for r in plain], [r["segment"] for r in plain], Adjustment(0.7, 0.4))
    whole = rows_of(inputs, profile)
    assert whole == rows_of(inputs, profile, size=1) == rows_of(inputs, profile, size=5)
    got = [[np.nan if r[c] is None else r[c] for c in COMPOUND_COLUMNS] for r in whole if r["method"] == "ppa"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("override", "reach"), [("method=ppa", "segment"), ("smoothing=0.4", "video"), ("prior_correction=0.5", "shard")]
)
def test_the_key_of_a_segment_covers_what_its_row_depends_on_and_no_more(override, reach):
    profile = load_profile(overrides=[f"compound.{override}"])
    spec = next(s for s in specs() if s.name == "compound")

    def keys(inputs: MemoryInputs) -> dict[str, str]:
        plan = spec.plan(inputs, profile)
        return dict(zip(plan.column("unit").to_pylist(), plan.column("inputs").to_pylist(), strict=True))

    inputs = prepared()
    before = keys(inputs)
    fused = inputs.tables["fused"].to_pylist()
    fused[2] |= {"reason": "changed"}  # the third segment of video a
    inputs.tables["fused"] = inputs.tables["fused"].from_pylist(fused, schema=inputs.tables["fused"].schema)
    after = keys(inputs)
    changed = {unit for unit in before if before[unit] != after[unit]}
    expected = {
        "segment": {"a/0002"},
        "video": {u for u in before if u.startswith("a/")},
        "shard": set(before),
    }
    assert changed == expected[reach]


@pytest.mark.parametrize("resolution", ["window", "sample"])
def test_the_parts_of_adjusted_values_still_sum_to_them(resolution):
    profile = load_profile(overrides=[f"frames_out.time_resolution={resolution}", *ADJUSTED])
    inputs = shard(DURATIONS, NAMES, fps=5.0, missing=0.4, seed=5)
    made = run(inputs, profile)
    reader = VideoReader(inputs, profile, NAMES, NAMES[:1])
    videos = {video: reader.read(video) for video in DURATIONS}
    checked = 0
    for row in made["frame_predictions"].to_pylist():
        if row["status"] != "ok":
            continue
        sums = dict.fromkeys((*COMPOUND,), 0.0)
        for part in contributions(videos[row["video_id"]], NAMES, row["time_s"]).to_pylist():
            if part["target"] in sums:
                sums[part["target"]] += part["value"]
        np.testing.assert_allclose(list(sums.values()), [row[c] for c in COMPOUND_COLUMNS], atol=1e-12)
        checked += 1
    assert checked > 50
