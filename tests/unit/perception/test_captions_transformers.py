"""The captioner `transformers`: the published models by their shapes, the real stage by tiny ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.perception.captions.qwen_vl import model as qwen_vl
from cer_pipeline.perception.captions.qwen_vl.model import Question, QwenVL, load
from cer_pipeline.perception.captions.registry import QWEN_VL, captioner_of
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageContext
from cer_pipeline.store.fingerprint import stage_fingerprint
from cer_pipeline.zoo.entries import load_entries
from tests.helpers.media_stages import make
from tests.helpers.memory_inputs import MemoryInputs, NoWeights, rows, segment
from tests.helpers.tiny_qwen import SENTENCE, tiny_qwen

CLIPS = Path(__file__).resolve().parents[4] / "shared" / "data" / "media"
Shape = tuple[int, ...]


class Folder:
    """`stage.Weights` of one folder for every model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, model: str) -> Path:
        return self.folder

    def digest(self, model: str) -> str:
        return f"{model} {self.folder}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_qwen(root / name, name) for name in ("qwen25_vl_3b", "qwen25_vl_7b", "qwen3_vl_4b")}


@pytest.fixture(autouse=True)
def one_model_a_test() -> Iterator[None]:
    yield
    load.cache_clear()


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# The published models


def qwen25(hidden: int, feed: int, layers: int, heads: int, keys: int, words: int, tied: bool, vision: int) -> Any:
    """Names and shapes of a Qwen2.5-VL without memory for its values, from the numbers of its config.json."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    eyes = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": vision,
        "num_heads": 16,
        "out_hidden_size": hidden,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    config_json: dict[str, Any] = dict(  # noqa: C408
        vision_config=eyes,
        hidden_size=hidden,
        intermediate_size=feed,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=words,
        tie_word_embeddings=tied,
        rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
    )
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config_json))


PUBLISHED = {
    "qwen25_vl_3b": (2048, 11008, 36, 16, 2, 151936, True, 3420),
    "qwen25_vl_7b": (3584, 18944, 28, 28, 4, 152064, False, 3420),
    "qwen25_vl_32b": (5120, 27648, 64, 40, 8, 152064, False, 3456),
}
"""Numbers of config.json: hidden and feed-forward size, layers, heads, key heads, tokens, tied; vision feed-forward."""


def in_published_order(names: dict[str, Shape]) -> list[tuple[str, Shape]]:
    """Tensors in the order in which Qwen's own files hold them: vision first, then layer by layer."""
    parts = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")

    def place(item: tuple[str, Shape]) -> tuple[int, ...]:
        first, *name = item[0].split(".")
        if first == "visual":
            return (0,)
        if name[0] == "layers":
            return (2, int(name[1]), parts.index(name[2]))
        return (1,) if name[0] == "embed_tokens" else (3,) if name[0] == "norm" else (4,)

    return sorted(names.items(), key=place)


def file_sizes(tensors: list[tuple[str, Shape]], largest: int) -> list[int]:
    """Sizes of safetensors files of at most `largest` bytes of bfloat16 values: length, header, values."""
    files: list[dict[str, Shape]] = [{}]
    for name, shape in tensors:
        if sum(2 * int(np.prod(s)) for s in [*files[-1].values(), shape]) > largest:
            files.append({})
        files[-1][name] = shape
    sizes = []
    for file in files:
        end: int = 0
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for name in sorted(file):
            start, end = end, end + 2 * int(np.prod(file[name]))
            header[name] = {"dtype": "BF16", "shape": list(file[name]), "data_offsets": [start, end]}
        length = len(json.dumps(header, separators=(",", ":")))
        sizes.append(8 + length + -length % 8 + end)
    return sizes


@pytest.mark.parametrize("name", ["qwen25_vl_3b", "qwen25_vl_7b"])
def test_files_of_these_names_and_shapes_have_the_published_sizes_to_the_byte(name: str) -> None:
    # The header of a safetensors file lists each tensor's name, type, shape and place, so its length depends on all.
    shapes = {k: tuple(v.shape) for k, v in qwen25(*PUBLISHED[name]).state_dict().items()}
    old = {
        k.replace("model.visual.", "visual.").replace("model.language_model.", "model."): v for k, v in shapes.items()
    }
    if name == "qwen25_vl_3b":
        old.pop("lm_head.weight")  # tied to the embedding
    published = [f.bytes for f in load_entries()[name].files if f.name.endswith(".safetensors")]
    assert file_sizes(in_published_order(old), 4 * 10**9) == published


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [  # half of `total_size` in the published indices: 7,509,245,952, 16,584,333,312 and 66,905,436,672 bytes
        ("qwen25_vl_3b", 3_754_622_976, 824),
        ("qwen25_vl_7b", 8_292_166_656, 729),
        ("qwen25_vl_32b", 33_452_718_336, 1161),
    ],
)
def test_the_published_models_have_their_number_of_parameters(name: str, parameters: int, tensors: int) -> None:
    model = qwen25(*PUBLISHED[name])
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(dict(model.named_parameters())) == tensors


def test_qwen3_vl_4b_has_its_number_of_parameters() -> None:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    }
    eyes = {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "deepstack_visual_indexes": [5, 11, 17],
        "num_position_embeddings": 2304,
    }
    with torch.device("meta"):
        config = Qwen3VLConfig(text_config=text, vision_config=eyes, tie_word_embeddings=True)
        model = Qwen3VLForConditionalGeneration(config)
    assert sum(p.numel() for p in model.parameters()) == 4_437_815_808  # the hub's count for Qwen3-VL-4B-Instruct


def test_the_models_of_the_registry_are_those_of_the_zoo() -> None:
    zoo = load_entries()
    assert {name: zoo[name].sources[0].repository for name in QWEN_VL} == QWEN_VL  # type: ignore[union-attr]


# Preprocessing


def naive_patches(picture: NDArray[np.uint8], patch: int, mean: list[float], std: list[float]) -> NDArray[np.float64]:
    """Patches of a picture, one by one: whole blocks of 2 x 2 patches after the resize, each twice in time."""
    unit = 2 * patch
    height, width = picture.shape[:2]
    rows_, columns = round(height / unit) * unit, round(width / unit) * unit
    if rows_ * columns < 3136:
        scale = (3136 / (height * width)) ** 0.5
        rows_, columns = (int(np.ceil(side * scale / unit)) * unit for side in (height, width))
    resized = np.asarray(Image.fromarray(picture).resize((columns, rows_), Image.Resampling.BICUBIC), float)
    values = (resized / 255 - mean) / std
    out = []
    for y in range(0, rows_, unit):
        for x in range(0, columns, unit):
            for dy in (0, patch):
                for dx in (0, patch):
                    block = values[y + dy : y + dy + patch, x + dx : x + dx + patch]
                    out.append(np.concatenate([np.stack([block[..., c]] * 2).ravel() for c in range(3)]))
    return np.stack(out)


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("size", [(252, 448), (60, 100), (20, 31), (448, 336), (41, 43)])
@pytest.mark.parametrize("name", ["qwen25_vl_7b", "qwen3_vl_4b"])
def test_pictures_become_the_patches_of_a_naive_version(
    name: str, size: tuple[int, int], folders: dict[str, Path]
) -> None:
    model = QwenVL(folders[name], "cpu", "float32")
    settings = json.loads((folders[name] / "preprocessor_config.json").read_text())
    made = model.inputs([Question([smooth(*size)], "What?")])
    naive = naive_patches(smooth(*size), settings["patch_size"], settings["image_mean"], settings["image_std"])
    assert np.abs(made["pixel_values"].numpy() - naive).max() < 1e-5
    assert made["image_grid_thw"].prod() == len(naive)
    assert made["mm_token_type_ids"].sum() == len(naive) // 4


def test_a_picture_of_more_pixels_than_the_model_takes_is_shrunk(tmp_path: Path) -> None:
    folder = tiny_qwen(tmp_path / "m")
    changed(folder / "preprocessor_config.json", max_pixels=28 * 28 * 20)
    grid = QwenVL(folder, "cpu", "float32").inputs([Question([smooth(270, 480)], "?")])["image_grid_thw"]
    assert grid.tolist() == [[1, 6, 10]]  # of 28 x 28 pixels at most 20, in the ratio of the sides: 3 x 5


def test_the_question_is_in_the_form_of_the_chat_template(folders: dict[str, Path]) -> None:
    model = QwenVL(folders["qwen25_vl_7b"], "cpu", "float32")
    ids = model.inputs([Question([smooth(56, 56), smooth(56, 84)], "What is it?")])["input_ids"][0]
    text = model._tokenizer.decode(ids)
    begin, end, pad = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
    assert text == (
        f"<|im_start|>user\n{begin}{pad * 4}{end}{begin}{pad * 6}{end}What is it?<|im_end|>\n<|im_start|>assistant\n"
    )


# Answers


@pytest.mark.parametrize("name", ["qwen25_vl_3b", "qwen3_vl_4b"])
def test_an_answer_does_not_depend_on_the_padding_of_its_batch(name: str, folders: dict[str, Path]) -> None:
    model = QwenVL(folders[name], "cpu", "float32")
    questions = [Question([smooth(56, 56, k) for k in range(n)], "What?" * n) for n in (1, 3)]
    alone, batch = model.inputs(questions[:1]), model.inputs(questions)
    assert batch["attention_mask"].sum(1).tolist()[0] < batch["input_ids"].shape[1]
    first, both = (
        model._model.generate(
            **i, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        ).logits
        for i in (alone, batch)
    )
    assert all(torch.allclose(a[0], b[0], atol=1e-4) for a, b in zip(first, both, strict=True))
    assert [r.text for r in model._generate(questions, 30)] == [SENTENCE, SENTENCE]
    dark = model.inputs([Question([np.zeros_like(smooth(56, 56))], "What?")])
    assert not torch.allclose(model._model(**dark).logits[:, -1], model._model(**alone).logits[:, -1], atol=1e-4)


def test_a_batch_that_does_not_fit_is_halved_and_one_window_that_does_not_is_one_line(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = QwenVL(folders["qwen25_vl_7b"], "cpu", "float32")
    model._device = "cuda"
    sizes: list[int] = []

    def fits(most: int) -> None:
        def generate(questions: Any, _: int) -> list[Any]:
            sizes.append(len(questions))
            if len(questions) > most:
                raise torch.OutOfMemoryError
            return list(questions)

        monkeypatch.setattr(model, "_generate", generate)

    fits(2)
    asked: list[Any] = list(range(7))
    assert model.answer(asked, 9, 8) == (asked, 2)
    assert sizes == [7, 4, 2, 2, 2, 1]
    fits(0)
    with pytest.raises(CerError, match="one window does not fit into the memory of the GPU: cuda - lower"):
        model.answer(asked, 9, 4)


# What cannot be loaded


def without(folder: Path, name: str) -> None:
    for file in folder.glob("*.safetensors"):
        save_file({k: v for k, v in load_file(file).items() if k != name}, file, metadata={"format": "pt"})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"].pop(name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            lambda f: without(f, "model.layers.1.mlp.up_proj.weight"),
            r"1 tensors are not those of the model, model\..*up_proj",
        ),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
            "the model is a bert, not one of qwen2_5_vl",
        ),
        (lambda f: (f / "config.json").write_text("{"), "the model cannot be loaded"),
        (lambda f: (f / "chat_template.json").write_text("{}"), "the model cannot be loaded"),
        (lambda f: changed(f / "config.json", image_token_id=3), "the tokenizer is not that of the model"),
        (lambda f: (f / "model-00002-of-00005.safetensors").write_bytes(b"\0" * 99), "the model cannot be loaded"),
    ],
    ids=["tensor", "class", "config", "template", "tokenizer", "weights"],
)
def test_a_folder_of_other_files_is_one_line(damage: Any, line: str, tmp_path: Path) -> None:
    folder = tiny_qwen(tmp_path / "m")
    damage(folder)
    with pytest.raises(CerError, match=line) as caught:
        QwenVL(folder, "cpu", "float32")
    assert "\n" not in caught.value.line()


# The stage


def profile(*overrides: str) -> Profile:
    small = ("execution.device=cpu", "captions_transformers.picture_px=56", "captions_transformers.max_tokens=30")
    return load_profile(overrides=["captions.backend=transformers", *small, *overrides])


def captions(chosen: Profile, inputs: MemoryInputs, folder: Path) -> tuple[list[dict[str, Any]], Counter[str]]:
    spec = captions_stage(chosen)
    context = StageContext(profile=chosen, weights=Folder(folder), inputs=inputs)
    table = spec.load()(context)(spec.plan(inputs, chosen))
    assert table.schema.equals(tables.CAPTIONS.schema)
    return table.to_pylist(), context.counters


def shard(windows: int = 2, status: str = "ok") -> MemoryInputs:
    segments = [
        segment("v", i) | {"start_s": 2.0 * i, "end_s": 2.0 * i + 4, "first_sample": 10 * i, "samples": 20}
        for i in range(windows)
    ]
    jpeg = cv2.imencode(".jpg", smooth(45, 80))[1].tobytes() if status == "ok" else None
    frames = [
        {"video_id": "v", "sample": k, "time_s": k / 5, "height": 45, "jpeg": jpeg, "status": status}
        for k in range(10 * windows + 10)
    ]
    return MemoryInputs({"segments": rows(tables.SEGMENTS, segments), "frames": rows(tables.FRAMES, frames)})


@pytest.mark.parametrize(("name", "view"), [("qwen25_vl_3b", "qwen2.5-vl-3b"), ("qwen3_vl_4b", "qwen3-vl-4b")])
def test_every_window_and_prompt_has_a_caption(name: str, view: str, folders: dict[str, Path]) -> None:
    made, counters = captions(profile(f"captions_transformers.model={name}"), shard(), folders[name])
    assert [(r["segment"], r["view"], r["prompt"], r["model"], r["text"], r["status"]) for r in made] == [
        (i, f"{view}_{prompt}", f"{prompt}/1", QWEN_VL[name], SENTENCE, "ok")
        for i in range(2)
        for prompt in ("prompt1", "prompt2")
    ]
    assert counters[f"calls/{name}"] == counters["captions/ok"] == 4
    assert counters["captions/completion_tokens"] == 4 * 17


def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    made, _ = captions(profile(), shard(1), tiny_qwen(tmp_path / "m", ends=False))
    assert {(r["status"], r["reason"][:8]) for r in made} == {("no_caption", "cut_off:")}


def test_a_window_without_pictures_is_not_asked_about(folders: dict[str, Path]) -> None:
    made, counters = captions(profile(), shard(1, "no_video"), folders["qwen25_vl_7b"])
    assert {(r["status"], r["reason"]) for r in made} == {("no_video", "the window has no picture")}
    assert not counters["calls/qwen25_vl_7b"]


def test_the_model_is_loaded_once_a_process_and_in_the_precision_of_the_profile(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[QwenVL] = []

    class Recorded(QwenVL):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(qwen_vl, "QwenVL", Recorded)
    for _ in range(2):
        captions(profile(), shard(1), folders["qwen25_vl_7b"])
    assert [m._model.dtype for m in made] == [torch.bfloat16]


def test_settings_that_change_captions_change_the_key_and_the_device_does_not() -> None:
    def key(*overrides: str) -> str:
        chosen = profile(*overrides)
        return stage_fingerprint(captions_stage(chosen), chosen, NoWeights())

    assert captions_stage(profile()).models == ("qwen25_vl_7b",)
    assert key() == key("execution.batch=2", "execution.device=auto")
    for changed in ("model=qwen3_vl_4b", "prompts=['prompt2']", "picture_px=112", "max_tokens=9", "precision=float32"):
        assert key() != key(f"captions_transformers.{changed}")


@pytest.mark.parametrize(("name", "model"), [("gpu", "qwen25_vl_7b"), ("paper", "qwen25_vl_32b")])
def test_the_profiles_with_a_gpu_write_the_same_views_by_either_backend(name: str, model: str) -> None:
    chosen = load_profile(name)
    spec = captioner_of(chosen)
    assert (spec.name, captions_stage(chosen).models) == ("transformers", (model,))
    served = load_profile(name, overrides=["captions.backend=endpoint"])
    endpoint = captioner_of(served)
    assert endpoint.views(endpoint.settings_of(served)) == spec.views(spec.settings_of(chosen))


def test_an_unknown_model_is_one_line() -> None:
    with pytest.raises(CerError, match=r"captions_transformers\.model: Input should be 'qwen25_vl_3b', "):
        profile("captions_transformers.model=qwen9")


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not on this machine")
def test_real_clips_have_captions_of_their_frames(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for clip in ("audio_only.mp4", "no_face.mp4"):
        (folder / clip).symlink_to(CLIPS / clip)
    made = make(tmp_path / "home", folder, ("videos", "segments", "frames"))
    got, _ = captions(profile(), MemoryInputs(made.tables), folders["qwen25_vl_7b"])
    assert len(got) == 2 * made.tables["segments"].num_rows
    assert {(r["video_id"], r["text"], r["status"]) for r in got} == {
        ("audio_only", None, "no_video"),
        ("no_face", SENTENCE, "ok"),
    }
