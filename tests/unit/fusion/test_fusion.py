"""Fusion: masks, exact weights, statuses, and rows that do not depend on their batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.fusion.combine import combine, equal_weights, masked_softmax
from cer_pipeline.fusion.inputs import STATUS_PRIORITY, dominant_status
from cer_pipeline.fusion.specs import fusion_stages
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.status import Status
from cer_pipeline.sums import plain_sum
from tests.helpers.memory_inputs import branch, context, shard

M, C = 5, 8
NAMES = ("face_static", "scene_minilm", "text_minilm")


def naive(weights, probabilities, present):
    """The weighted sum and its normalisation, one number at a time."""
    fused = np.zeros(weights.shape[1])
    for c in range(weights.shape[1]):
        for m in range(weights.shape[0]):
            if present[m]:
                fused[c] += weights[m, c] * probabilities[m, c]
    return fused / sum(fused)


@st.composite
def units(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 7))
    sharpness = draw(st.sampled_from([0.02, 0.3, 5.0]))
    probabilities = rng.dirichlet(np.full(C, sharpness), size=(n, M))
    present = rng.random((n, M)) < draw(st.floats(0.1, 1.0))
    present[np.arange(n), rng.integers(0, M, n)] = True
    probabilities[~present] = np.nan
    scores = rng.normal(0, draw(st.sampled_from([0.1, 3.0, 500.0])), (n, M, C))
    return scores, probabilities, present


@given(units())
@settings(max_examples=100, deadline=None)
def test_fused_is_a_distribution_that_its_weights_reproduce_to_the_last_bit(unit):
    scores, probabilities, present = unit
    weights = masked_softmax(scores, present)
    fused, effective = combine(weights, probabilities, present)
    again = np.zeros_like(fused)
    for m in range(M):
        again = again + np.where(present[:, m, None], effective[:, m] * np.nan_to_num(probabilities[:, m]), 0.0)
    assert (again == fused).all()
    assert (effective[~present] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-12)
    for i in range(len(fused)):
        np.testing.assert_allclose(fused[i], naive(weights[i], probabilities[i], present[i]), atol=1e-12)


@given(units())
@settings(max_examples=50, deadline=None)
def test_a_row_does_not_depend_on_its_batch(unit):
    scores, probabilities, present = unit
    together = combine(masked_softmax(scores, present), probabilities, present)
    for i in range(len(scores)):
        one = slice(i, i + 1)
        alone = combine(masked_softmax(scores[one], present[one]), probabilities[one], present[one])
        for mine, theirs in zip(alone, together, strict=True):
            assert (mine == theirs[one]).all()


def test_every_subset_of_branches_gives_a_distribution():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(C), size=(1, M))
    subsets = [s for s in itertools.product([False, True], repeat=M) if any(s)]
    assert len(subsets) == 2**M - 1
    for subset in subsets:
        present = np.array([subset])
        fused, _ = combine(masked_softmax(rng.normal(size=(1, M, C)), present), probabilities, present)
        assert (fused >= 0).all()
        assert fused.sum() == pytest.approx(1.0, abs=1e-12)


def test_equal_weights_are_the_mean_of_the_branches_that_are_present():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(C), size=(4, M))
    present = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [1, 1, 0, 1, 1]], dtype=bool)
    fused, _ = combine(equal_weights(present, C), probabilities, present)
    for i in range(4):
        np.testing.assert_allclose(fused[i], probabilities[i][present[i]].mean(axis=0), atol=1e-15)


def test_branches_of_one_modality_share_its_weight_among_those_that_are_present():
    rng = np.random.default_rng(2)
    modalities = ["face", "audio", "audio", "text", "audio"]
    present = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 0, 1, 0, 1]], dtype=bool)
    probabilities = rng.dirichlet(np.ones(C), size=(4, 5))
    weights = equal_weights(present, C, modalities)
    expected = [[1 / 3, 1 / 9, 1 / 9, 1 / 3, 1 / 9], [1 / 3, 1 / 3, 0, 1 / 3, 0], [0, 0.5, 0.5, 0, 0]]
    expected += [[0.5, 0, 0.25, 0, 0.25]]
    np.testing.assert_allclose(weights, np.repeat(np.array(expected)[..., None], C, axis=2), atol=1e-15)
    fused, effective = combine(weights, probabilities, present)
    np.testing.assert_allclose(fused, (effective * probabilities).sum(1), atol=1e-12)
    np.testing.assert_allclose(fused.sum(1), 1, atol=1e-12)


def test_the_dominant_status_prefers_errors_and_puts_missing_models_last():
    assert dominant_status(["no_speech", "model_unavailable", "no_face"]) == Status.NO_FACE
    assert dominant_status(["no_face", "failed"]) == Status.FAILED
    assert dominant_status(["model_unavailable", "empty_transcript"]) == Status.EMPTY_TRANSCRIPT
    assert set(STATUS_PRIORITY) == set(Status) - {Status.OK, Status.NO_LABEL}, "no branch reads labels"


@pytest.fixture
def fused_shard():
    inputs = shard({"a": 41.3, "b": 2.0, "c d/é": 9.0}, NAMES, missing=0.6)
    (spec,) = fusion_stages([branch(n) for n in NAMES])
    profile = load_profile()
    plan = spec.plan(inputs, profile)
    return inputs, spec, plan, spec.load()(context(inputs, profile))(plan)


def test_every_segment_has_one_fused_row_with_a_value_or_a_reason(fused_shard):
    inputs, spec, _, fused = fused_shard
    assert fused.column("segment_id").to_pylist() == inputs.tables["segments"].column("segment_id").to_pylist()
    assert fused.schema.equals(spec.table.schema)
    branches = {n: inputs.tables[f"probabilities/{n}"].to_pylist() for n in NAMES}
    seen = set()
    for i, row in enumerate(fused.to_pylist()):
        present = [n for n in NAMES if branches[n][i]["status"] == "ok"]
        assert row["present"] == present
        seen.add(bool(present))
        if present:
            assert (row["status"], row["reason"], row["model"]) == ("ok", None, "equal_weights")
            for c, name in enumerate(BASIC_COLUMNS):
                assert row[name] == pytest.approx(np.mean([branches[n][i][name] for n in present]), abs=1e-15)
                assert row[name] == plain_sum(row[f"w_{n}"][c] * branches[n][i][name] for n in present)
            for absent in set(NAMES) - set(present):
                assert row[f"w_{absent}"] == [0.0] * 8
        else:
            assert row["status"] == "no_face"
            assert (
                row["reason"] == "no branch has a value: face_static no_face, scene_minilm no_face, text_minilm no_face"
            )
            assert [row[c] for c in ("p_neutral", "w_face_static", "model")] == [None] * 3
    assert seen == {True, False}, "the fixture must hold segments with and without a value"


def test_the_plan_changes_for_the_segments_whose_probabilities_change_and_for_no_other(fused_shard):
    inputs, spec, plan, _ = fused_shard
    name = "probabilities/text_minilm"
    rows = inputs.tables[name].to_pylist()
    rows[3]["reason"] = "something else"
    inputs.tables[name] = type(inputs.tables[name]).from_pylist(rows, schema=inputs.tables[name].schema)
    again = spec.plan(inputs, load_profile())
    before, after = plan.column("inputs").to_pylist(), again.column("inputs").to_pylist()
    assert [i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y] == [3]
