"""Conversion of a PyTorch state dict to safetensors, in a process of its own.

Belongs here: that conversion. Does not belong here: which names and shapes a model needs (its own module checks them
when it loads the converted file).

A `.pt` file is a pickle. It is read once, after its SHA-256 was verified, with `torch.load(weights_only=True)`, which
builds tensors and plain containers only, in a child process with no other task. All later reads are of safetensors.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cer_pipeline.errors import CerError

TIME_LIMIT_S = 600  # 100 MB take seconds; the limit ends a file that makes the reader hang


def convert(source: Path, target: Path) -> None:
    """Write the tensors of a verified state dict as safetensors.

    Args:
        source: the `.pt` file.
        target: the file to write; appears whole or not at all.

    Raises:
        CerError: the file holds anything but named tensors, or cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    command = [sys.executable, "-m", "cer_pipeline.zoo.state_dict", str(source), str(unfinished)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise CerError("the state dict could not be read in time", str(source), "fetch it again") from None
    if done.returncode != 0 or not unfinished.is_file():
        lines = done.stderr.strip().splitlines()
        unfinished.unlink(missing_ok=True)
        raise CerError(f"no state dict of tensors ({lines[-1] if lines else done.returncode})", str(source))
    unfinished.replace(target)


def main(source: str, target: str) -> None:
    """Convert in this process; see `convert`.

    Raises:
        ValueError: the file holds anything but named tensors.
    """
    import torch
    from safetensors.torch import save_file

    values = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(values, dict) or not values:
        raise ValueError("it holds no names")
    other = [name for name, value in values.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if other:
        raise ValueError(f"{other[0]} is no tensor")
    save_file({name: value.contiguous().clone() for name, value in values.items()}, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
