"""A state dict is converted once, in another process, and only tensors come through."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from cer_pipeline.errors import CerError
from cer_pipeline.zoo import Entry, File, Zoo
from cer_pipeline.zoo.state_dict import main


def zoo_of(tmp_path: Path, value: object) -> Zoo:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(value, folder / "m.pt")
    data = (folder / "m.pt").read_bytes()
    file = File("m.pt", len(data), hashlib.sha256(data).hexdigest(), state_dict=True)
    entry = Entry(id="m", title="m", purpose="testing", kind="model", licence="MIT", files=(file,), sources=())
    return Zoo(tmp_path / "cache", {"m": entry}, tmp_path / "models")


def test_the_path_of_a_state_dict_is_that_of_its_safetensors_form(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    zoo = zoo_of(tmp_path, {"a.weight": weight.T, "a.bias": torch.ones(2)})
    path = zoo.path("m")
    assert path.suffix == ".safetensors"
    tensors = load_file(path)
    assert sorted(tensors) == ["a.bias", "a.weight"]
    assert (tensors["a.weight"] == weight.T.numpy()).all()

    made = path.stat().st_mtime_ns
    assert zoo.path("m").stat().st_mtime_ns == made, "it is converted once"
    path.write_bytes(b"damaged")
    assert sorted(load_file(zoo.path("m"))) == ["a.bias", "a.weight"], "a damaged conversion is made again"


@pytest.mark.parametrize("value", [{"a": torch.ones(1), "note": "text"}, [1, 2], {}])
def test_anything_but_named_tensors_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"it holds no names|is no tensor"):
        main(str(tmp_path / "m.pt"), str(tmp_path / "m.safetensors"))
    assert not (tmp_path / "m.safetensors").exists()


class Harmful:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.target,))  # type: ignore[return-value]


def test_code_in_a_pickle_is_not_executed(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path, {"a": Harmful(tmp_path / "executed")})
    with pytest.raises(CerError, match=r"no state dict of tensors \(.*weights_only"):
        zoo.path("m")
    assert not (tmp_path / "executed").exists()
