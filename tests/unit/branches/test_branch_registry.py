"""Which branches a profile enables."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches import registry
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import Profile, load_profile

ORDER = (
    "face_static",
    "face_emo_transformer",
    "face_emo_mamba",
    "scene_minilm",
    "scene_label",
    "audio_uncertainty",
    "audio_bilstm",
    "text_minilm",
)


def enabled(*names: str) -> Profile:
    return Profile("test", {"branches": {"enabled": list(names)}})


def test_the_embedded_profile_enables_eight_branches_in_the_order_of_table_1_families() -> None:
    assert tuple(branch.name for branch in registry.branches(load_profile())) == ORDER


def test_every_branch_makes_a_feature_and_a_probability_table_of_its_name() -> None:
    for name, branch in registry.shipped().items():
        assert registry.NAME.fullmatch(name)
        assert branch.features.name == f"features/{name}"
        assert branch.probabilities.name == f"probabilities/{name}"
        assert branch.features.name in branch.probabilities.inputs
        assert branch.samples is None or branch.samples.name == f"samples/{name}"


def test_a_profile_chooses_branches_and_their_order() -> None:
    found = registry.branches(enabled("text_minilm", "face_static"))
    assert [branch.name for branch in found] == ["text_minilm", "face_static"]


def test_an_unknown_branch_is_named_with_the_known_ones() -> None:
    with pytest.raises(CerError, match="no such branch: face_statc - choose from: face_static"):
        registry.branches(enabled("face_statc"))


def test_a_branch_counts_once() -> None:
    with pytest.raises(CerError, match="enabled twice: face_static"):
        registry.branches(enabled("face_static", "scene_label", "face_static"))


PLUGGED = BranchSpec("plugged", "Plugged", "face", None, *([None] * 2))  # type: ignore[arg-type]


def plug(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    points = metadata.EntryPoints([metadata.EntryPoint(name, value, registry.GROUP)])
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points if group == registry.GROUP else ())


def test_a_plug_in_is_enabled_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, "plugged", f"{__name__}:PLUGGED")
    assert registry.branches(enabled("plugged", "face_static"))[0] is PLUGGED


@pytest.mark.parametrize(("name", "value"), [("other", "PLUGGED"), ("other", "ORDER")])
def test_a_plug_in_that_is_not_the_branch_that_it_names_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    plug(monkeypatch, name, f"{__name__}:{value}")
    with pytest.raises(CerError, match="does not hold the branch"):
        registry.branches(enabled(name))


def test_listing_the_branches_loads_no_model_library() -> None:
    heavy = ("torch", "cv2", "mediapipe", "transformers", "onnxruntime", "faster_whisper", "av", "sklearn", "h5py")
    code = (
        "import sys; from cer_pipeline.branches.registry import branches; "
        "from cer_pipeline.profiles import load_profile; "
        f"branches(load_profile()); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
