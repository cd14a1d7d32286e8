"""Settings: typed sections, errors with the next step, and the output of `cer settings`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cer_pipeline.cli.app import app
from cer_pipeline.errors import CerError
from cer_pipeline.pipeline import recomputed, stages
from cer_pipeline.profiles import load_profile, profile_names, profile_texts, shipped_values
from cer_pipeline.profiles.explain import explain, settings
from cer_pipeline.profiles.sections import SECTIONS


@pytest.mark.parametrize("name", profile_names())
def test_every_setting_of_a_profile_has_a_model_with_its_meaning(name: str) -> None:
    for section, values in shipped_values(name).items():
        fields = SECTIONS[section].model_fields
        assert values.keys() == fields.keys()
        assert all(field.description for field in fields.values())


@pytest.mark.parametrize("name", profile_names())
def test_values_are_returned_as_they_are_written(name: str) -> None:
    written = shipped_values(name)
    assert json.dumps(load_profile(name).sections, sort_keys=True) == json.dumps(written, sort_keys=True)


def test_a_profile_with_a_base_differs_only_in_what_it_holds() -> None:
    base, texts = load_profile(), profile_texts("gpu")
    assert len(texts) == 2
    held = tomllib.loads(texts[1])
    assert held.pop("base") == base.name
    other = load_profile("gpu")
    for section, values in base.sections.items():
        same = {key: value for key, value in values.items() if key not in held.get(section, {})}
        assert {key: other[section][key] for key in same} == same


@pytest.mark.parametrize("name", profile_names())
def test_every_number_of_a_profile_has_a_reason(name: str) -> None:
    numbers = [s for s in settings(load_profile(name)) if isinstance(s.default, int | float)]
    assert [s.key for s in numbers if not s.reason] == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("faces.margn=0.4", "unknown setting faces.margn: faces.margn=0.4 - did you mean faces.margin?"),
        ("facs.margin=0.4", "unknown section [facs]: facs.margin=0.4 - did you mean faces?"),
        ("compound.smoothing=1", "compound.smoothing: Input should be less than 1: compound.smoothing=1"),
        ("faces.margin=wide", "faces.margin: Input should be a valid number: faces.margin=wide"),
        ("faces.margin=true", "faces.margin: Input should be a valid number"),
        ("grid.rate_hz=5.5", "grid.rate_hz: Input should be a valid integer"),
        ("fusion.method=best", "fusion.method: Input should be 'equal', 'static' or 'dynamic'"),
        ("describer.shot=[0.1, 0.2, 0.3]", "describer.shot: the values must descend"),
        ("describer.brightness=[0.9, 0.1]", "describer.brightness: the values must ascend"),
        ("margin=0.4", "a setting is written section.setting=value"),
    ],
)
def test_a_mistake_ends_in_one_line_with_the_next_step(override: str, line: str) -> None:
    with pytest.raises(CerError) as caught:
        load_profile(overrides=[override])
    assert line in caught.value.line()
    assert caught.value.then
    assert "\n" not in caught.value.line()


def test_a_mistake_in_the_settings_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[faces]\nmargin = 'wide'\n")
    with pytest.raises(CerError, match=r"faces\.margin: .*settings\.toml"):
        load_profile(settings=file)


def test_an_int_is_accepted_as_a_float() -> None:
    profile = load_profile(overrides=["faces.margin=1"])
    assert (profile["faces"]["margin"], type(profile["faces"]["margin"])) == (1.0, float)


def test_the_origin_of_a_setting_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[faces]\nmargin = 0.4\ncrop_side = 128\n")
    profile = load_profile(settings=file, overrides=["faces.crop_side=64"])
    described = {key: explain(profile, key) for key in ("faces.margin", "faces.crop_side", "faces.crop_quality")}
    assert {key: s.origin for key, s in described.items()} == {
        "faces.margin": str(file),
        "faces.crop_side": "faces.crop_side=64",
        "faces.crop_quality": "profile embedded",
    }
    assert (described["faces.margin"].value, described["faces.margin"].default) == (0.4, 0.5)


def test_a_change_recomputes_the_tables_that_read_the_section_and_those_downstream() -> None:
    specs = stages(load_profile())
    first, later = recomputed(specs, "speech")
    assert first == ["speech"]
    assert {"transcripts", "fused", "compound", "frame_predictions", "probabilities/text_minilm"} <= set(later)
    assert not {"videos", "frames", "faces", "probabilities/face_static"} & {*first, *later}
    assert recomputed(specs, "execution") == ([], [])


def test_the_command_explains_a_setting(tmp_home: Path) -> None:
    (tmp_home / "settings.toml").write_text("[windows]\nhop_s = 1.0\n")
    done = CliRunner().invoke(app, ["settings", "explain", "windows.hop_s"])
    assert done.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in done.output.splitlines())
    assert lines["value"] == "1.0 s"
    assert lines["default"] == "2.0 s"
    assert lines["from"] == str(tmp_home / "settings.toml")
    assert lines["type"] == "float, greater than 0"
    assert "paper" in lines["reason"]
    assert lines["changes"].startswith("recomputes videos, segments; then, if their inputs change: frames,")


def test_the_command_lists_what_differs_from_the_profile(tmp_home: Path) -> None:
    listed = CliRunner().invoke(app, ["settings", "show", "--changed", "--json", "--set", "faces.margin=0.4"])
    assert [(s["key"], s["value"]) for s in json.loads(listed.output)] == [("faces.margin", 0.4)]
    everything = CliRunner().invoke(app, ["settings", "show", "--json"])
    assert len(json.loads(everything.output)) == sum(len(v) for v in load_profile().sections.values())
    (tmp_home / "settings.toml").write_text("[frames]\nhold_s = 1\n")
    assert "frames.hold_s" in CliRunner().invoke(app, ["settings", "show", "--changed"]).output


def test_an_unknown_setting_or_section_is_refused_with_the_nearest_one(tmp_home: Path) -> None:
    for words, line in (
        (["explain", "windows.hop"], "did you mean windows.hop_s?"),
        (["show", "window"], "did you mean windows?"),
    ):
        done = CliRunner().invoke(app, ["settings", *words])
        assert isinstance(done.exception, CerError)
        assert line in done.exception.line()
