"""The profile paper from a clip to fused tables, with tiny random weights of every model."""

from __future__ import annotations

from pathlib import Path

import pytest

from cer_pipeline.branches.registry import branches
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.pipeline import models_of, stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.status import Status
from cer_pipeline.store.home import Home
from cer_pipeline.store.materialise import materialise
from cer_pipeline.zoo import Zoo
from tests.helpers.tiny_models import tiny_zoo

ROWS_OF_TABLE_1 = ("face_emoaffectnet", "scene_jina", "text_jina", "scene_label_clip", "audio_wavlm_bilstm")
COMBINATIONS = ("id15", "id16", "id17")


@pytest.mark.slow
def test_every_branch_of_the_paper_has_values_with_tiny_weights(tmp_path: Path, media: Path, weights: Zoo) -> None:
    # Random weights of YOLO find boxes everywhere; CenterFace finds the faces of the clip.
    profile = load_profile("paper", overrides=["faces.detector=centerface", "faces.detector_score=0.5"])
    enabled = [branch.name for branch in branches(profile)]
    if absent := [name for name in ROWS_OF_TABLE_1 if name not in enabled]:
        pytest.skip(f"the profile paper does not enable {', '.join(absent)}")
    specs = stages(profile)
    needed = [model for spec in specs for model in spec.models]
    zoo, without = tiny_zoo(tmp_path / "models", models_of(specs), weights)
    if lacking := [model for model in without if model in needed]:
        pytest.skip(f"no helper in tests/helpers/tiny_*.py writes {', '.join(lacking)}")
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "clip.mp4").symlink_to(media / "speaker_a.mp4")
    home = Home(tmp_path / "home")
    registry.register(home.root, "clips", clips, "folder")
    (shard,) = registry.load(home.root, "clips").shard_labels()
    inputs = ShardInputs(home, "clips", shard)
    for spec in specs:
        report = materialise(spec, home, inputs, profile, zoo, run_chunks, "run")
        assert {"failed", "model_unavailable"}.isdisjoint(report.footer.by_status), spec.name
    for branch in enabled:
        assert Status.OK in inputs.table(f"probabilities/{branch}", ["status"]).column("status").to_pylist(), branch
    fused = inputs.table("fused")
    for name in COMBINATIONS:
        assert Status.OK in fused.column(f"{name}__status").to_pylist()
        assert f"{name}__p_neutral" in fused.column_names
