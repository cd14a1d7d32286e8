"""YOLO11n-face: its input and output against naive versions, the two libraries that run it, and the stage with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cer_pipeline import tables
from cer_pipeline.branches.face.specs import ENCODE
from cer_pipeline.errors import CerError
from cer_pipeline.perception.faces import yolo
from cer_pipeline.perception.faces.detector import Box, CenterFace, suppress
from cer_pipeline.perception.faces.yolo import SIDE, Ultralytics, Yolo, decode, in_picture, letterbox
from cer_pipeline.perception.specs import faces_stage
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageContext
from cer_pipeline.store.fingerprint import stage_fingerprint
from cer_pipeline.zoo import Zoo
from tests.helpers.memory_inputs import MemoryInputs, NoWeights, rows, segment
from tests.helpers.tiny_yolo import CELLS, tiny_yolo

RULES = {"score": 0.5, "overlap": 0.5, "smallest": 1}
NEEDS_ULTRALYTICS = pytest.mark.skipif(
    util.find_spec("ultralytics") is None, reason="ultralytics is not installed: `make install EXTRAS=gpu`"
)
TOLERANCE_PX = 0.01  # ultralytics computes places in single precision: 1e-4 of a pixel at 1000 pixels, in a few steps


def scene(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of smooth random patches, in which the tiny detector finds boxes."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_yolo(tmp_path_factory.mktemp("yolo"))


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_a_picture_is_scaled_to_fit_and_placed_in_the_middle_of_a_grey_square(height: int, width: int) -> None:
    square, place = letterbox(np.full((height, width, 3), 9, np.uint8))
    assert square.shape == (SIDE, SIDE, 3)
    assert max(place.width, place.height) == SIDE
    assert abs(place.width / width - place.height / height) * min(width, height) <= 1
    inside = np.zeros((SIDE, SIDE), bool)
    inside[place.top : place.top + place.height, place.left : place.left + place.width] = True
    assert (square[inside] == 9).all()
    assert (square[~inside] == 114).all()
    assert 0 <= SIDE - place.width - 2 * place.left <= 1
    assert 0 <= SIDE - place.height - 2 * place.top <= 1


def test_the_picture_itself_is_resized_by_bilinear_interpolation() -> None:
    picture = scene(90, 160)
    square, place = letterbox(picture)
    assert (place.width, place.height, place.left, place.top) == (640, 360, 0, 140)
    for row, column in ((0, 0), (13, 77), (200, 401), (359, 639)):
        y, x = (np.clip((v + 0.5) / 4 - 0.5, 0, n - 1) for v, n in ((row, 90), (column, 160)))
        top, left = int(y), int(x)
        bottom, right = min(top + 1, 89), min(left + 1, 159)
        upper = picture[top, left] * (1 - (x - left)) + picture[top, right] * (x - left)
        lower = picture[bottom, left] * (1 - (x - left)) + picture[bottom, right] * (x - left)
        np.testing.assert_allclose(square[140 + row, column], upper * (1 - (y - top)) + lower * (y - top), atol=1)


def naive_boxes(output: NDArray, score: float, overlap: float) -> list[tuple[float, ...]]:
    """(x1, y1, x2, y2, score) of the boxes that remain, strongest first: each cell on its own, each pair on its own."""
    found = []
    for k in range(output.shape[1]):
        x, y, w, h, s = (float(v) for v in output[:, k])
        if s > score:
            found.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2, s))
    found.sort(key=lambda box: -box[4])
    kept: list[tuple[float, ...]] = []
    for a in found:
        free = True
        for b in kept:
            across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            if across * down / (areas - across * down) > overlap:
                free = False
        if free:
            kept.append(a)
    return kept


def random_output(seed: int, cells: int = 400) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 640, (2, cells))
    return np.concatenate([places, rng.uniform(10, 200, (2, cells)), rng.uniform(0, 1, (1, cells))]).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_decoding_and_suppression_equal_a_naive_version(seed: int) -> None:
    output = random_output(seed)
    expected = naive_boxes(output, 0.4, 0.5)
    sides, scores = decode(output, 0.4)
    kept = suppress([Box(*s, score=p) for s, p in zip(sides.tolist(), scores.tolist(), strict=True)], 0.5)
    assert 10 < len(expected) < (output[4] > 0.4).sum()
    found = [(b.x, b.y, b.x + b.w, b.y + b.h, b.score) for b in kept]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (1080, 1920), (300, 200), (37, 641)])
def test_a_box_is_mapped_back_to_where_it_is_in_the_picture(height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    square, place = letterbox(picture)
    assert square.shape == (SIDE, SIDE, 3)
    left, top, w, h = 0.25 * width, 0.5 * height, 0.5 * width, 0.25 * height
    across, down = place.width / width, place.height / height
    inside = Box(place.left + left * across, place.top + top * down, w * across, h * down, 0.9)
    (found,) = in_picture([inside], place, picture, 1)
    np.testing.assert_allclose((found.x, found.y, found.w, found.h), (left, top, w, h), rtol=1e-6)
    beyond = Box(place.left - 50, place.top - 50, 100, 100, 0.9)
    (corner,) = in_picture([beyond], place, picture, 1)
    assert (corner.x, corner.y) == (0, 0)
    assert (corner.w, corner.h) == pytest.approx((min(width, 50 / across), min(height, 50 / down)), rel=1e-6)
    assert in_picture([inside], place, picture, h + 1) == []


def test_faces_are_found_largest_first_within_the_picture(model: Path) -> None:
    picture = scene(270, 480)
    (boxes,) = Yolo(model, **RULES)([picture])
    assert len(boxes) > 5
    assert [b.area for b in boxes] == sorted((b.area for b in boxes), reverse=True)
    assert all(b.x >= 0 and b.x + b.w <= 480.001 and b.y >= 0 and b.y + b.h <= 270.001 for b in boxes)
    assert all(b.score > 0.5 and b.keypoints == () for b in boxes)


def test_the_whole_detector_equals_a_naive_version(model: Path) -> None:
    import onnxruntime

    picture = scene(270, 480)
    (found,) = Yolo(model, **RULES)([picture])
    square, _ = letterbox(picture)
    blob = np.array([[square[:, :, c] / 255 for c in range(3)]], np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    output = np.asarray(session.run(None, {"images": blob})[0])
    assert output.shape == (1, 5, CELLS)
    expected = []
    for x1, y1, x2, y2, s in naive_boxes(output[0], 0.5, 0.5):
        left, right = (min(max(v * 480 / 640, 0), 480) for v in (x1, x2))
        top, bottom = (min(max((v - 140) * 270 / 360, 0), 270) for v in (y1, y2))
        if bottom - top >= 1 and right > left:
            expected.append((left, top, right - left, bottom - top, s))
    expected.sort(key=lambda b: -b[2] * b[3])
    np.testing.assert_allclose([(*b.rectangle, b.score) for b in found], expected, atol=1e-3)


def test_a_picture_has_the_same_boxes_in_any_batch(model: Path) -> None:
    pictures = [scene(270, 480, 1), scene(400, 300, 2), scene(270, 480, 3)]
    together = Yolo(model, batch=2, **RULES)(pictures)
    alone = [boxes for picture in pictures for boxes in Yolo(model, **RULES)([picture])]
    assert [len(boxes) for boxes in together] == [len(boxes) for boxes in alone]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose([x.rectangle for x in a], [x.rectangle for x in b], atol=1e-3)


def test_a_file_with_a_fixed_batch_is_called_once_a_picture(tmp_path: Path, model: Path) -> None:
    pictures = [scene(270, 480, 1), scene(270, 480, 2)]
    fixed = Yolo(tiny_yolo(tmp_path, fixed_batch=True), batch=32, **RULES)
    assert fixed(pictures) == Yolo(model, **RULES)(pictures)


@NEEDS_ULTRALYTICS
@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(270, 480), (401, 333), (1080, 1920), (64, 48)])
def test_ultralytics_finds_the_same_boxes(model: Path, height: int, width: int) -> None:
    pictures = [scene(height, width, seed) for seed in range(2)]
    own, other = Yolo(model, **RULES)(pictures), Ultralytics(model, **RULES)(pictures)
    assert sum(map(len, own)) > 5
    for a, b in zip(own, other, strict=True):
        assert len(a) == len(b)
        np.testing.assert_allclose([x.rectangle for x in a], [x.rectangle for x in b], atol=TOLERANCE_PX)
        np.testing.assert_allclose([x.score for x in a], [x.score for x in b], atol=1e-6)


@NEEDS_ULTRALYTICS
@pytest.mark.slow
def test_ultralytics_opens_no_connection_and_writes_to_a_temporary_folder_only(model: Path, tmp_path: Path) -> None:
    code = f"""
import os, socket, sys
from pathlib import Path
def refuse(*_, **__): raise SystemExit("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from cer_pipeline.perception.faces.yolo import Ultralytics
Ultralytics(Path({str(model)!r}), score=0.5, overlap=0.5, smallest=1)([np.zeros((64, 64, 3), np.uint8)])
assert not os.environ["YOLO_CONFIG_DIR"].startswith({str(tmp_path)!r})
print(os.environ["YOLO_CONFIG_DIR"])
"""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir() if p.name != ".cache"] == []
    assert not Path(done.stdout.strip()).exists(), "the folder goes with the process"


def test_without_the_package_one_line_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo.util, "find_spec", lambda name: None)
    with pytest.raises(CerError) as caught:
        Ultralytics(model, **RULES)
    assert "ultralytics" in caught.value.line()
    assert "pip install" in caught.value.line()
    assert "\n" not in caught.value.line()


class WithYolo:
    """`stage.Weights`: the real zoo, and a file for yolo_face."""

    def __init__(self, zoo: Zoo, file: Path) -> None:
        self._zoo, self._file = zoo, file

    def path(self, model: str) -> Path:
        return self._file if model == "yolo_face" else self._zoo.path(model)

    def digest(self, model: str) -> str | None:
        return self._file.name if model == "yolo_face" else self._zoo.digest(model)


@pytest.mark.slow
def test_the_stage_verifies_the_boxes_of_yolo_by_the_mesh(
    weights: Zoo, detector: CenterFace, picture: Callable[[str, float], NDArray[np.uint8]], tmp_path: Path
) -> None:
    shown = picture("talking_1.mp4", 1.0)
    face = detector(shown)[0]
    _, place = letterbox(shown)
    gain = place.width / shown.shape[1]
    centre = (face.x + face.w / 2) * gain + place.left, (face.y + face.h / 2) * gain + place.top
    boxes = [(*centre, face.w * gain, face.h * gain), (place.left + 15, place.top + 15, 30, 30)]
    file = tiny_yolo(tmp_path, boxes)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
    frames = [{"video_id": "v", "sample": k, "jpeg": encoded.tobytes(), "status": "ok"} for k in range(3)]
    frames[1] |= {"jpeg": None, "status": "undecodable", "reason": "damaged"}
    window = segment("v", 0) | {"first_sample": 0, "samples": 3}
    inputs = MemoryInputs(
        {
            "videos": rows(tables.VIDEOS, [{"video_id": "v", "path": "v", "sha256": ""}]),
            "frames": rows(tables.FRAMES, frames),
            "segments": rows(tables.SEGMENTS, [window]),
        }
    )
    profile = load_profile(overrides=["faces.detector=yolo"])
    spec = faces_stage(profile)
    context = StageContext(profile, WithYolo(weights, file), inputs)
    found = spec.load()(context)(spec.plan(inputs, profile)).cast(spec.table.schema).to_pylist()
    assert [(row["sample"], row["status"]) for row in found] == [
        (0, "ok"),
        (0, "no_face"),
        (1, "undecodable"),
        (2, "ok"),
        (2, "no_face"),
    ]
    first = found[0]
    np.testing.assert_allclose([first[c] for c in "xywh"], face.rectangle, atol=0.5)
    assert first["keypoints"] is None
    assert len(first["landmarks"]) == 478 * 3
    assert first["subject_of"] == [0]
    assert context.counters == {"calls/yolo_face": 2, "calls/face_landmarker": 4}


def test_the_choice_of_a_detector_changes_the_weights_and_the_key_of_the_stage_and_no_other_key() -> None:
    profiles = {
        name: load_profile(overrides=[f"faces.detector={name}"]) for name in ("centerface", "yolo", "ultralytics")
    }
    specs = {name: faces_stage(profile) for name, profile in profiles.items()}
    assert specs["centerface"] is faces_stage(load_profile())
    assert [specs[name].models[0] for name in profiles] == ["centerface", "yolo_face", "yolo_face"]
    keys = {stage_fingerprint(specs[name], profile, NoWeights()) for name, profile in profiles.items()}
    assert len(keys) == 3
    assert len({stage_fingerprint(ENCODE, profile, NoWeights()) for profile in profiles.values()}) == 1


def test_the_key_of_the_default_detector_does_not_hold_the_name_of_the_detector() -> None:
    profile = load_profile()
    before = {key: value for key, value in profile["faces"].items() if key != "detector"}
    without = Profile(profile.name, {**profile.sections, "faces": before})
    spec = faces_stage(profile)
    assert stage_fingerprint(spec, profile, NoWeights()) == stage_fingerprint(spec, without, NoWeights())
    assert (spec.code_version, spec.models, spec.config) == ("2", ("centerface", "face_landmarker"), ("faces",))


def test_the_profiles_of_the_paper_and_of_a_gpu_detect_with_yolo() -> None:
    assert {name: faces_stage(load_profile(name)).models[0] for name in ("embedded", "gpu", "paper")} == {
        "embedded": "centerface",
        "gpu": "yolo_face",
        "paper": "yolo_face",
    }
