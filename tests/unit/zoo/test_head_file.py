"""A head that is written comes back exactly, always as the same bytes, or is refused with one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cer_pipeline.errors import CerError
from cer_pipeline.zoo.head_file import DTYPES, load_head, save_head

ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None,
    )
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=5), ARRAYS, min_size=1, max_size=4))
def test_tensors_come_back_with_type_shape_and_values(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("head") / "a.safetensors"
    save_head(path, tensors, {"k": 1})
    loaded, _ = load_head(path)
    assert set(loaded) == set(tensors)
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name], array)


def test_views_that_are_not_contiguous_keep_their_values(tmp_path: Path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"t": base.T, "step": base[:, ::2], "back": base[::-1]}
    save_head(tmp_path / "h.safetensors", views, {})
    loaded, _ = load_head(tmp_path / "h.safetensors")
    for name, view in views.items():
        np.testing.assert_array_equal(loaded[name], view)


def test_meta_comes_back_equal_and_order_does_not_change_the_bytes(tmp_path: Path):
    one, two = np.ones(2), np.zeros(3, np.float16)
    meta = {"name": "scene – ö", "scores": [0.1, 2, None], "nested": {"b": True, "a": "x"}}
    save_head(tmp_path / "a", {"one": one, "two": two}, meta)
    save_head(tmp_path / "b", {"two": two, "one": one}, dict(reversed(meta.items())))
    assert load_head(tmp_path / "a")[1] == meta
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("tensors", "meta"),
    [
        ({}, {}),
        ({"w": np.array([1.0, np.nan])}, {}),
        ({"w": np.array([np.inf])}, {}),
        ({"w": np.array(["text"])}, {}),
        ({"w": np.ones(1)}, {"x": float("nan")}),
        ({"w": np.ones(1)}, {"x": {1, 2}}),
        ({"w": np.ones(1)}, {"x": (1, 2)}),
        ({"w": np.ones(1)}, {1: "a"}),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_the_earlier_file(tmp_path: Path, tensors, meta):
    path = tmp_path / "h.safetensors"
    save_head(path, {"w": np.ones(1)}, {"v": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"tensor|meta|JSON"):
        save_head(path, tensors, meta)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_damaged_and_foreign_files_are_one_line_errors(tmp_path: Path):
    good = tmp_path / "good.safetensors"
    save_head(good, {"w": np.ones(8)}, {})
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-5])
    (tmp_path / "noise").write_bytes(b"\x00\x01" * 50)
    from safetensors.numpy import save_file

    save_file({"w": np.ones(1)}, tmp_path / "foreign")
    save_file({"w": np.ones(1)}, tmp_path / "no_json", metadata={"meta": "{"})
    for name in ("absent", "cut", "noise", "foreign", "no_json"):
        with pytest.raises(CerError) as caught:
            load_head(tmp_path / name)
        assert str(tmp_path / name) in caught.value.line()
        assert "\n" not in caught.value.line()


def test_reading_a_head_loads_no_torch():
    heavy = ("torch", "sklearn", "transformers")
    code = f"import sys, cer_pipeline.zoo.head_file; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
