"""EmoAffectNet and CLIP on faces: networks, input, and the stages of Table 1, IDs 1 to 5, on random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from cer_pipeline import tables
from cer_pipeline.branches.encoders.clip import preprocess
from cer_pipeline.branches.face import clip, emoaffectnet
from cer_pipeline.branches.face import specs as face
from cer_pipeline.branches.face.emoaffectnet import EmoAffectNet
from cer_pipeline.branches.face.frame_encoder import box_crop, published_crop
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageContext, StageSpec
from cer_pipeline.torchvision_ops import prepare_torchvision
from cer_pipeline.zoo.state_dict import convert
from tests.helpers.memory_inputs import MemoryInputs, rows, segment
from tests.helpers.tiny_faces import random_emoaffectnet, tiny_clip, tiny_temporal_head
from tests.unit.branches.test_face_branches import faces_of

NEEDS_OPEN_CLIP = pytest.mark.skipif(
    util.find_spec("open_clip") is None, reason="open_clip_torch is not installed: `make install EXTRAS=gpu`"
)
TEMPORAL = (
    face.FACE_EMOAFFECTNET_TRANSFORMER,
    face.FACE_EMOAFFECTNET_MAMBA,
    face.FACE_CLIP_TRANSFORMER,
    face.FACE_CLIP_MAMBA,
)
NATIVE: tuple[str, ...] = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger")  # published code
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def resnet50_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, spelt out from the ResNet-50 of VGGFace2."""
    out: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, norm: str, inputs: int, outputs: int, side: int) -> None:
        out[f"{name}.weight"] = (outputs, inputs, side, side)
        out.update({f"{norm}.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")})
        out[f"{norm}.num_batches_tracked"] = ()

    convolution("conv_layer_s2_same", "batch_norm1", 3, 64, 7)
    inputs = 64
    for layer, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            convolution(f"{at}.conv1", f"{at}.batch_norm1", inputs, width, 1)
            convolution(f"{at}.conv2", f"{at}.batch_norm2", width, width, 3)
            convolution(f"{at}.conv3", f"{at}.batch_norm3", width, 4 * width, 1)
            if block == 0:
                convolution(f"{at}.i_downsample.0", f"{at}.i_downsample.1", inputs, 4 * width, 1)
            inputs = 4 * width
    return out | {"fc1.weight": (512, 2048), "fc1.bias": (512,), "fc2.weight": (7, 512), "fc2.bias": (7,)}


def test_emoaffectnet_has_the_parameters_of_the_published_state_dict() -> None:
    """A ResNet-50 without its last layer has 23,508,032 parameters (torchvision's less 2,049,000); 98.6 MB in all."""
    with torch.device("meta"):
        model = EmoAffectNet()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == resnet50_shapes()
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 23_508_032 + (2048 * 512 + 512) + (512 * 7 + 7)
    held = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert 98.4e6 < held < 98.6e6


def naive_same_convolution(x: NDArray, weight: NDArray, stride: int) -> NDArray:
    """A convolution with TensorFlow's padding "same": ceil(n / stride) places, the odd pixel at the end."""
    size, side = weight.shape[-1], -(-x.shape[-1] // stride)
    before = max((side - 1) * stride + size - x.shape[-1], 0) // 2
    padded = np.zeros((x.shape[0], *(n + 2 * size for n in x.shape[1:])))
    padded[:, before : before + x.shape[1], before : before + x.shape[2]] = x
    out = np.zeros((len(weight), side, side))
    for i in range(side):
        for j in range(side):
            patch = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = (weight * patch).sum(axis=(1, 2, 3))
    return out


@pytest.mark.parametrize("side", [14, 15])
def test_the_first_convolution_pads_as_tensorflow_does(side: int) -> None:
    weight, x = torch.randn(4, 3, 7, 7), torch.randn(1, 3, side, side)
    padded = torch.nn.functional.conv2d(emoaffectnet.pad_same(x, 7, 2, 0.0), weight, stride=2)
    expected = naive_same_convolution(x[0].double().numpy(), weight.double().numpy(), 2)
    np.testing.assert_allclose(padded[0].numpy(), expected, atol=1e-4)


@pytest.mark.slow
def test_emoaffectnet_computes_the_published_network_step_by_step(expression_weights: Path) -> None:
    """Another arrangement of the same formulas: functional calls on the tensors of the file, layer by layer."""
    state, f = load_file(expression_weights), torch.nn.functional

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / torch.sqrt(variance + 1e-3)
        return y * scale[:, None, None] + (state[f"{name}.bias"] - mean * scale)[:, None, None]

    x = emoaffectnet.normalise(torch.from_numpy(picture(224, 224)).permute(2, 0, 1)[None])
    y = f.conv2d(f.pad(x, (2, 3, 2, 3)), state["conv_layer_s2_same.weight"], stride=2)
    y = f.max_pool2d(norm(y, "batch_norm1").clamp(min=0), 3, stride=2)
    assert y.shape == (1, 64, 55, 55)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            z = norm(f.conv2d(y, state[f"{at}.conv1.weight"], stride=stride), f"{at}.batch_norm1").clamp(min=0)
            z = norm(f.conv2d(z, state[f"{at}.conv2.weight"], padding=1), f"{at}.batch_norm2").clamp(min=0)
            z = norm(f.conv2d(z, state[f"{at}.conv3.weight"]), f"{at}.batch_norm3")
            if block == 0:
                y = norm(f.conv2d(y, state[f"{at}.i_downsample.0.weight"], stride=stride), f"{at}.i_downsample.1")
            y = (y + z).clamp(min=0)
    assert y.shape == (1, 2048, 7, 7)
    features = y.mean(dim=(2, 3)) @ state["fc1.weight"].T + state["fc1.bias"]
    logits = features.clamp(min=0) @ state["fc2.weight"].T + state["fc2.bias"]
    with torch.inference_mode():
        found = emoaffectnet.load(expression_weights)(x)
    expected = torch.cat([features, logits], dim=1)
    assert (features < 0).any(), "features before their ReLU"
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(("height", "width"), [(100, 60), (224, 224), (431, 300), (7, 900)])
def test_the_input_of_emoaffectnet_is_nearest_pixels_in_blue_green_red_minus_their_means(
    height: int, width: int
) -> None:
    crop = picture(height, width)
    found = emoaffectnet.normalise(emoaffectnet.prepare(crop)[None])[0].numpy()
    for i, j in ((0, 0), (1, 2), (100, 17), (223, 223), (111, 112)):
        pixel = crop[int((i + 0.5) * height / 224), int((j + 0.5) * width / 224)].astype(np.float64)
        expected = [pixel[2] - 91.4953, pixel[1] - 103.8827, pixel[0] - 131.0912]
        np.testing.assert_allclose(found[:, i, j], expected, atol=1e-4)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    save_file({"fc1.weight": torch.zeros(512, 2048)}, tmp_path / "other.safetensors")
    with pytest.raises(CerError, match="not the weights of EmoAffectNet") as caught:
        emoaffectnet.load(tmp_path / "other.safetensors")
    assert "\n" not in caught.value.line()


@pytest.mark.slow
def test_weights_of_another_clip_model_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    save_file({"logit_scale": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CerError, match="the file lacks") as caught:
        clip.load(folder, "transformers", CPU)
    assert "\n" not in caught.value.line()


def test_the_box_is_cut_with_a_share_of_its_own_size() -> None:
    frame = picture(100, 200)
    row = {"x": 50.0, "y": 20.0, "w": 40.0, "h": 60.0}
    np.testing.assert_array_equal(box_crop(frame, row, 0.0), frame[20:80, 50:90])
    np.testing.assert_array_equal(box_crop(frame, row, 0.1), frame[14:86, 46:94])
    at_border = {"x": -5.0, "y": 90.0, "w": 40.0, "h": 60.0}
    np.testing.assert_array_equal(box_crop(frame, at_border, 0.0), frame[90:100, 0:35])
    outside = {"x": 199.9, "y": 99.9, "w": 0.05, "h": 0.05}
    assert box_crop(frame, outside, 0.0).shape == (1, 1, 3)


def test_the_published_crop_widens_the_box_by_a_share_of_its_coordinates() -> None:
    frame = picture(100, 200)
    row = {"x": 50.7, "y": 29.9, "w": 40.0, "h": 30.0}
    np.testing.assert_array_equal(published_crop(frame, row), frame[27:61, 45:95])


@pytest.mark.slow
def test_clip_has_the_parameters_of_vit_b_32() -> None:
    """151,277,313 parameters (Radford et al. 2021, ViT-B/32), of which the file holds 605,157,884 bytes."""
    prepare_torchvision()
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        whole = CLIPModel(CLIPConfig())
    assert sum(p.numel() for p in whole.parameters()) == 151_277_313
    assert 0 < 605_157_884 - 4 * 151_277_313 < 100_000, "the header of the file"
    assert sum(value.numel() for value in clip.image_tensors(whole).values()) == 87_849_216
    assert whole.vision_model.config.hidden_act == "quick_gelu"


@NEEDS_OPEN_CLIP
@pytest.mark.slow
def test_the_tensors_of_transformers_are_those_of_the_named_model_of_open_clip() -> None:
    prepare_torchvision()
    import open_clip  # pyright: ignore[reportMissingImports]
    from open_clip.transformer import QuickGELU, VisionTransformer  # pyright: ignore[reportMissingImports]

    named: dict[str, Any] = open_clip.get_model_config("ViT-B-32-quickgelu")  # type: ignore[assignment]
    from transformers import CLIPConfig, CLIPModel

    vision = named["vision_cfg"]
    assert (vision["image_size"], vision["layers"], vision["width"], vision["patch_size"]) == (224, 12, 768, 32)
    assert named["quick_gelu"]
    with torch.device("meta"):
        theirs = clip.image_tensors(CLIPModel(CLIPConfig()))
        ours = VisionTransformer(224, 32, 768, 12, 12, 4.0, output_dim=512, act_layer=QuickGELU).state_dict()
    found = clip.renamed(theirs, 12)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in ours.items()}


@NEEDS_OPEN_CLIP
@pytest.mark.slow
def test_open_clip_and_transformers_compute_the_same_features(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    pixels = torch.stack([preprocess(picture(120, 90, seed)) for seed in range(3)])
    with torch.inference_mode():
        first, second = (clip.load(folder, name, CPU).features(pixels) for name in ("transformers", "open_clip"))
    assert first.shape == (3, 512)
    assert float((first[0] - first[1]).abs().max()) > 1e-3, "other pictures have other features"
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_image_encoder_is_that_of_the_whole_clip_model(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    prepare_torchvision()
    from transformers import CLIPModel

    pixels = torch.stack([preprocess(picture(120, 90, seed)) for seed in range(2)])
    with torch.inference_mode():
        whole = CLIPModel.from_pretrained(folder).eval()  # type: ignore[arg-type]
        expected = whole.get_image_features(pixel_values=pixels)
        expected = getattr(expected, "pooler_output", expected)
        found = clip.load(folder, "transformers", CPU).features(pixels)
    torch.testing.assert_close(found, expected)


def test_a_library_that_is_not_installed_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip.util, "find_spec", lambda name: None)
    assert clip.choose_library("auto") == "transformers"
    assert clip.choose_library("transformers") == "transformers"
    with pytest.raises(CerError, match="not installed: open_clip"):
        clip.choose_library("open_clip")


class Files:
    """`stage.Weights` of some files."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def path(self, model: str) -> Path:
        return self._files[model]

    def digest(self, model: str) -> str | None:
        return model if model in self._files else None


class Recorded(MemoryInputs):
    """`stage.Inputs` that note which columns are read."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        assert columns is not None
        self.read.setdefault(name, set()).update(columns)
        return super().table(name, columns)

    def batches(self, name: str, video_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        assert columns is not None
        self.read.setdefault(name, set()).update(columns)
        return super().batches(name, video_id, columns)

    read: dict[str, set[str]]


SAMPLES = 6


def shard() -> Recorded:
    """Three videos: one person but for a gap; two persons, each the subject of a window; nobody."""
    lone = {k: [(0, [0])] for k in range(SAMPLES) if k != 2}
    pair = {k: [(0, [0] if k < 3 else []), (1, [1] if k >= 2 else [])] for k in range(SAMPLES)}
    parts = {"lone": lone, "none": {}, "pair": pair}
    windows = [("lone", 0, 0, 6), ("none", 0, 0, 6), ("pair", 0, 0, 3), ("pair", 1, 2, 4)]
    frames = []
    for number, video in enumerate(parts):
        for k in range(SAMPLES):
            _, jpeg = cv2.imencode(".jpg", picture(160, 200, 10 * number + k))
            frames.append({"video_id": video, "sample": k, "jpeg": jpeg.tobytes()})
    made = Recorded(
        {
            "videos": rows(tables.VIDEOS, [{"video_id": v, "path": v, "sha256": ""} for v in parts]),
            "segments": rows(
                tables.SEGMENTS, [segment(v, i) | {"first_sample": a, "samples": n} for v, i, a, n in windows]
            ),
            "frames": rows(tables.FRAMES, frames),
            "faces": rows(tables.FACES, [r for i, v in enumerate(parts) for r in faces_of(v, SAMPLES, parts[v], i)]),
        }
    )
    made.read = {}
    return made


@pytest.fixture(scope="module")
def expression_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emoaffectnet")
    convert(random_emoaffectnet(folder), folder / "converted.safetensors")
    return folder / "converted.safetensors"


@pytest.fixture(scope="module")
def weights(expression_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("weights")
    heads = {f"head_{b.name}": tiny_temporal_head(folder / f"{b.name}.safetensors", b.name) for b in TEMPORAL}
    return Files({"emoaffectnet": expression_weights, "clip_vit_b32": tiny_clip(folder / "clip"), **heads})


PROFILE = load_profile("paper", overrides=["face_clip.library=transformers"])
FRAMES = (face.ENCODE_EMOAFFECTNET, face.ENCODE_CLIP)
assert face.FACE_EMOAFFECTNET.samples is not None
STATIC = (face.FACE_EMOAFFECTNET.features, face.FACE_EMOAFFECTNET.probabilities, face.FACE_EMOAFFECTNET.samples)


def run(
    spec: StageSpec,
    inputs: MemoryInputs,
    files: Files,
    counters: Counter[str] | None = None,
    profile: Profile = PROFILE,
) -> pa.Table:
    context = StageContext(profile, files, inputs, Counter() if counters is None else counters)
    out = spec.load()(context)(spec.plan(inputs, profile))
    assert out.schema.equals(spec.table.schema)
    inputs.tables[spec.name] = out.sort_by([(name, "ascending") for name in spec.table.key])
    return inputs.tables[spec.name]


@pytest.fixture(scope="module")
def done(weights: Files) -> tuple[Recorded, Counter[str]]:
    """All stages of the five branches."""
    inputs, counters = shard(), Counter()
    parts = [spec for branch in TEMPORAL for spec in (branch.features, branch.probabilities)]
    for spec in (*FRAMES, *STATIC, *parts):
        inputs.read = {}
        run(spec, inputs, weights, counters)
        declared = {name: set(columns) for name, columns in spec.reads.items()}
        key = {"video_id"}  # the column that selects the rows of a video is declared for the lineage
        read = {name: columns | key for name, columns in inputs.read.items()}
        assert read == {name: columns | key for name, columns in declared.items()}, (
            f"{spec.name} declares what it reads"
        )
    return inputs, counters


def statuses(table: pa.Table) -> Counter[tuple[str, str]]:
    return Counter(zip(table["video_id"].to_pylist(), table["status"].to_pylist(), strict=True))


@pytest.mark.slow
def test_every_subject_face_is_encoded_once_and_every_sample_has_a_row(done: tuple[Recorded, Counter[str]]) -> None:
    inputs, counters = done
    for spec in FRAMES:
        expected = {("lone", "ok"): 5, ("lone", "no_face"): 1, ("none", "no_face"): 6, ("pair", "ok"): 7}
        assert statuses(inputs.tables[spec.name]) == expected
        found = [r["features"] for r in inputs.tables[spec.name].to_pylist() if r["status"] == "ok"]
        assert np.isfinite(found).all()
        assert len({tuple(values) for values in found}) == 11, "other boxes have other features"
    assert counters == {"calls/emoaffectnet": 12, "calls/clip": 12}


@pytest.mark.slow
def test_the_features_are_those_of_the_face_in_the_stored_frame(
    done: tuple[Recorded, Counter[str]], weights: Files
) -> None:
    inputs, _ = done
    frame = next(r for r in inputs.tables["frames"].to_pylist() if (r["video_id"], r["sample"]) == ("pair", 4))
    stored = cv2.imdecode(np.frombuffer(frame["jpeg"], np.uint8), cv2.IMREAD_COLOR)
    assert stored is not None
    crop = np.asarray(stored[35:95, 40:90, ::-1], np.uint8).copy()
    with torch.inference_mode():
        expected = emoaffectnet.load(weights.path("emoaffectnet"))(
            emoaffectnet.normalise(emoaffectnet.prepare(crop)[None])
        )
    row = next(
        r
        for r in inputs.tables["face_features/emoaffectnet"].to_pylist()
        if (r["video_id"], r["sample"], r["face"]) == ("pair", 4, 1)
    )
    np.testing.assert_allclose(row["features"], expected[0].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_probabilities_of_a_window_are_the_mean_over_the_samples_of_its_subject(
    done: tuple[Recorded, Counter[str]],
) -> None:
    inputs, _ = done
    windows = {r["segment_id"]: r for r in inputs.tables["probabilities/face_emoaffectnet"].to_pylist()}
    assert {k: r["status"] for k, r in windows.items()} == {
        "lone/0000": "ok",
        "none/0000": "no_face",
        "pair/0000": "ok",
        "pair/0001": "ok",
    }
    encoded = inputs.tables["face_features/emoaffectnet"].to_pylist()
    for key, track, first, count in (("lone/0000", 0, 0, 6), ("pair/0000", 0, 0, 3), ("pair/0001", 1, 2, 4)):
        p = []
        for row in encoded:
            inside = row["video_id"] == key[:4] and row["track"] == track and first <= row["sample"] < first + count
            if inside and row["status"] == "ok":
                e = np.exp(np.array(row["features"][512:]) - max(row["features"][512:]))
                by_label: dict[str, float] = dict(zip(NATIVE, (e / e.sum()).tolist(), strict=True))
                p.append([by_label.get(label, 0.0) for label in BASIC])
        assert len(p) == {"lone/0000": 5, "pair/0000": 3, "pair/0001": 4}[key]
        found = [windows[key][c] for c in BASIC_COLUMNS]
        np.testing.assert_allclose(found, np.mean(p, axis=0), atol=1e-6)
        assert abs(sum(found) - 1) < 1e-9
        assert windows[key]["p_other"] == 0
        assert windows[key]["model"] == "emoaffectnet"


@pytest.mark.slow
def test_every_sample_has_the_mean_over_its_subjects(done: tuple[Recorded, Counter[str]]) -> None:
    inputs, _ = done
    samples = inputs.tables["samples/face_emoaffectnet"].to_pylist()
    assert [r["faces"] for r in samples if r["video_id"] == "pair"] == [1, 1, 2, 1, 1, 1]
    assert Counter(r["status"] for r in samples) == {"ok": 11, "no_face": 7}
    assert all(abs(sum(r[c] for c in BASIC_COLUMNS) - 1) < 1e-9 for r in samples if r["status"] == "ok")


@pytest.mark.parametrize("branch", TEMPORAL, ids=lambda b: b.name)
@pytest.mark.slow
def test_a_sequence_holds_the_features_of_each_sample_and_flags_the_gap(
    done: tuple[Recorded, Counter[str]], branch: Any
) -> None:
    inputs, _ = done
    rows_ = {r["segment_id"]: r for r in inputs.tables[branch.features.name].to_pylist()}
    steps = np.array(rows_["lone/0000"]["features"]).reshape(20, 513)
    np.testing.assert_array_equal(steps[:, -1], [k < 6 and k != 2 for k in range(20)])
    assert not steps[steps[:, -1] == 0].any()
    encoder = "emoaffectnet" if "emoaffectnet" in branch.name else "clip"
    third = next(
        r for r in inputs.tables[f"face_features/{encoder}"].to_pylist() if (r["video_id"], r["sample"]) == ("lone", 3)
    )
    np.testing.assert_array_equal(steps[3, :-1], third["features"][:512])
    assert rows_["none/0000"]["status"] == "no_face"


@pytest.mark.parametrize("branch", TEMPORAL, ids=lambda b: b.name)
@pytest.mark.slow
def test_a_head_predicts_every_window_with_a_face(done: tuple[Recorded, Counter[str]], branch: Any) -> None:
    inputs, _ = done
    found = inputs.tables[branch.probabilities.name].to_pylist()
    assert [r["status"] for r in found] == ["ok", "no_face", "ok", "ok"]
    for row in found:
        if row["status"] == "ok":
            assert abs(sum(row[c] for c in BASIC_COLUMNS) - 1) < 1e-9
            assert row["model"] == f"head_{branch.name}"


@pytest.mark.slow
def test_rows_do_not_depend_on_what_else_is_computed(done: tuple[Recorded, Counter[str]], weights: Files) -> None:
    inputs, _ = done
    for spec in (face.ENCODE_CLIP, *STATIC, *(branch.probabilities for branch in TEMPORAL)):
        plan = spec.plan(inputs, PROFILE)
        stage = spec.load()(StageContext(PROFILE, weights, inputs))
        alone = pa.concat_tables([stage(plan.slice(i, 1)) for i in reversed(range(plan.num_rows))])
        alone = alone.sort_by([(name, "ascending") for name in spec.table.key])
        assert alone.equals(inputs.tables[spec.name]), spec.name


@pytest.mark.parametrize("other", ["face_clip_transformer", "face_emo_mamba"])
@pytest.mark.slow
def test_a_head_that_was_trained_for_other_features_is_refused_in_one_line(
    done: tuple[Recorded, Counter[str]], tmp_path: Path, other: str
) -> None:
    inputs, _ = done
    spec = face.FACE_CLIP_MAMBA.probabilities
    file = tiny_temporal_head(tmp_path / "head.safetensors", other)
    with pytest.raises(
        CerError, match=f"trained for other features: {other}.*run `cer train face_clip_mamba`"
    ) as caught:
        spec.load()(StageContext(PROFILE, Files({"head_face_clip_mamba": file}), inputs))
    assert "\n" not in caught.value.line()


@pytest.mark.slow
def test_the_published_crop_is_a_setting_of_emoaffectnet(weights: Files) -> None:
    inputs = shard()
    published = load_profile("paper", overrides=["emoaffectnet.crop=published"])
    one = MemoryInputs({**inputs.tables, "videos": inputs.tables["videos"].slice(0, 1)})
    box = run(face.ENCODE_EMOAFFECTNET, one, weights).to_pylist()
    wide = run(face.ENCODE_EMOAFFECTNET, one, weights, profile=published).to_pylist()
    assert [r["status"] for r in box] == [r["status"] for r in wide]
    assert box[0]["features"] != wide[0]["features"]
