"""`cer bench gpu`: every workload runs at toy size on the CPU; without CUDA the command says so in one line."""

from __future__ import annotations

import json

import pytest
import torch

from cer_pipeline.cli.app import app
from cer_pipeline.errors import CerError
from cer_pipeline.machine import bench


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.WORKLOADS)
def test_a_workload_at_toy_size_is_timed_and_its_operations_are_counted(name: str) -> None:
    result = bench.measure(name, bench.Scale(torch.device("cpu"), toy=True))
    assert result.per_second > 0
    assert result.teraflops > 0
    assert result.share > 0
    assert result.dtype == ("bfloat16" if name == "qwen25_vl_3b" else "float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"),
    [("clip_vit_b32", 87.8), ("emoaffectnet", 23.5), ("wavlm_base_plus_sd", 94.4), ("qwen25_vl_3b", 3754.6)],
)
def test_a_workload_at_real_size_has_the_parameters_of_the_published_model(name: str, millions: float) -> None:
    # CLIP ViT-B/32 image tower with projection; ResNet-50 without its classifier; WavLM base; Qwen2.5-VL-3B.
    work = bench.WORKLOADS[name](bench.Scale(torch.device("meta")))
    assert work.parameters / 1e6 == pytest.approx(millions, rel=0.005)


def test_without_cuda_the_command_names_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CerError, match=r"no CUDA device.*cer doctor --profile gpu"):
        bench.bench_device(toy=False)


@pytest.mark.slow
def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    app(["bench", "gpu", "--toy", "--only", "temporal_mamba", "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in document["models"]] == ["temporal_mamba"]
    assert document["toy"] is True


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(CerError, match="did you mean temporal_mamba"):
        app(["bench", "gpu", "--toy", "--only", "temporal_mambo"], standalone_mode=False)
