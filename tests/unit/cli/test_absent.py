"""The line about absent models below the tables of run, status and report."""

from __future__ import annotations

from pathlib import Path

from cer_pipeline.cli.absent import absent_line
from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.zoo import Zoo, load_entries


def test_the_line_counts_the_tables_and_names_one_command_for_all_weights_and_one_for_each_head(tmp_path: Path) -> None:
    zoo = Zoo(tmp_path, load_entries())
    line = absent_line(
        stages(load_profile()), zoo, [{"ok": 3}, {"model_unavailable": 3}, {"model_unavailable": 1, "ok": 2}]
    )
    assert line.startswith("model_unavailable: rows of 2 of 3 tables; next: cer models pull centerface face_landmarker")
    assert line.count("cer models pull") == 1
    assert line.endswith("cer train face_emo_transformer; cer train face_emo_mamba")


def test_tables_with_all_their_models_need_no_line(tmp_path: Path) -> None:
    assert absent_line(stages(load_profile()), Zoo(tmp_path, load_entries()), [{"ok": 3}, {"no_face": 1}]) == ""
