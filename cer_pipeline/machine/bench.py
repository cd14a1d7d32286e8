"""Throughput of the paper's models on this machine's GPU, as a share of the rate at which it multiplies matrices.

Belongs here: models built from their configurations with random weights, inputs of the real shapes, and their timing.
Does not belong here: printing (`cli.bench`), or speed on real videos (the metadata of a run).

Random weights take the same time as trained ones. The operations of a call are counted by torch. The share compares
them with a product of two large matrices of the same number type. A workload is a function of a `Scale`, so that a
module of this project can take the place of a class of transformers: replace its line in `WORKLOADS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cer_pipeline.errors import CerError
from cer_pipeline.torchvision_ops import prepare_torchvision

if TYPE_CHECKING:
    import torch

REPEATS: Final = 10  # the fastest is taken: other programs only slow a call down
TOY_REPEATS: Final = 2
MATRIX: Final = 8192  # large enough for the full rate of an H100
TOY_MATRIX: Final = 256
WINDOW_SAMPLES: Final = 20  # 4 s at 5 Hz
WINDOW_SOUND: Final = 64_000  # 4 s at 16 kHz
PATCH: Final = 14  # pixels of a side of a patch of Qwen2.5-VL; 2 x 2 patches are one token
TERA: Final = 1e12


@dataclass(frozen=True)
class Scale:
    """Where and how large a workload is.

    Args:
        device: of the weights and inputs.
        toy: a tiny model and input of the same class, to test the command on a CPU.
    """

    device: torch.device
    toy: bool = False


@dataclass(frozen=True)
class Work:
    """A call to time.

    Args:
        call: computes one batch.
        units: units in a batch.
        unit: what is counted, such as "crops".
        dtype: number type of the weights.
        parameters: of the model.
    """

    call: Callable[[], Any]
    units: int
    unit: str
    dtype: torch.dtype
    parameters: int


@dataclass(frozen=True)
class Throughput:
    """One measured workload.

    Args:
        name: the workload.
        parameters: of the model, in millions.
        dtype: number type.
        unit: what is counted.
        per_second: units a second.
        teraflops: counted operations a second, 1e12.
        share: of the rate of the matrix product of the same number type.
    """

    name: str
    parameters: float
    dtype: str
    unit: str
    per_second: float
    teraflops: float
    share: float


def clip(scale: Scale) -> Work:
    """Pictures through CLIP ViT-B/32."""
    prepare_torchvision()
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes: dict[str, Any] = {"hidden_act": "quick_gelu"}
    if scale.toy:
        sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = _ready(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes)), scale, torch.float32)
    batch = 2 if scale.toy else 256
    pictures = torch.rand(batch, 3, 224, 224, device=scale.device)
    return _work(model, lambda: model(pixel_values=pictures), batch, "pictures", torch.float32)


def emoaffectnet(scale: Scale) -> Work:
    """Face crops through a ResNet-50, the architecture of EmoAffectNet."""
    prepare_torchvision()
    import torch
    from transformers import ResNetConfig, ResNetModel

    sizes: dict[str, Any] = {"hidden_sizes": [8, 8], "depths": [1, 1], "embedding_size": 8} if scale.toy else {}
    model = _ready(lambda: ResNetModel(ResNetConfig(**sizes)), scale, torch.float32)
    batch = 2 if scale.toy else 256
    crops = torch.rand(batch, 3, 224, 224, device=scale.device)
    return _work(model, lambda: model(pixel_values=crops), batch, "crops", torch.float32)


def wavlm(scale: Scale) -> Work:
    """Windows of 4 s through WavLM base."""
    prepare_torchvision()
    import torch
    from transformers import WavLMConfig, WavLMModel

    sizes: dict[str, Any] = {}
    if scale.toy:
        sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = _ready(lambda: WavLMModel(WavLMConfig(**sizes)), scale, torch.float32)
    batch = 1 if scale.toy else 32
    sound = torch.randn(batch, WINDOW_SOUND, device=scale.device)
    return _work(model, lambda: model(sound), batch, "windows", torch.float32)


def parakeet(scale: Scale) -> Work:
    """Windows of 4 s through the encoder of Parakeet TDT 0.6B, which has nearly all of its parameters."""
    prepare_torchvision()
    import torch
    from transformers.models.parakeet import ParakeetEncoder, ParakeetEncoderConfig

    sizes: dict[str, Any] = {"num_mel_bins": 128}
    if scale.toy:
        sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = _ready(lambda: ParakeetEncoder(ParakeetEncoderConfig(**sizes)), scale, torch.float32)
    batch = 1 if scale.toy else 32
    spectrum = torch.randn(batch, 400, 128, device=scale.device)  # 10 ms a step
    return _work(model, lambda: model(spectrum), batch, "windows", torch.float32)


def temporal(network: str) -> Callable[[Scale], Work]:
    """Windows of 20 samples of 512 features through a temporal head of the published size."""

    def build(scale: Scale) -> Work:
        import torch

        from cer_pipeline.branches.face.temporal_head import Shape, TemporalHead

        shape = Shape(network, 8, hidden=16, middle=8, layers=1) if scale.toy else Shape(network, 512, 512, 256, 4, 8)
        model = _ready(lambda: TemporalHead(shape), scale, torch.float32)
        batch = 2 if scale.toy else 256
        features = torch.randn(batch, WINDOW_SAMPLES, shape.inputs, device=scale.device)
        mask = torch.ones(batch, WINDOW_SAMPLES, dtype=torch.bool, device=scale.device)
        return _work(model, lambda: model(features, mask), batch, "windows", torch.float32)

    return build


def qwen(scale: Scale) -> Work:
    """Prompts of 20 pictures of 448 x 252 pixels through Qwen2.5-VL-3B, up to the first token of the caption."""
    prepare_torchvision()
    import torch
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    marks: dict[str, Any] = {"image_token_id": 9, "vision_start_token_id": 7, "vision_end_token_id": 8}
    text: dict[str, Any] = {
        "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "intermediate_size": 11008, "vocab_size": 151936,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    if scale.toy:
        text |= {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        text |= {"vocab_size": 100}
        text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
        vision |= {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64}
        vision |= {"fullatt_block_indexes": [0]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **marks)
    model = _ready(lambda: Qwen2_5_VLForConditionalGeneration(config), scale, torch.bfloat16)
    pictures, rows, columns = (2, 4, 4) if scale.toy else (WINDOW_SAMPLES, 252 // PATCH, 448 // PATCH)
    one = [7, *[9] * (rows * columns // 4), 8]
    ids = torch.tensor([[1, *one * pictures, *[2] * 200]], device=scale.device)  # the prompt has about 200 tokens
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == marks["image_token_id"]).int(),
        "image_grid_thw": torch.tensor([[1, rows, columns]] * pictures, device=scale.device),
        "pixel_values": torch.randn(
            pictures * rows * columns, 3 * 2 * PATCH * PATCH, device=scale.device, dtype=torch.bfloat16
        ),
    }
    return _work(model, lambda: model(**inputs, logits_to_keep=1), 1, "prompts", torch.bfloat16)


WORKLOADS: Final[dict[str, Callable[[Scale], Work]]] = {
    "clip_vit_b32": clip,
    "emoaffectnet": emoaffectnet,
    "wavlm_base_plus_sd": wavlm,
    "temporal_transformer": temporal("transformer"),
    "temporal_mamba": temporal("mamba"),
    "parakeet_tdt_06b": parakeet,
    "qwen25_vl_3b": qwen,
}
"""Name -> builds the model on the device and returns the call to time."""


def bench_device(toy: bool) -> torch.device:
    """Return the device of the benchmark.

    Args:
        toy: whether toy sizes are measured, on the CPU.

    Raises:
        CerError: torch finds no CUDA device.
    """
    import torch

    if toy:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        what = "torch finds no CUDA device, so nothing is measured"
        raise CerError(what, "", "see `cer doctor --profile gpu`; `cer bench gpu --toy` tries the command on the CPU")
    return torch.device("cuda")


def matrix_rate(dtype: torch.dtype, scale: Scale) -> float:
    """Return the operations a second of a product of two square matrices."""
    import torch

    size = TOY_MATRIX if scale.toy else MATRIX
    first, second = (torch.randn(size, size, device=scale.device).to(dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: first @ second, scale)


def measure(name: str, scale: Scale) -> Throughput:
    """Build and time one workload.

    Args:
        name: key of `WORKLOADS`.
        scale: device and size.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    work = WORKLOADS[name](scale)
    with torch.no_grad():  # weights that are parametrised cannot be computed anew in inference mode
        with FlopCounterMode(display=False) as counter:
            work.call()
        seconds = _seconds(work.call, scale)
        rate = matrix_rate(work.dtype, scale)
    per_second = counter.get_total_flops() / seconds
    return Throughput(
        name,
        work.parameters / 1e6,
        str(work.dtype).removeprefix("torch."),
        work.unit,
        work.units / seconds,
        per_second / TERA,
        per_second / rate,
    )


def scan_against_kernel(scale: Scale) -> tuple[float, float, float] | None:
    """Return seconds of a Mamba block's loop, seconds of mamba-ssm's kernel, and the largest difference of values.

    None where mamba-ssm cannot be used.
    """
    import torch
    from torch.nn import functional

    from cer_pipeline.branches.face.temporal_head import MambaBlock, Shape

    if scale.device.type != "cuda":
        return None
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):
        return None
    with torch.inference_mode():
        block = MambaBlock(Shape("mamba", 512, 512, 256, 1)).to(scale.device).eval()
        a = torch.randn(256, WINDOW_SAMPLES, 512, device=scale.device)

        def kernel() -> torch.Tensor:
            step = block.step_up(block.step_down(a)).transpose(1, 2).contiguous()
            b, c = (layer(a).transpose(1, 2).contiguous() for layer in (block.to_b, block.to_c))
            decay = -torch.exp(block.log_a)
            values = selective_scan_fn(
                a.transpose(1, 2).contiguous(), step, decay, b, c, delta_bias=block.step_bias, delta_softplus=True
            )
            return functional.dropout(values.transpose(1, 2), 0.0)

        def loop() -> torch.Tensor:
            return block._scan(a)  # noqa: SLF001 - the recurrence alone is what the kernel replaces

        difference = float((loop() - kernel()).abs().max())
        return _seconds(loop, scale), _seconds(kernel, scale), difference


def _ready(build: Callable[[], Any], scale: Scale, dtype: torch.dtype) -> Any:
    """Build a model with random weights on the device, in evaluation mode."""
    import torch

    with torch.device(scale.device):
        return build().to(dtype).eval()


def _work(model: Any, call: Callable[[], Any], units: int, unit: str, dtype: torch.dtype) -> Work:
    return Work(call, units, unit, dtype, sum(p.numel() for p in model.parameters()))


def _seconds(call: Callable[[], Any], scale: Scale) -> float:
    """Return the shortest time of a call, after two calls that warm up."""
    import torch

    def wait() -> None:
        if scale.device.type == "cuda":
            torch.cuda.synchronize(scale.device)

    times = []
    for i in range((TOY_REPEATS if scale.toy else REPEATS) + 2):
        wait()
        started = time.perf_counter()
        call()
        wait()
        if i >= 2:
            times.append(time.perf_counter() - started)
    return min(times)
