"""Compound mapping and frame averaging, each against an independent naive version."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cer_pipeline import tables
from cer_pipeline.compound.pfsa import basic_prototypes, compound_prototypes, pfsa
from cer_pipeline.compound.ppa import ppa, ppa_scores
from cer_pipeline.errors import CerError
from cer_pipeline.fusion.specs import fusion_stages
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND_COLUMNS, COMPOUND_PAIRS
from cer_pipeline.predictions.frame_average import Samples, sampled_at, windows_at
from cer_pipeline.predictions.specs import compound_stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import placeholder_rows
from cer_pipeline.status import Status
from tests.helpers.memory_inputs import branch, context, shard

NAMES = ("face_static", "scene_minilm", "text_minilm")
DURATIONS = {"a": 21.3, "b": 2.4, "c": 9.0, "d": 4.0}


def specs():
    branches = [branch(n, sampled=n == NAMES[0]) for n in NAMES]
    return (*fusion_stages(branches), *compound_stages(branches))


def run(inputs, profile):
    """Make fused, compound and frame_predictions of a shard."""
    for spec in specs():
        inputs.tables[spec.name] = spec.load()(context(inputs, profile))(spec.plan(inputs, profile))
    return inputs.tables


def naive_ppa(p):
    scores = [p[BASIC.index(a)] + p[BASIC.index(b)] for a, b in COMPOUND_PAIRS]
    return [s / sum(scores) for s in scores] if sum(scores) else [1 / 7] * 7


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.3, 5.0]))
@example(seed=68608085, sharpness=0.01)  # two scores become one value
@settings(max_examples=60, deadline=None)
def test_ppa_equals_the_naive_pair_sums_and_keeps_their_order(seed, sharpness):
    p = np.random.default_rng(seed).dirichlet(np.full(8, sharpness), size=5)
    values = ppa(p)
    for row, value in zip(p, values, strict=True):
        np.testing.assert_allclose(value, naive_ppa(row), atol=1e-12)
    # Dividing by the sum keeps the order, but two scores that differ in the last bit may round to one value.
    top = ppa_scores(p).argmax(axis=1)
    assert (values[np.arange(len(p)), top] == values.max(axis=1)).all()


def test_ppa_is_uniform_where_neutral_and_other_have_all_probability():
    p = np.zeros((1, 8))
    p[0, BASIC.index("Neutral")] = 1.0
    np.testing.assert_array_equal(ppa(p), np.full((1, 7), 1 / 7))


def test_pfsa_equals_the_naive_cosine_softmax():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(400, 6)), rng.integers(0, 8, 400)
    predicted = np.where(rng.random(400) < 0.6, labels, rng.integers(0, 8, 400))
    prototypes = basic_prototypes(features, labels, predicted)
    compounds = compound_prototypes(prototypes)
    values = pfsa(features[:9], compounds, 0.1)
    for f, value in zip(features[:9], values, strict=True):
        exponents = []
        for a, b in COMPOUND_PAIRS:
            means = []
            for name in (a, b):
                i = BASIC.index(name)
                chosen = [features[s] for s in range(400) if labels[s] == i and predicted[s] == i]
                means.append(sum(chosen) / len(chosen))
            middle = (means[0] + means[1]) / 2
            cosine = sum(f * middle) / (sum(f * f) ** 0.5 * sum(middle * middle) ** 0.5)
            exponents.append(np.exp(cosine / 0.1))
        np.testing.assert_allclose(value, np.array(exponents) / sum(exponents), atol=1e-12)


def test_pfsa_refuses_a_class_without_correct_samples():
    labels = np.zeros(4, dtype=np.int64)
    with pytest.raises(CerError, match="Anger"):
        basic_prototypes(np.ones((4, 2)), labels, labels)


def test_windows_are_half_open_and_a_time_far_outside_is_in_none():
    start, end = np.array([0.0, 2.0, 4.0]), np.array([4.0, 6.0, 7.5])
    times = np.array([-0.2, -0.1, 0.0, 1.99, 2.0, 3.99, 4.0, 5.99, 6.0, 7.5, 7.59, 7.7])
    held = [[w for w in row if w >= 0] for row in windows_at(times, start, end).tolist()]
    assert held == [[], [0], [0], [0], [0, 1], [0, 1], [1, 2], [1, 2], [2], [2], [2], []]


def test_a_frame_outside_of_all_windows_never_carries_a_value():
    inputs = shard({"a": 9.0}, NAMES, fps=10.0, missing=0.0)
    frames = inputs.tables["frames"].to_pylist()
    frames[-1]["frame_times"] += [9.05, 9.4, 12.0]
    inputs.tables["frames"] = inputs.tables["frames"].from_pylist(frames, schema=tables.FRAMES.schema)
    rows = run(inputs, load_profile())["frame_predictions"].to_pylist()[-3:]
    assert [r["status"] for r in rows] == ["ok", "no_video", "no_video"]
    for row in rows[1:]:
        assert (row["segments"], row["p_neutral"], row["p_sadly_angry"]) == ([], None, None)
        assert row["reason"] == "the frame lies outside of all windows"


def test_samples_are_interpolated_over_short_gaps_only():
    one, two = np.eye(8)[0], np.eye(8)[1]
    samples = Samples(np.array([1.0, 1.2, 3.0]), np.stack([one, two, one]))
    values, valid = sampled_at(np.array([0.0, 0.9, 1.0, 1.15, 1.3, 2.0, 2.9, 3.2, 3.5]), samples, 0.6)
    assert valid.tolist() == [False, True, True, True, True, False, True, True, False]
    np.testing.assert_allclose(values[3, :2], [0.25, 0.75], atol=1e-12)
    np.testing.assert_allclose(values[[1, 2, 4, 6]], np.stack([one, one, two, one]))


@pytest.mark.parametrize("resolution", ["window", "sample"])
def test_every_frame_is_the_mean_of_its_windows_at_that_time(resolution):
    profile = load_profile(overrides=[f"frames_out.time_resolution={resolution}"])
    made = run(shard(DURATIONS, NAMES, fps=11.0, missing=0.4, seed=3), profile)
    fused = {(r["video_id"], r["segment"]): r for r in made["fused"].to_pylist()}
    windows = {(r["video_id"], r["segment"]): r for r in made["segments"].to_pylist()}
    said = {n: {(r["video_id"], r["segment"]): r for r in made[f"probabilities/{n}"].to_pylist()} for n in NAMES}
    samples = {(r["video_id"], r["sample"]): r for r in made["samples/face_static"].to_pylist()}
    frames = made["frame_predictions"]
    assert frames.schema.equals(tables.FRAME_PREDICTIONS.schema)
    statuses = set()
    for row in frames.to_pylist():
        video, t = row["video_id"], row["time_s"]
        held = [k for k, w in sorted(windows.items()) if k[0] == video and w["start_s"] <= t < w["end_s"]]
        used = [k for k in held if fused[k]["status"] == "ok"]
        statuses.add(row["status"])
        assert row["segments"] == [k[1] for k in used]
        if not used:
            assert [row[c] for c in ("status", "p_neutral", "p_sadly_angry")] == ["no_face", None, None]
            continue
        basics, compounds = [], []
        for k in used:
            values = np.zeros(8)
            for n in fused[k]["present"]:
                p = np.array([said[n][k][c] for c in BASIC_COLUMNS])
                if resolution == "sample" and n == "face_static":
                    p = naive_sample(samples, video, t, p)
                values += np.array(fused[k][f"w_{n}"]) * p
            basics.append(values / values.sum())
            compounds.append(naive_ppa(basics[-1]))
        np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], np.mean(basics, axis=0), atol=1e-12)
        np.testing.assert_allclose([row[c] for c in COMPOUND_COLUMNS], np.mean(compounds, axis=0), atol=1e-12)
        assert row["weights"] == [1 / len(used)] * len(used)
    assert statuses == {"ok", "no_face"}


def naive_sample(samples, video, t, otherwise):
    """Interpolation over at most 0.6 s, else the nearest sample within 0.3 s, else the value of the window."""
    known = sorted(
        (k / 5, np.array([r[c] for c in BASIC_COLUMNS]))
        for (v, k), r in samples.items()
        if v == video and r["status"] == "ok"
    )
    before = [s for s in known if s[0] <= t]
    after = [s for s in known if s[0] > t]
    if before and after and after[0][0] - before[-1][0] <= 0.6:
        (t0, p0), (t1, p1) = before[-1], after[0]
        return p0 + (p1 - p0) * (t - t0) / (t1 - t0)
    near = min(known, key=lambda s: abs(s[0] - t), default=None)
    return near[1] if near is not None and abs(near[0] - t) <= 0.3 else otherwise


def test_every_segment_has_its_rows_and_a_video_without_frames_has_none():
    inputs = shard(DURATIONS, NAMES, missing=0.4)
    frames = [r for r in inputs.tables["frames"].to_pylist() if r["video_id"] != "b"]
    frames.append(
        dict.fromkeys(frames[0])
        | {"video_id": "b", "sample": 0, "time_s": 0.0, "frame_times": [], "status": "no_video"}
    )
    frames.sort(key=lambda r: (r["video_id"], r["sample"]))
    inputs.tables["frames"] = inputs.tables["frames"].from_pylist(frames, schema=tables.FRAMES.schema)
    made = run(inputs, load_profile())
    for method in ("ppa", "pfsa"):
        own = made["compound"].filter(pa.array([m == method for m in made["compound"].column("method").to_pylist()]))
        assert own.column("segment_id").to_pylist() == made["segments"].column("segment_id").to_pylist()
        if method == "ppa":
            assert own.column("status").to_pylist() == made["fused"].column("status").to_pylist()
    counts = made["frame_predictions"].to_pandas().groupby("video_id").size().to_dict()
    assert counts == {"a": int(21.3 * 25), "c": 225, "d": 100}


def test_units_that_failed_have_placeholder_rows():
    for spec in specs():
        unit = {"unit": "a/0000", "segment_id": "a/0000", "video_id": "a", "segment": 0}
        for row in placeholder_rows(spec, unit | {"unit": unit[spec.table.unit]}, Status.FAILED, "out of luck"):
            table = spec.table.schema.empty_table().from_pylist([row], schema=spec.table.schema)
            assert table.column("status").to_pylist() == ["failed"]


def test_an_unknown_time_resolution_is_a_user_error():
    with pytest.raises(CerError, match="time_resolution"):
        run(shard({"a": 3.0}, NAMES), load_profile(overrides=["frames_out.time_resolution=hourly"]))


@pytest.mark.slow
def test_an_hour_of_video_is_averaged_quickly():
    inputs = shard({"a": 3600.0}, NAMES, fps=30.0)
    *_, frames = specs()
    run(inputs, load_profile())
    plan = frames.plan(inputs, load_profile())
    started = time.process_time()
    rows = frames.load()(context(inputs, load_profile()))(plan).num_rows
    assert rows == 108_000
    assert time.process_time() - started < 2.0
