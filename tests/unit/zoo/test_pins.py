"""A user can vouch for files without a public digest; nothing else is accepted in their place."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from cer_pipeline.errors import CerError, ModelUnavailable
from cer_pipeline.zoo import Entry, File, State, Zoo, pin, weights
from cer_pipeline.zoo.entries import load_entries
from cer_pipeline.zoo.pins import add_pins, default_pins, read_pins, with_pins

PUBLIC, PRIVATE = b"public bytes", b"bytes without a public digest"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry() -> Entry:
    files = (File("config.json", 0, sha(PUBLIC)), File("model.safetensors", 0, ""))
    return Entry(id="m", title="m", purpose="testing", kind="model", licence="MIT", files=files, sources=())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "m"
    path.mkdir(parents=True)
    (path / "config.json").write_bytes(PUBLIC)
    (path / "model.safetensors").write_bytes(PRIVATE)
    return path


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "load_entries", lambda: {"m": entry()})
    return tmp_path / "config" / "pins.toml"


def zoo_with(pins: Path, folder: Path) -> Zoo:
    return Zoo(folder.parent / "cache", with_pins({"m": entry()}, read_pins(pins)), folder.parent)


def test_a_pinned_model_is_loaded_and_an_unpinned_one_is_not(folder: Path, pins: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cer models pin m FOLDER"):
        zoo_with(pins, folder).path("m")
    assert pin(zoo_with(pins, folder), "m", folder, pins) == {"model.safetensors": (len(PRIVATE), sha(PRIVATE))}
    zoo = zoo_with(pins, folder)
    assert zoo.path("m") == folder
    assert zoo.entry("m").bytes == len(PRIVATE)


def test_a_pinned_file_that_changes_is_refused(folder: Path, pins: Path) -> None:
    pin(zoo_with(pins, folder), "m", folder, pins)
    (folder / "model.safetensors").write_bytes(PRIVATE[::-1])
    zoo = zoo_with(pins, folder)
    assert zoo.state("m") is State.WRONG_DIGEST
    with pytest.raises(CerError, match=f"expected {sha(PRIVATE)}"):
        zoo.path("m")


def test_a_pin_never_replaces_a_public_digest(folder: Path, pins: Path) -> None:
    (folder / "config.json").write_bytes(b"other")
    with pytest.raises(CerError, match=f"wrong SHA-256: expected {sha(PUBLIC)}"):
        pin(zoo_with(pins, folder), "m", folder, pins)
    assert not pins.exists()
    add_pins(pins, "m", {"config.json": (5, sha(b"other"))})
    assert with_pins({"m": entry()}, read_pins(pins))["m"].files[0].sha256 == sha(PUBLIC)


def test_a_missing_file_and_a_model_with_public_digests_are_one_line(folder: Path, pins: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CerError, match=r"the folder lacks model\.safetensors"):
        pin(zoo_with(pins, folder), "m", folder, pins)
    whole = replace(entry(), id="w", files=(File("config.json", 0, sha(PUBLIC)),))
    with pytest.raises(CerError, match="every file of this model has a public digest"):
        pin(Zoo(folder, {"w": whole}), "w", folder, pins)


def test_pins_of_two_models_stand_side_by_side_and_a_new_pin_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "pins.toml"
    add_pins(path, "a", {"x.bin": (1, "0" * 64)})
    add_pins(path, "b", {"y.bin": (2, "1" * 64)})
    add_pins(path, "a", {"x.bin": (3, "2" * 64)})
    assert read_pins(path) == {"a": {"x.bin": (3, "2" * 64)}, "b": {"y.bin": (2, "1" * 64)}}
    assert path.read_text("utf-8").startswith("# SHA-256 of weights that you vouched for")


@pytest.mark.parametrize("text", ["a = [", 'a = "text"', '[a]\n"x" = { bytes = 1, sha256 = "short" }'])
def test_a_damaged_pin_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pins.toml"
    path.write_text(text)
    with pytest.raises(CerError, match="the pin file cannot be read"):
        read_pins(path)


def test_the_pin_file_is_the_users(tmp_path: Path) -> None:
    assert default_pins({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "cer-pipeline" / "pins.toml"
    assert default_pins({}) == Path.home() / ".config" / "cer-pipeline" / "pins.toml"


def test_every_hub_entry_names_a_revision_and_loads_no_pickle() -> None:
    hub = [e for e in load_entries().values() if type(e.sources[0]).__name__ == "Hub"]
    assert len(hub) >= 11
    for e in hub:
        assert len(e.sources[0].revision) == 40, e.id  # type: ignore[union-attr]
        pickles = [f for f in e.files if f.name.endswith((".pt", ".pth", ".bin", ".pkl")) and not f.state_dict]
        assert not pickles, e.id
