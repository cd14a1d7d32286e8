"""Every fused, compound and frame value is the exact sum of its parts by branch, basic emotion and segment."""

from __future__ import annotations

import numpy as np
import pytest

from cer_pipeline.fusion.mhpf import DYNAMIC, MHPF, save_mhpf
from cer_pipeline.fusion.specs import HEAD, fusion_stages
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.lineage.contributions import contributions, segment_parts
from cer_pipeline.predictions.predict_frames import VideoReader
from cer_pipeline.profiles import load_profile
from tests.helpers.memory_inputs import NoWeights, branch, context, shard
from tests.unit.compound.test_compound import DURATIONS, NAMES, run, specs


@pytest.mark.parametrize("resolution", ["window", "sample"])
def test_the_parts_of_every_frame_value_sum_to_it(resolution):
    profile = load_profile(overrides=[f"frames_out.time_resolution={resolution}"])
    inputs = shard(DURATIONS, NAMES, fps=7.0, missing=0.4, seed=5)
    made = run(inputs, profile)
    reader = VideoReader(inputs, profile, NAMES, NAMES[:1])
    videos = {video: reader.read(video) for video in DURATIONS}
    checked = 0
    for row in made["frame_predictions"].to_pylist():
        parts = contributions(videos[row["video_id"]], NAMES, row["time_s"]).to_pylist()
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


class OneHead(NoWeights):
    """`stage.Weights` with a trained fusion."""

    def __init__(self, path):
        self.file = path

    def path(self, model):
        assert model == HEAD
        return self.file


@pytest.mark.parametrize("resolution", ["window", "sample"])
def test_the_parts_sum_to_the_value_where_a_trained_fusion_gave_the_weights(resolution, tmp_path):
    """The fusion was trained with a further branch, in another order, and without the scene, which gets no part."""
    rng = np.random.default_rng(0)
    names = ("audio", "text_minilm", "face_static")
    maps, mean, scale = rng.normal(0, 0.3, (2, 8, 3, 19)), rng.normal(size=(3, 18)), rng.uniform(0.5, 2, (3, 18))
    known = (True,) * 7 + (False,)
    fusion = MHPF(DYNAMIC, names, BASIC, known, np.empty(0), np.zeros(2), maps, mean, scale, 8.0, 4.0)
    save_mhpf(tmp_path / "mhpf.safetensors", fusion, {})
    profile = load_profile(overrides=[f"frames_out.time_resolution={resolution}", "fusion.method=dynamic"])
    inputs = shard(DURATIONS, NAMES, fps=7.0, missing=0.4, seed=5)
    for spec in (*fusion_stages([branch(n) for n in NAMES], DYNAMIC), *specs()[1:]):
        made = context(inputs, profile)
        made.weights = OneHead(tmp_path / "mhpf.safetensors")
        inputs.tables[spec.name] = spec.load()(made)(spec.plan(inputs, profile))
    reader = VideoReader(inputs, profile, NAMES, NAMES[:1])
    videos = {video: reader.read(video) for video in DURATIONS}
    checked = 0
    for row in inputs.tables["frame_predictions"].to_pylist():
        parts = contributions(videos[row["video_id"]], NAMES, row["time_s"]).to_pylist()
        sums: dict[str, float] = {}
        for part in parts:
            sums[part["target"]] = sums.get(part["target"], 0.0) + part["value"]
            assert part["branch"] != "scene_minilm"
        if row["status"] == "ok":
            for target, name in zip((*BASIC, *COMPOUND), (*BASIC_COLUMNS, *COMPOUND_COLUMNS), strict=True):
                assert sums.get(target, 0.0) == pytest.approx(row[name], abs=1e-9)
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


def test_the_parts_of_a_segment_without_a_compound_sum_to_the_uniform_value():
    weights, values = np.ones((1, 8)), np.eye(8)[:1]
    _, compound = segment_parts(weights, values)
    np.testing.assert_allclose(compound.sum(axis=(1, 2)), np.full(7, 1 / 7), atol=1e-15)
