"""The profiles gpu and paper: one finding for each thing that is missing, with the command that brings it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cer_pipeline.machine import gpu_checks
from cer_pipeline.machine.installation import LoadResult, direct_dependencies
from cer_pipeline.profiles import load_profile
from cer_pipeline.zoo import Zoo
from cer_pipeline.zoo.entries import Entry, parse_entry

ABSENT = "importlib.metadata.PackageNotFoundError: No package metadata was found for x"


def entry(name: str, sha256: str = "", **further: object) -> Entry:
    files = [{"name": "m", "bytes": 2_000_000, "sha256": sha256}]
    raw = {"title": "t", "purpose": "p", "licence": "MIT", "files": files, "sources": [], **further}
    return parse_entry(name, raw)


def test_the_extra_has_packages_of_its_own_and_leaves_those_of_other_extras_out() -> None:
    names = direct_dependencies("gpu")
    assert {"ultralytics", "open-clip-torch"} <= set(names)
    assert "mamba-ssm" not in names
    assert set(names).isdisjoint(direct_dependencies())
    assert "mamba-ssm" in direct_dependencies("cuda")


def test_a_package_of_the_extra_that_is_absent_names_the_command_that_installs_the_extra() -> None:
    def load(names: Sequence[str]) -> list[LoadResult]:
        return [LoadResult(n, ABSENT, "reinstall") if n == "ultralytics" else LoadResult(n) for n in names]

    (failed,) = gpu_checks.extra_packages(load)
    assert (failed.name, failed.ok) == ("ultralytics", False)
    assert "make install EXTRAS=gpu" in failed.remedy


def test_a_package_of_the_extra_that_is_damaged_keeps_the_remedy_of_its_error() -> None:
    def load(names: Sequence[str]) -> list[LoadResult]:
        return [LoadResult(n, "OSError: broken", "reinstall") if n == "lap" else LoadResult(n) for n in names]

    (failed,) = gpu_checks.extra_packages(load)
    assert (failed.name, failed.remedy) == ("lap", "reinstall")


def test_packages_that_only_cuda_can_use_are_reported_in_one_line_each_and_fail_nothing() -> None:
    def load(names: Sequence[str]) -> list[LoadResult]:
        errors = {"torchaudio": ABSENT, "torchcodec": "OSError: libcudart.so.13"}
        return [LoadResult(name, errors.get(name, "")) for name in names]

    audio, codec, mamba = gpu_checks.optional_packages(load)
    assert all(result.ok for result in (audio, codec, mamba))
    assert audio.detail.startswith("not installed; PyAV") and "'.[cuda]'" in audio.remedy
    assert "libcudart" in codec.detail
    assert (mamba.name, mamba.detail, mamba.remedy) == ("mamba-ssm", "usable", "")


def test_absent_weights_are_listed_with_licence_size_rows_and_command(tmp_path: Path) -> None:
    known = entry("known", "1" * 64, table1=[4, 5])
    unknown = entry("unknown", licence="CC BY-NC 4.0", consequence="no commercial use")
    zoo = Zoo(tmp_path, {"known": known, "unknown": unknown})
    missing, unpinned, head = gpu_checks.models(zoo, ["known", "unknown", "head_scene_jina"])
    assert missing.detail == "missing, 2 MB, licence MIT, Table 1 rows 4, 5"
    assert missing.remedy == "cer models pull known"
    assert unpinned.detail == "unpinned, 2 MB, licence CC BY-NC 4.0 (no commercial use)"
    assert "cer models pin unknown FOLDER" in unpinned.remedy
    assert (head.name, head.remedy) == ("head scene_jina", "cer train scene_jina")
    assert not any(result.ok for result in (missing, unpinned, head))


def test_a_gpu_that_torch_cannot_use_fails_for_the_profiles_that_need_one(tmp_path: Path) -> None:
    (tmp_path / "gpus" / "0").mkdir(parents=True)
    assert not gpu_checks.device("gpu", tmp_path / "none").ok
    broken = gpu_checks.device("paper", tmp_path / "gpus", attempt=lambda: "RuntimeError: no kernel image")
    assert not broken.ok
    assert "torch==" in broken.remedy


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "served/model"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()
        thread.join()


def asked(url: str, model: str) -> list[gpu_checks.CheckResult]:
    overrides = ["captions.backend=endpoint", f'captions.url="{url}"', f'captions_endpoint.models=["{model}"]']
    return gpu_checks.caption_server(load_profile(overrides=overrides))


def test_the_caption_server_is_asked_only_where_the_captions_come_from_one() -> None:
    assert gpu_checks.caption_server(load_profile()) == []


def test_a_caption_server_with_the_model_passes(server: str) -> None:
    (result,) = asked(server, "served/model")
    assert result.ok


def test_a_caption_server_of_another_model_names_the_setting(server: str) -> None:
    (result,) = asked(server, "other/model")
    assert not result.ok
    assert "serves served/model, not other/model" in result.detail
    assert result.remedy.startswith("set captions_endpoint.models")


def test_a_caption_server_that_is_down_names_the_command_that_starts_one() -> None:
    (result,) = asked("http://127.0.0.1:9/v1", "served/model")
    assert not result.ok
    assert "vllm serve served/model" in result.remedy
