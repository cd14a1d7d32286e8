"""`cer bench gpu`: measure the throughput of the paper's models on the GPU of this machine.

Belongs here: printing. Does not belong here: models and timing (`machine.bench`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import print_json, print_table, say
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import nearest

app = typer.Typer(help="Measure the speed of this machine.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure the speed of this machine."""


@app.command("gpu")
def gpu(
    only: Annotated[str, typer.Option("--only", help="Models to measure, separated by commas. Default: all.")] = "",
    toy: Annotated[bool, typer.Option("--toy", help="Tiny models on the CPU, to try the command.")] = False,
    json: Json = False,
) -> None:
    """Measure each model with random weights at real shapes, as a share of the GPU's rate of matrix products."""
    from dataclasses import asdict

    from cer_pipeline.machine import bench as measuring

    names = [name.strip() for name in only.split(",") if name.strip()] or list(measuring.WORKLOADS)
    if unknown := [name for name in names if name not in measuring.WORKLOADS]:
        raise CerError("no such model", unknown[0], nearest(unknown[0], measuring.WORKLOADS))
    scale = measuring.Scale(measuring.bench_device(toy), toy)
    results = []
    for name in names:
        say(f"measuring {name}")
        results.append(measuring.measure(name, scale))
    scan = measuring.scan_against_kernel(scale)
    if json:
        kernel = dict(zip(("loop_s", "kernel_s", "largest_difference"), scan, strict=True)) if scan else None
        device = _name(scale.device.type)
        print_json({"device": device, "toy": toy, "models": [asdict(r) for r in results], "mamba_ssm": kernel})
        return
    rows = [
        (r.name, f"{r.parameters:.1f}", r.dtype, f"{r.per_second:.1f} {r.unit}", f"{r.teraflops:.2f}", f"{r.share:.1%}")
        for r in results
    ]
    columns = ("model", "M parameters", "type", "per second", "TFLOP/s", "of matrix rate")
    print_table(_name(scale.device.type), columns, rows, right=columns[1:2] + columns[3:])
    if scan:
        print(f"Mamba: loop {scan[0] * 1e3:.2f} ms, mamba-ssm {scan[1] * 1e3:.2f} ms, largest difference {scan[2]:.1e}")
    else:
        print("mamba-ssm: not measured (it needs CUDA and the extra cuda)")


def _name(kind: str) -> str:
    import torch

    return torch.cuda.get_device_name() if kind == "cuda" else "CPU, toy sizes"
