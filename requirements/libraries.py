"""Installs the system libraries that the wheels expect, where it may: `python3 requirements/libraries.py`.

Runs before anything is downloaded, with the standard library alone. Where the libraries load already, it does nothing.
On Debian and Ubuntu, root and a user with sudo without a password get them installed; everybody else gets one line that
says what to type, and exit code 2.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

EXIT_INPUT = 2
LOCK_SECONDS = 300  # how long apt waits for another apt, e.g. the one that a new server starts by itself
INSTALL = ["apt-get", "install", "-y", "--no-install-recommends"]
QUIET = ["-qq", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]


def libraries() -> ModuleType:
    """The list of libraries, read from the package without installing it."""
    path = Path(__file__).resolve().parents[1] / "cer_pipeline" / "machine" / "system_libraries.py"
    spec = importlib.util.spec_from_file_location("system_libraries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def privilege() -> list[str] | None:
    """What goes before a command that root must run: nothing for root, sudo where it asks no password; else None."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], check=False, capture_output=True).returncode == 0:
        # sudo passes no variables on; apt must not ask questions.
        return [sudo, "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    return None


def run(command: list[str]) -> str | None:
    """Run a command quietly. None where it worked, else the last line of what it wrote."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return None if done.returncode == 0 else lines[-1]


def install(packages: list[str], root: list[str]) -> str | None:
    """Install packages; the lists of packages are fetched anew only where they do not suffice. None, or why not."""
    command = [*root, *INSTALL, *QUIET, *packages]
    if run(command) is None:
        return None
    return run([*root, "apt-get", "update", *QUIET]) or run(command)


def main() -> int:
    """Make the libraries be there, or say in one line what is to be done."""
    known = libraries()
    lacking = known.missing()
    if not lacking:
        return 0
    what = f"error: this system lacks {', '.join(lacking)}, which mediapipe needs"
    if not shutil.which("apt-get"):
        print(f"{what} - install the packages that hold them, then run the same command again", file=sys.stderr)
        return EXIT_INPUT
    packages = known.packages(lacking)
    command = " ".join([*INSTALL, *packages])
    typed = f"sudo {command}" if shutil.which("sudo") else f"as root: {command}"
    root = privilege()
    if root is None:
        print(f"{what} - run {typed}, then the same command again", file=sys.stderr)
        return EXIT_INPUT
    print(f"installing the system packages {', '.join(packages)}", file=sys.stderr)
    why = install(packages, root)
    if why is not None or known.missing():
        print(
            f"{what}, and apt-get could not install them ({why or 'it gave no such file'}) - run {typed}",
            file=sys.stderr,
        )
        return EXIT_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
