"""The branch scene_label_clip: preprocessing of frames, the match with texts, and its four tables."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cer_pipeline import tables
from cer_pipeline.branches.encoders import clip
from cer_pipeline.branches.encoders.specs import CLIP
from cer_pipeline.branches.scene.label_clip import PUBLISHED_WORDS, LabelMatch, label_match, unit_length
from cer_pipeline.branches.scene.label_clip_specs import ENCODE, FRAMES, NAME, SCENE_LABEL_CLIP
from cer_pipeline.branches.sentences.minilm import load_tokenizer
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.perception.jpeg import decode_jpeg
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageContext, StageSpec
from tests.helpers.media_stages import make
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.helpers.tiny_encoders import tiny_clip_vit_b32

PROMPTS = load_profile("gpu")
PUBLISHED = load_profile("gpu", overrides=["scene_label_clip.variant=published"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / CLIP
    tiny_clip_vit_b32(path)
    return path


class Weights:
    """`stage.Weights` of the tiny CLIP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, model: str) -> Path:
        assert model == CLIP
        return self.folder

    def digest(self, model: str) -> str | None:
        return model


# --- preprocessing ---


def bicubic(x: float) -> float:
    """The cubic convolution kernel with a = -0.5 (Keys 1981), as Pillow has it."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def naive_weights(before: int, after: int) -> np.ndarray:
    """Weights [after, before] of a resize whose kernel is widened where it makes the picture smaller."""
    scale = before / after
    widened = max(scale, 1.0)
    weights = np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * scale
        for j in range(max(0, int(centre - 2 * widened + 0.5)), min(before, int(centre + 2 * widened + 0.5))):
            weights[i, j] = bicubic((j + 0.5 - centre) / widened)
        weights[i] /= weights[i].sum()
    return weights


def naive_preprocess(rgb: np.ndarray, side: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    new_height, new_width = (side, side * width // height) if height <= width else (side * height // width, side)
    rows_first = np.tensordot(naive_weights(width, new_width), rgb.astype(float), (1, 1)).swapaxes(0, 1)
    rows_first = np.clip(np.round(rows_first), 0, 255)
    full = np.clip(np.round(np.tensordot(naive_weights(height, new_height), rows_first, (1, 0))), 0, 255)
    top, left = (new_height - side) // 2, (new_width - side) // 2
    out = np.empty((3, side, side))
    for c in range(3):
        for y in range(side):
            for x in range(side):
                out[c, y, x] = (full[top + y, left + x, c] / 255 - clip.MEAN[c]) / clip.STD[c]
    return out


@pytest.mark.parametrize("size", [(40, 71), (90, 33), (32, 32), (20, 30), (150, 64)])
def test_preprocessing_equals_a_naive_resize_crop_and_standardisation(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    got = clip.preprocess(np.asarray(smooth, np.uint8), 32).numpy()
    assert got.shape == (3, 32, 32) and got.dtype == np.float32
    level = 1 / 255 / min(clip.STD)  # one level of a channel; rounding to whole levels may differ by one
    assert np.abs(got - naive_preprocess(smooth, 32)).max() <= 1.001 * level


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 400))
def test_pictures_of_any_size_become_squares(height: int, width: int) -> None:
    picture = np.full((height, width, 3), (255, 0, 128), np.uint8)
    square = clip.preprocess(picture, 32)
    assert square.shape == (3, 32, 32)
    expected = (np.array([1, 0, 128 / 255]) - clip.MEAN) / clip.STD
    np.testing.assert_allclose(square.numpy(), np.broadcast_to(expected[:, None, None], (3, 32, 32)), atol=1e-5)


@pytest.mark.slow
def test_frames_of_real_clips_are_preprocessed_as_transformers_does(media: Path, tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").symlink_to(media / "WolfgangLanger_Pexels.mp4")
    frames = make(tmp_path, tmp_path / "clips", ("videos", "segments", "frames")).rows("frames", "a")
    for frame in frames[:3]:
        rgb = decode_jpeg(frame["jpeg"])[:, :, ::-1].copy()
        (published,) = CLIPImageProcessorPil()(rgb, return_tensors="np")["pixel_values"]
        assert np.abs(clip.preprocess(rgb).numpy() - published).max() <= 1e-5


# --- the match ---


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([8, 15]))
def test_the_match_equals_a_naive_computation(seed: int, frames: int, texts: int) -> None:
    rng = np.random.default_rng(seed)
    labels, images, scale = unit_length(rng.normal(size=(texts, 5))), rng.normal(size=(frames, 5)), 7.0
    total = [0.0] * 8
    for image in images:
        cosines = [sum(a * b for a, b in zip(image, label, strict=True)) / math.hypot(*image) for label in labels]
        weights = [math.exp(scale * c) for c in cosines]
        for i in range(8):
            total[i] += weights[i] / sum(weights)
    naive = np.array(total) / sum(total)
    np.testing.assert_allclose(LabelMatch(labels, scale).mean(images), naive, atol=1e-12)


def text_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    network, tokenizer = clip.load_model(folder), load_tokenizer(folder, 77)
    with torch.inference_mode():
        made = [
            network.get_text_features(input_ids=torch.tensor([tokenizer.encode(t).ids])).pooler_output[0].numpy()
            for t in texts
        ]
    return np.stack([v / np.linalg.norm(v) for v in made])


def test_an_emotion_has_the_mean_direction_of_its_prompts_and_the_learned_factor(folder: Path) -> None:
    match = label_match(folder, PROMPTS[NAME])
    assert match.scale == pytest.approx(100, rel=1e-3)
    assert match.labels.shape == (8, 512)
    for label, direction in zip(BASIC, match.labels, strict=True):
        mean = text_vectors(folder, PROMPTS[NAME][label.lower()]).mean(0)
        np.testing.assert_allclose(direction, mean / np.linalg.norm(mean), atol=1e-6)
        assert len(PROMPTS[NAME][label.lower()]) == 3


def test_the_published_variant_has_15_words_and_no_factor_and_is_nearly_uniform(folder: Path) -> None:
    match = label_match(folder, PUBLISHED[NAME])
    assert (match.scale, match.labels.shape, len(set(PUBLISHED_WORDS))) == (1.0, (15, 512), 15)
    np.testing.assert_allclose(match.labels, text_vectors(folder, list(PUBLISHED_WORDS)), atol=1e-6)
    # Cosines of 0.20 to 0.30 give 0.066 to 0.073 before the basic part is scaled.
    cosines = np.linspace(0.2, 0.3, 15)
    assert softmax(cosines).min() > 0.063 and softmax(cosines).max() < 0.0704
    p = match.mean(np.random.default_rng(0).normal(size=(4, 512)))
    assert p.sum() == pytest.approx(1) and p.max() < 0.2


# --- the stages ---


def pictures(count: int) -> list[bytes]:
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    return [cv2.imencode(".jpg", cv2.resize(p, (96, 64)))[1].tobytes() for p in small]


def shard() -> MemoryInputs:
    """A video of two windows without its sample 3, and one without pictures."""
    frames = [{"video_id": "a", "sample": k, "jpeg": jpeg} for k, jpeg in enumerate(pictures(26))]
    frames[3] = {"video_id": "a", "sample": 3, "status": "undecodable", "reason": "damaged"}
    frames += [{"video_id": "b", "sample": k, "status": "no_video", "reason": "sound only"} for k in range(20)]
    segments = [segment("a", i) | {"first_sample": 10 * i, "samples": n} for i, n in ((0, 20), (1, 16))]
    segments.append(segment("b", 0) | {"first_sample": 0, "samples": 20})
    return MemoryInputs(
        {
            "videos": rows(tables.VIDEOS, [{"video_id": v, "path": v, "sha256": ""} for v in "ab"]),
            "segments": rows(tables.SEGMENTS, segments),
            "frames": rows(tables.FRAMES, frames),
        }
    )


def run(spec: StageSpec, inputs: MemoryInputs, folder: Path, profile: Profile) -> list[dict]:
    context = StageContext(profile, Weights(folder), inputs, Counter())
    made = spec.load()(context)(spec.plan(inputs, profile)).cast(spec.table.schema)
    inputs.tables[spec.name] = made
    return made.to_pylist()


def all_stages(inputs: MemoryInputs, folder: Path, profile: Profile) -> dict[str, list[dict]]:
    samples = SCENE_LABEL_CLIP.samples
    assert samples is not None
    order = (ENCODE, SCENE_LABEL_CLIP.features, SCENE_LABEL_CLIP.probabilities, samples)
    return {spec.name: run(spec, inputs, folder, profile) for spec in order}


def test_a_window_has_the_mean_of_the_predictions_of_its_frames(folder: Path) -> None:
    made = all_stages(shard(), folder, PROMPTS)
    samples = {(r["video_id"], r["sample"]): r for r in made[f"samples/{NAME}"]}
    assert len(samples) == 46
    assert samples["a", 3]["status"] == "undecodable" and samples["a", 3][BASIC_COLUMNS[0]] is None
    assert all(r["status"] == "no_video" for (video, _), r in samples.items() if video == "b")
    frames = {(r["video_id"], r["sample"]): r["features"] for r in made[FRAMES]}
    for row, known, (first, count) in zip(
        made[f"probabilities/{NAME}"], made[f"features/{NAME}"], ((0, 20), (10, 16)), strict=False
    ):
        own = [("a", k) for k in range(first, first + count) if k != 3]
        naive = np.mean([[samples[k][c] for c in BASIC_COLUMNS] for k in own], axis=0)
        np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], naive, atol=1e-12)
        assert row["model"] == "clip_vit_b32:prompts"
        directions = [np.array(frames[k]) / np.linalg.norm(frames[k]) for k in own]
        np.testing.assert_allclose(known["features"], np.mean(directions, axis=0), atol=1e-6)
    last = made[f"probabilities/{NAME}"][-1]
    assert (last["video_id"], last["status"], last["reason"]) == ("b", "no_video", "sound only")


def test_the_published_variant_scales_the_basic_part_of_the_mean(folder: Path) -> None:
    made = all_stages(shard(), folder, PUBLISHED)
    match = label_match(folder, PUBLISHED[NAME])
    frames = np.array(
        [r["features"] for r in made[FRAMES] if r["video_id"] == "a" and 0 <= r["sample"] < 20 and r["features"]]
    )
    directions = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    basic = softmax(directions @ match.labels.T, axis=1).mean(0)[:8]
    row = made[f"probabilities/{NAME}"][0]
    np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], basic / basic.sum(), atol=1e-12)
    assert row["model"] == "clip_vit_b32:published"


def test_the_settings_of_the_texts_are_not_part_of_the_key_of_the_frame_features() -> None:
    assert ENCODE.config == () and SCENE_LABEL_CLIP.features.config == ()
    assert SCENE_LABEL_CLIP.probabilities.config == (NAME,)


def test_frames_of_a_real_clip_pass_through_all_stages(folder: Path, media: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("face_noface.mov", "audio_only.mp4"):
        (tmp_path / "clips" / name).symlink_to(media / name)
    inputs = MemoryInputs(make(tmp_path, tmp_path / "clips", ("videos", "segments", "frames")).tables)
    made = all_stages(inputs, folder, PROMPTS)
    shown = {
        v: {r["status"] for r in made[f"probabilities/{NAME}"] if r["video_id"] == v}
        for v in ("face_noface", "audio_only")
    }
    assert shown["face_noface"] == {"ok"} and "ok" not in shown["audio_only"]
    assert len(made[FRAMES]) == inputs.tables["frames"].num_rows
