"""Checks of the profiles that need more than the core set: packages, device, weights from the hub, caption server.

Belongs here: what only `gpu`, `paper` and a caption server need. Does not belong here: what every run needs (`checks`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from cer_pipeline.machine.check_result import CheckResult
from cer_pipeline.machine.child import run_attempts, serve
from cer_pipeline.machine.installation import LoadResult, direct_dependencies, load_all
from cer_pipeline.perception.captions.endpoint.client import EndpointError, WrongModel, health, serve_command
from cer_pipeline.profiles import Profile
from cer_pipeline.zoo import State, Zoo, absent_models, commands_for
from cer_pipeline.zoo.weights import HEAD_PREFIX

EXTRA: Final = "gpu"
INSTALL_EXTRA: Final = "make install EXTRAS=gpu, or pip install '.[gpu]'"
INSTALL_CUDA: Final = "with a CUDA build of torch: pip install --no-build-isolation '.[cuda]'"
NVIDIA: Final = Path("/proc/driver/nvidia/gpus")  # the driver makes one entry for each GPU
MEGABYTE: Final = 1e6

IN_PLACE: Final = {
    "torchaudio": "PyAV and soxr read and resample sound",
    "torchcodec": "PyAV decodes",
    "mamba-ssm": "the scan in torch computes Mamba",
}
"""Package that a CUDA machine may add -> what serves without it."""

CUDA: Final = "cuda"


def extra_packages(load: Callable[[Sequence[str]], Sequence[LoadResult]] = load_all) -> list[CheckResult]:
    """Load the packages of the extra `gpu`; return one result for all of them, or one for each that does not load.

    Args:
        load: loads distributions.
    """
    loaded = load(direct_dependencies(EXTRA))
    failed = [
        CheckResult(one.name, False, one.error, INSTALL_EXTRA if _is_absent(one) else one.remedy)
        for one in loaded
        if one.error
    ]
    return failed or [CheckResult(f"extra {EXTRA}", True, f"all {len(loaded)} packages load")]


def optional_packages(load: Callable[[Sequence[str]], Sequence[LoadResult]] = load_all) -> list[CheckResult]:
    """Load the packages that only CUDA machines can use; return one result for each. None is needed.

    Args:
        load: loads distributions.
    """
    return [
        CheckResult(one.name, True, "usable")
        if not one.error
        else CheckResult(
            one.name,
            True,
            f"{'not installed' if _is_absent(one) else f'not usable ({one.error})'}; {IN_PLACE[one.name]}",
            INSTALL_CUDA,
        )
        for one in load(list(IN_PLACE))
    ]


def _is_absent(loaded: LoadResult) -> bool:
    return "PackageNotFoundError" in loaded.error


def device(profile: str, devices: Path = NVIDIA, attempt: Callable[[], str] | None = None) -> CheckResult:
    """Check for an NVIDIA GPU and a build of torch that can use it.

    Args:
        profile: the embedded profile needs no GPU, the others need one.
        devices: folder in which the driver lists its devices.
        attempt: computes on the GPU; returns an error, or "".
    """
    count = len(list(devices.iterdir())) if devices.is_dir() else 0
    ok, torch = profile == "embedded", metadata.version("torch")
    if not count:
        return CheckResult("GPU", ok, "none; the CPU is used", "" if ok else "use a machine with an NVIDIA GPU")
    version = torch.partition("+")[0]
    remedy = "" if ok else f"install a CUDA build of torch {version}: pip install --force-reinstall torch=={version}"
    if torch.endswith("+cpu"):
        return CheckResult("GPU", ok, f"{count} NVIDIA, but torch {torch} cannot use it", remedy)
    if not ok and (error := (attempt or _compute)()):
        return CheckResult("GPU", False, f"{count} NVIDIA, but torch {torch} cannot use it ({error})", remedy)
    return CheckResult("GPU", True, f"{count} NVIDIA, torch {torch}")


def _compute() -> str:
    return run_attempts(__name__, [CUDA])[CUDA]


def models(zoo: Zoo, needed: Sequence[str]) -> list[CheckResult]:
    """Check weights and heads, with one result for each that is absent, damaged or not trained.

    Args:
        zoo: the weights.
        needed: ids of the weights and heads of a profile.
    """
    results = []
    for model in dict.fromkeys(needed):
        if model in zoo.entries:
            verdict = zoo.verdict(model)
            if verdict.state is not State.PRESENT:
                remedy = "; ".join(commands_for(zoo, [model])) or f"cer models pull {model}"
                results.append(CheckResult(f"model {model}", False, _described(zoo, model, verdict.state), remedy))
    heads = [model.removeprefix(HEAD_PREFIX) for model in absent_models(zoo, needed) if model not in zoo.entries]
    results += [CheckResult(f"head {name}", False, "not trained", f"cer train {name}") for name in heads]
    return results or [
        CheckResult("models", True, f"all {len(set(needed))} weights and heads are present and verified")
    ]


def _described(zoo: Zoo, model: str, state: State) -> str:
    entry = zoo.entry(model)
    parts = [state.value]
    if entry.bytes:
        parts.append(f"{entry.bytes / MEGABYTE:.0f} MB{'' if all(file.bytes for file in entry.files) else ' or more'}")
    parts.append(f"licence {entry.licence}" + (f" ({entry.consequence})" if entry.consequence else ""))
    if entry.table1:
        parts.append(f"Table 1 rows {', '.join(map(str, entry.table1))}")
    return ", ".join(parts)


def caption_server(settings: Profile) -> list[CheckResult]:
    """Ask the servers of captions for their models; no result where the captions come from another backend.

    Args:
        settings: `captions` names the servers, `captions_endpoint` the models.
    """
    reach = settings["captions"]
    if reach["backend"] != "endpoint":
        return []
    key = os.environ.get(reach["key_variable"], "")
    return [
        _caption_server(reach["urls"].get(model, reach["url"]), model, key, reach["key_variable"])
        for model in settings["captions_endpoint"]["models"]
    ]


def _caption_server(url: str, model: str, key: str, variable: str) -> CheckResult:
    try:
        return CheckResult("caption server", True, health(url, model, key))
    except WrongModel as error:
        return CheckResult("caption server", False, str(error), "set captions_endpoint.models, or captions.urls")
    except EndpointError as error:
        remedy = f"{serve_command(model)}, or set captions.url" if error.down else f"check the key in {variable}"
        return CheckResult("caption server", False, str(error), remedy)


def _attempt(_: str) -> None:
    import torch

    value = torch.ones(2, 2, device=CUDA)
    if (value @ value).sum().item() != 8.0:
        raise ArithmeticError("a product of matrices is wrong")


if __name__ == "__main__":
    serve(sys.argv[1:], _attempt)
