"""The stages of the face branches: a row for everyone, windows as the mean of their samples, one call a face."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from cer_pipeline import tables
from cer_pipeline.branches.face import specs as face
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageContext, StageSpec
from cer_pipeline.tables import N_BLENDSHAPES
from tests.helpers.memory_inputs import MemoryInputs, rows, segment

PROFILE = load_profile(overrides=["mini_xception.sides=[2.4]"])  # one size is enough here, and faster
STATIC = face.FACE_STATIC


class File:
    """`stage.Weights` of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self, model: str) -> Path:
        del model
        return self._path

    def digest(self, model: str) -> str | None:
        return model


def faces_of(video: str, samples: int, seen: dict[int, list[tuple[int, list[int]]]], seed: int = 0) -> list[dict]:
    """Rows of `faces`: for every sample its faces as (track, windows whose subject it is); none gives one blank row."""
    rng = np.random.default_rng(seed)
    _, jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))
    out = []
    for k in range(samples):
        if not seen.get(k):
            out.append({"video_id": video, "sample": k, "status": "no_face", "reason": "no face was detected"})
        for i, (track, windows) in enumerate(seen.get(k, [])):
            points = rng.uniform(40, 90, (478, 3))
            points[[33, 133, 159, 145], :2] = (52, 55)
            points[[263, 362, 386, 374], :2] = (76, 55)
            points[[61, 291], :2] = (64, 80)
            box = {"x": 40.0, "y": 35.0, "w": 50.0, "h": 60.0, "score": 0.9}
            pose = {"yaw": 1.0, "pitch": 2.0, "roll": 3.0}
            out.append(
                {"video_id": video, "sample": k, "face": i, "verified": True, "track": track, "crop": jpeg.tobytes()}
                | {"is_subject": bool(windows), "subject_of": windows, "landmarks": points.ravel().tolist()}
                | {"blendshapes": rng.uniform(0, 0.9, N_BLENDSHAPES).tolist()}
                | box
                | pose
            )
    return out


def shard() -> MemoryInputs:
    """Three videos: one person throughout two windows but for a gap; two persons that share samples; nobody."""
    lone = {k: [(0, [w for w in (0, 1) if 10 * w <= k < 10 * w + 20])] for k in range(30) if k not in (5, 6)}
    pair = {k: [(0, [0] if k < 20 else []), (1, [1] if k >= 10 else [])] for k in range(30)}
    parts = {"lone": lone, "none": {}, "pair": pair}
    segments = [segment(v, i) | {"first_sample": 10 * i, "samples": 20} for v in parts for i in (0, 1)]
    made = {
        "videos": rows(tables.VIDEOS, [{"video_id": v, "path": v, "sha256": "", "samples": 30} for v in parts]),
        "segments": rows(tables.SEGMENTS, segments),
        "faces": rows(tables.FACES, [row for i, v in enumerate(parts) for row in faces_of(v, 30, parts[v], i)]),
    }
    return MemoryInputs(made)


def run(spec: StageSpec, inputs: MemoryInputs, weights: Path, counters: Counter[str] | None = None) -> pa.Table:
    context = StageContext(PROFILE, File(weights), inputs, Counter() if counters is None else counters)
    out = spec.load()(context)(spec.plan(inputs, PROFILE))
    assert out.schema.equals(spec.table.schema)
    inputs.tables[spec.name] = out.sort_by([(name, "ascending") for name in spec.table.key])
    return inputs.tables[spec.name]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of the right layout with random numbers: the stages do not care what the network says."""
    from tests.unit.branches.test_xception import write_random

    path = tmp_path_factory.mktemp("weights") / "model.hdf5"
    write_random(path)
    return path


@pytest.fixture(scope="module")
def counters() -> Counter[str]:
    return Counter()


@pytest.fixture(scope="module")
def done(network: Path, counters: Counter[str]) -> MemoryInputs:
    """All stages of face_static and the sequence of the temporal branches."""
    inputs = shard()
    run(face.ENCODE, inputs, network, counters)
    for spec in (STATIC.features, STATIC.probabilities, STATIC.samples, face.FACE_EMO_MAMBA.features):
        assert spec is not None
        run(spec, inputs, network)
    return inputs


def by_status(table: pa.Table) -> Counter[tuple[str, str]]:
    return Counter(zip(table["video_id"].to_pylist(), table["status"].to_pylist(), strict=True))


def test_every_sample_has_a_row_and_every_subject_face_one_call(done: MemoryInputs, counters: Counter[str]) -> None:
    encoded = done.tables[face.ENCODE.name]
    keys = set(zip(encoded["video_id"].to_pylist(), encoded["sample"].to_pylist(), strict=True))
    assert keys == {(video, sample) for video in ("lone", "none", "pair") for sample in range(30)}
    expected = {("lone", "ok"): 28, ("lone", "no_face"): 2, ("none", "no_face"): 30, ("pair", "ok"): 40}
    assert by_status(encoded) == expected
    assert counters == {"calls/mini_xception": 68}


def test_windows_and_samples_each_have_a_row_and_say_why_they_have_no_value(done: MemoryInputs) -> None:
    expected = {("lone", "ok"): 2, ("none", "no_face"): 2, ("pair", "ok"): 2}
    for spec in (STATIC.features, STATIC.probabilities, face.FACE_EMO_MAMBA.features):
        assert by_status(done.tables[spec.name]) == expected
    found = done.tables["probabilities/face_static"].to_pylist()
    assert [r["reason"] for r in found if r["video_id"] == "none"] == [
        "20 samples, none with a face of the subject"
    ] * 2
    assert all(r["p_neutral"] is None and r["model"] is None for r in found if r["status"] != "ok")
    samples = done.tables["samples/face_static"]
    assert samples.num_rows == 90
    assert set(samples["faces"].to_pylist()) == {0, 1, 2}


def test_a_window_is_the_mean_of_the_samples_of_its_subject(done: MemoryInputs) -> None:
    samples = {(r["video_id"], r["sample"]): r for r in done.tables["samples/face_static"].to_pylist()}
    windows = {r["segment_id"]: r for r in done.tables["probabilities/face_static"].to_pylist()}
    for i in (0, 1):
        mine = [samples["lone", k] for k in range(10 * i, 10 * i + 20)]
        p = np.array([[r[c] for c in BASIC_COLUMNS] for r in mine if r["status"] == "ok"])
        assert len(p) == (18 if i == 0 else 20)
        found = np.array([windows[f"lone/{i:04d}"][c] for c in BASIC_COLUMNS])
        np.testing.assert_allclose(found, p.mean(axis=0), atol=1e-6)
        assert abs(found.sum() - 1) < 1e-9


def test_windows_with_different_subjects_are_predicted_on_their_own(done: MemoryInputs) -> None:
    size = STATIC.features.table.columns[3].type.list_size
    assert size == len(face.STATIC_FEATURES)
    read = done.tables["features/face_static"].to_pylist()
    first, second = (r["features"] for r in read if r["video_id"] == "pair")
    assert first[face.STATIC_FEATURES.index("faces")] == second[face.STATIC_FEATURES.index("faces")] == 20
    assert not np.allclose(first[:16], second[:16])


def test_the_sequence_keeps_the_place_of_every_sample_and_flags_the_gap(done: MemoryInputs) -> None:
    read = done.tables["features/face_emo_mamba"].to_pylist()
    steps = np.array(next(r["features"] for r in read if r["segment_id"] == "lone/0000")).reshape(
        face.STEPS_PER_WINDOW, -1
    )
    assert steps.shape[1] == len(face.STEP_FEATURES)
    np.testing.assert_array_equal(steps[:, -1], [0 if k in (5, 6) else 1 for k in range(20)])
    table = done.tables["faces"].to_pylist()
    third = next(r for r in table if r["video_id"] == "lone" and r["sample"] == 3)
    np.testing.assert_allclose(steps[3, :N_BLENDSHAPES], third["blendshapes"], rtol=1e-6)
    np.testing.assert_allclose(steps[3, -4:-1], [1, 2, 3])


def test_rows_do_not_depend_on_what_else_is_computed(done: MemoryInputs, network: Path) -> None:
    for spec in (face.ENCODE, STATIC.features, STATIC.probabilities, STATIC.samples):
        assert spec is not None
        plan = spec.plan(done, PROFILE)
        stage = spec.load()(StageContext(PROFILE, File(network), done))
        alone = pa.concat_tables([stage(plan.slice(i, 1)) for i in reversed(range(plan.num_rows))])
        alone = alone.sort_by([(name, "ascending") for name in spec.table.key])
        assert alone.equals(done.tables[spec.name]), spec.name


def test_a_broken_segment_keeps_its_own_status(done: MemoryInputs, network: Path) -> None:
    broken = segment("lone", 0) | {"samples": 0, "status": "undecodable", "reason": "the file is damaged"}
    inputs = MemoryInputs(done.tables | {"segments": rows(tables.SEGMENTS, [broken])})
    found = run(STATIC.features, inputs, network).to_pylist()
    assert [(r["status"], r["reason"]) for r in found] == [("undecodable", "the file is damaged")]
    found = run(STATIC.probabilities, inputs, network).to_pylist()
    assert [(r["status"], r["p_anger"]) for r in found] == [("undecodable", None)]


def test_the_probabilities_of_a_temporal_branch_come_from_its_head(done: MemoryInputs, tmp_path: Path) -> None:
    from cer_pipeline.branches.face import temporal_head as temporal
    from cer_pipeline.zoo.head_file import save_head

    head = temporal.TemporalHead(temporal.Shape(temporal.MAMBA, inputs=len(face.STEP_FEATURES) - 1, hidden=16))
    save_head(tmp_path / "head.safetensors", *temporal.state(head))
    found = run(face.FACE_EMO_MAMBA.probabilities, done, tmp_path / "head.safetensors")
    assert by_status(found) == {("lone", "ok"): 2, ("none", "no_face"): 2, ("pair", "ok"): 2}
    for row in found.to_pylist():
        if row["status"] == "ok":
            assert abs(sum(row[c] for c in BASIC_COLUMNS) - 1) < 1e-9
            assert row["model"] == "head_face_emo_mamba"
