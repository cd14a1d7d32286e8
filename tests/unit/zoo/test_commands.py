"""The commands that bring absent models."""

from __future__ import annotations

from pathlib import Path

from cer_pipeline.zoo import Zoo, absent_models, commands_for
from cer_pipeline.zoo.entries import parse_entry


def zoo_of(cache: Path, **digests: str) -> Zoo:
    entries = {
        name: parse_entry(
            name,
            {"title": "t", "purpose": "p", "licence": "l", "files": [{"name": "m", "sha256": digest}], "sources": []},
        )
        for name, digest in digests.items()
    }
    return Zoo(cache, entries)


def test_models_with_digests_share_one_pull_and_the_others_are_pinned_or_trained(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path, one="1" * 64, two="", three="3" * 64)
    wanted = ["one", "head_face_emo_mamba", "two", "three", "one"]
    assert absent_models(zoo, wanted) == ["one", "head_face_emo_mamba", "two", "three"]
    pull, pin, train = commands_for(zoo, wanted)
    assert pull == "cer models pull one three"
    assert "cer models pin two FOLDER" in pin
    assert train == "cer train face_emo_mamba"


def test_models_on_this_machine_need_no_command(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path, one="1" * 64)
    folder = tmp_path / "models" / "one" / ("1" * 12)
    folder.mkdir(parents=True)
    (folder / "m").write_bytes(b"")
    assert commands_for(zoo, ["one"]) == []
