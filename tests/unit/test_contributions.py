"""Every fused, compound and frame value splits exactly into parts by branch, basic emotion and segment."""

from __future__ import annotations

import numpy as np
import pytest
from memory_inputs import shard
from test_compound import DURATIONS, NAMES, run

from cer_pipeline.compound.predict import VideoReader
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.lineage.contributions import contributions, segment_parts
from cer_pipeline.profiles import load_profile


@pytest.mark.parametrize("resolution", ["window", "sample"])
def test_the_parts_of_every_frame_value_sum_to_it(resolution):
    profile = load_profile(overrides=[f"frames_out.time_resolution={resolution}"])
    inputs = shard(DURATIONS, NAMES, fps=7.0, missing=0.4, seed=5)
    made = run(inputs, profile)
    reader = VideoReader(inputs, profile, NAMES, NAMES[:1])
    evidence = {video: reader.read(video) for video in DURATIONS}
    checked = 0
    for row in made["frame_predictions"].to_pylist():
        parts = contributions(evidence[row["video_id"]], NAMES, row["time_s"]).to_pylist()
        sums: dict[str, float] = {}
        for part in parts:
            sums[part["target"]] = sums.get(part["target"], 0.0) + part["value"]
            assert part["value"] > 0
            assert part["segment"] in row["segments"]
        if row["status"] != "ok":
            assert parts == []
            continue
        for target, name in zip((*BASIC, *COMPOUND), (*BASIC_COLUMNS, *COMPOUND_COLUMNS), strict=True):
            assert sums.get(target, 0.0) == pytest.approx(row[name], abs=1e-12)
        checked += 1
    assert checked > 100


def test_the_parts_of_every_segment_sum_to_its_fused_and_compound_value():
    inputs = shard(DURATIONS, NAMES, missing=0.4, seed=5)
    made = run(inputs, load_profile())
    said = [made[f"probabilities/{n}"].to_pylist() for n in NAMES]
    compounds = [row for row in made["compound"].to_pylist() if row["method"] == "ppa"]
    for i, row in enumerate(made["fused"].to_pylist()):
        if row["status"] != "ok":
            continue
        weights = np.array([row[f"w_{n}"] for n in NAMES])
        values = np.array([[p[i][c] or 0.0 for c in BASIC_COLUMNS] for p in said])
        basic, compound = segment_parts(weights, values)
        np.testing.assert_allclose(basic.sum(axis=0), [row[c] for c in BASIC_COLUMNS], atol=1e-12)
        np.testing.assert_allclose(compound.sum(axis=(1, 2)), [compounds[i][c] for c in COMPOUND_COLUMNS], atol=1e-12)


def test_a_segment_that_speaks_for_no_compound_still_splits():
    weights, values = np.ones((1, 8)), np.eye(8)[:1]
    _, compound = segment_parts(weights, values)
    np.testing.assert_allclose(compound.sum(axis=(1, 2)), np.full(7, 1 / 7), atol=1e-15)
