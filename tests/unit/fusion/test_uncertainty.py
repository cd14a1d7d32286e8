"""Expressed, confidence, entropy and agreement, each against a naive version, and in every table that has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.fusion.combine import combine, equal_weights
from cer_pipeline.fusion.uncertainty import agreement, confidence, entropy, expressed
from cer_pipeline.labels import BASIC_COLUMNS, COMPOUND_COLUMNS
from cer_pipeline.profiles import load_profile
from tests.helpers.memory_inputs import shard
from tests.unit.compound.test_compound import DURATIONS, NAMES, naive_sample, run

SEEDS = st.integers(0, 2**32 - 1)
SHARPNESS = st.sampled_from([0.02, 0.3, 5.0])  # of random distributions: nearly one-hot, mixed, nearly uniform


def naive_entropy(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def naive_confidence(p):
    first, second, *_ = sorted(p, reverse=True)
    return first - second


def naive_agreement(shares, distributions):
    """Of the branches that have a share; None with fewer than two."""
    pairs = [(s, p) for s, p in zip(shares, distributions, strict=True) if s > 0]
    if len(pairs) < 2:
        return None
    mixture = [sum(s * p[c] for s, p in pairs) for c in range(len(pairs[0][1]))]
    divergence = 0.0
    for s, p in pairs:
        divergence += s * sum(v * math.log(v / m) for v, m in zip(p, mixture, strict=True) if v > 0)
    return 1 - divergence / naive_entropy([s for s, _ in pairs])


def fused(seed, sharpness, branches=4, n=6, missing=0.4):
    """Random branches, some of them absent, with weights that differ between classes: p, present, weights, values."""
    rng = np.random.default_rng(seed)
    present = rng.random((n, branches)) >= missing
    present[:, 0] |= ~present.any(axis=1)
    p = rng.dirichlet(np.full(8, sharpness), size=(n, branches)) + 1e-9
    p = np.where(present[..., None], p / p.sum(-1, keepdims=True), np.nan)
    raw = rng.random((n, branches, 8)) * present[..., None]
    values, weights = combine(raw / raw.sum(1, keepdims=True), p, present)
    return p, present, weights, values


@given(SEEDS, SHARPNESS, st.sampled_from([7, 8]))
@settings(max_examples=60, deadline=None)
def test_confidence_and_entropy_equal_their_naive_versions(seed, sharpness, classes):
    p = np.random.default_rng(seed).dirichlet(np.full(classes, sharpness), size=5)
    np.testing.assert_allclose(confidence(p), [naive_confidence(row) for row in p], atol=1e-12)
    np.testing.assert_allclose(entropy(p), [naive_entropy(row) / math.log(classes) for row in p], atol=1e-12)


@given(SEEDS, SHARPNESS)
@settings(max_examples=60, deadline=None)
def test_agreement_equals_its_naive_version_and_needs_two_branches(seed, sharpness):
    p, present, weights, _ = fused(seed, sharpness)
    got = agreement(weights, p)
    for i in range(len(p)):
        shares = [sum(weights[i, m, c] * p[i, m, c] for c in range(8)) if present[i, m] else 0.0 for m in range(4)]
        assert sum(shares) == pytest.approx(1.0)
        expected = naive_agreement(shares, p[i])
        assert np.isnan(got[i]) if expected is None else got[i] == pytest.approx(expected, abs=1e-9)


@given(SEEDS, SHARPNESS)
@settings(max_examples=60, deadline=None)
def test_all_measures_lie_in_0_to_1_and_do_not_depend_on_the_order_of_branches_or_expressions(seed, sharpness):
    p, _, weights, values = fused(seed, sharpness)
    rng = np.random.default_rng(seed)
    branches, classes = rng.permutation(4), [0, *(1 + rng.permutation(6)), 7]  # Neutral and Other stay in their places
    found = expressed(values), confidence(values), entropy(values), agreement(weights, p)
    moved = values[:, classes]
    again = agreement(weights[:, branches][..., classes], p[:, branches][..., classes])
    for a, b in zip(found, (expressed(moved), confidence(moved), entropy(moved), again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
        known = a[np.isfinite(a)]
        assert ((known >= 0) & (known <= 1)).all()


@given(SEEDS, SHARPNESS)
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_depend_on_its_batch(seed, sharpness):
    p, _, weights, values = fused(seed, sharpness)
    whole = expressed(values), confidence(values), entropy(values), agreement(weights, p)
    for i in range(len(p)):
        own = slice(i, i + 1)
        alone = expressed(values[own]), confidence(values[own]), entropy(values[own]), agreement(weights[own], p[own])
        assert [a[0].tobytes() for a in alone] == [w[i].tobytes() for w in whole]


def test_the_ends_of_the_scales():
    certain, uniform = np.eye(8), np.full((1, 8), 1 / 8)
    np.testing.assert_array_equal(entropy(certain), np.zeros(8))
    np.testing.assert_array_equal(confidence(certain), np.ones(8))
    np.testing.assert_allclose(entropy(uniform), 1)
    np.testing.assert_array_equal(confidence(uniform), [0])
    np.testing.assert_array_equal(expressed(certain), [0, 1, 1, 1, 1, 1, 1, 0])


def test_agreement_is_1_for_equal_distributions_and_0_without_a_class_in_common():
    two = np.ones((1, 2), bool)
    same = np.tile(np.random.default_rng(0).dirichlet(np.ones(8)), (1, 2, 1))
    apart = np.stack([np.eye(8)[1], np.eye(8)[4]])[None]
    weights = equal_weights(two, 8)
    np.testing.assert_allclose(agreement(combine(weights, same, two)[1], same), 1, atol=1e-12)
    np.testing.assert_allclose(agreement(combine(weights, apart, two)[1], apart), 0, atol=1e-12)


def test_a_branch_with_next_to_no_weight_hardly_counts():
    p = np.stack([np.eye(8)[1] * 0.9 + 0.0125, np.eye(8)[4] * 0.9 + 0.0125])[None]
    weights = np.stack([np.full(8, 1 - 1e-13), np.full(8, 1e-13)])[None]
    assert 0.8 < agreement(weights, p)[0] <= 1


def test_every_measure_is_nan_without_a_value():
    nothing = np.full((1, 8), np.nan)
    for measure in (expressed, confidence, entropy):
        assert np.isnan(measure(nothing)).all()
    assert np.isnan(agreement(np.zeros((1, 3, 8)), np.full((1, 3, 8), np.nan))).all()


@pytest.mark.parametrize("resolution", ["window", "sample"])
def test_the_columns_of_all_three_tables_are_those_numbers_of_their_own_rows(resolution):
    profile = load_profile(overrides=[f"frames_out.time_resolution={resolution}"])
    made = run(shard(DURATIONS, NAMES, fps=7.0, missing=0.4, seed=3), profile)
    rows = {(r["video_id"], r["segment"]): r for r in made["fused"].to_pylist()}
    said = {n: {(r["video_id"], r["segment"]): r for r in made[f"probabilities/{n}"].to_pylist()} for n in NAMES}
    samples = {(r["video_id"], r["sample"]): r for r in made["samples/face_static"].to_pylist()}

    def among(key, t=None):
        shares, spoken = [], []
        for n in rows[key]["present"]:
            p = [said[n][key][c] for c in BASIC_COLUMNS]
            if t is not None and n == "face_static" and resolution == "sample":
                p = naive_sample(samples, key[0], t, np.array(p))
            spoken.append(p)
            shares.append(float(np.dot(rows[key][f"w_{n}"], p)))
        return naive_agreement([s / sum(shares) for s in shares], spoken)

    def check(row, columns, prefix=""):
        p = [row[c] for c in columns]
        assert row[f"{prefix}confidence"] == pytest.approx(naive_confidence(p), abs=1e-12)
        assert row[f"{prefix}entropy"] == pytest.approx(naive_entropy(p) / math.log(len(p)), abs=1e-12)

    names = ("expressed", "confidence", "entropy", "agreement")
    for key, row in rows.items():
        if row["status"] != "ok":
            assert [row[n] for n in names] == [None] * 4
            continue
        check(row, BASIC_COLUMNS)
        assert row["expressed"] == pytest.approx(1 - row["p_neutral"] - row["p_other"], abs=1e-12)
        assert row["agreement"] == pytest.approx(among(key), abs=1e-9)
        assert (row["agreement"] is None) == (len(row["present"]) < 2)
    for row in made["compound"].to_pylist():
        own = rows[row["video_id"], row["segment"]]
        if row["status"] != "ok":
            assert [row[n] for n in names] == [None] * 4
            continue
        check(row, COMPOUND_COLUMNS)
        assert [row[n] for n in ("expressed", "agreement")] == [own[n] for n in ("expressed", "agreement")]
    seen = 0
    for row in made["frame_predictions"].to_pylist():
        if row["status"] != "ok":
            assert [row[n] for n in (*names, "compound_confidence", "compound_entropy")] == [None] * 6
            continue
        check(row, BASIC_COLUMNS)
        check(row, COMPOUND_COLUMNS, "compound_")
        assert row["expressed"] == pytest.approx(1 - row["p_neutral"] - row["p_other"], abs=1e-12)
        parts = [among((row["video_id"], s), row["time_s"]) for s in row["segments"]]
        known = [a for a in parts if a is not None]
        expected = sum(known) / len(known) if known else None
        assert row["agreement"] == (None if expected is None else pytest.approx(expected, abs=1e-9))
        seen += expected is not None
    assert seen > 50
