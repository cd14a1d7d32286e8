"""The example branch of the documentation, run as a plug-in through the stages of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cer_pipeline.branches.registry import GROUP
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.store.home import Home
from cer_pipeline.store.materialise import materialise
from cer_pipeline.store.parquet import read_table
from cer_pipeline.zoo import open_zoo
from tests.helpers.clips import make_clip

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
READ = ("videos", "segments", "audio", "features/loudness", "probabilities/loudness", "fused")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, dict]]]:
    """Tables of a profile with the plug-in alone: table -> segment_id -> row."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("plug_in")
        installed = root / "loudness-1.0.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: loudness\nVersion: 1.0\n")
        (installed / "entry_points.txt").write_text(f"[{GROUP}]\nloudness = branch:LOUDNESS\n")
        patch.syspath_prepend(str(EXAMPLES))
        patch.syspath_prepend(str(root))
        yield run(root)


def run(root: Path) -> dict[str, dict[str, dict]]:
    """Make the tables of two clips."""
    folder = root / "clips"
    folder.mkdir()
    make_clip(folder / "tone.mkv", [k / 5 for k in range(40)], sound=(0, 4))
    make_clip(folder / "silent.mkv", [k / 25 for k in range(25)])
    home, profile = Home(root / "home"), load_profile(overrides=['branches.enabled=["loudness"]'])
    registry.register(home.root, "clips", folder)
    (shard,) = registry.load(home.root, "clips").shard_labels()
    inputs, zoo = ShardInputs(home, "clips", shard), open_zoo({}, home.heads)
    for spec in stages(profile):
        if spec.name in READ:
            materialise(spec, home, inputs, profile, zoo, run_chunks, "run")
    tables = {name: read_table(home.table(name, "clips", shard)).to_pylist() for name in READ[3:]}
    return {name: {row["segment_id"]: row for row in rows} for name, rows in tables.items()}


def test_the_example_is_short() -> None:
    assert len((EXAMPLES / "branch.py").read_text("utf-8").splitlines()) < 60


def test_the_example_measures_the_level_of_every_window_and_predicts_from_it(made) -> None:
    levels = [made["features/loudness"][f"tone/{i:04d}"]["features"][0] for i in range(3)]
    power = 0.5**2 / 2  # of a sine of amplitude 0.5, which lasts for the first 4 of 8 s
    np.testing.assert_allclose(levels[:2], 10 * np.log10([power, power / 2]), atol=0.2)
    assert levels[2] < -50
    for i, level in enumerate(levels):
        row = made["probabilities/loudness"][f"tone/{i:04d}"]
        neutral = 1 / (1 + np.exp((level + 20) / 5))
        np.testing.assert_allclose(row["p_neutral"], neutral, atol=1e-6)
        np.testing.assert_allclose(sum(row[name] for name in BASIC_COLUMNS), 1.0, atol=1e-9)
        assert row["model"] == "loudness"


def test_the_fusion_takes_the_probabilities_of_the_example(made) -> None:
    for segment, row in made["probabilities/loudness"].items():
        fused = made["fused"][segment]
        assert fused["status"] == row["status"]
        if row["status"] == "ok":
            assert fused["present"] == ["loudness"]
            np.testing.assert_allclose([fused[n] for n in BASIC_COLUMNS], [row[n] for n in BASIC_COLUMNS], atol=1e-12)


def test_a_window_without_sound_has_the_status_of_its_sound(made) -> None:
    row = made["probabilities/loudness"]["silent/0000"]
    assert (row["status"], row["p_neutral"]) == ("no_audio", None)
    assert made["features/loudness"]["silent/0000"]["features"] is None
