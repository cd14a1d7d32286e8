"""Runs the uv of .venv with the index settings that pip has: `.venv/bin/python requirements/uv.py pip install ...`.

uv reads neither pip's variables nor pip's configuration files, so they are handed on here. A variable of uv's own that
is already set wins.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# pip's option -> uv's variable, and what uv wants between several values
HANDED_ON = {
    "find-links": ("UV_FIND_LINKS", ","),
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
}
SECTIONS = (":env:", "install", "global")  # of pip's configuration, the strongest first


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` says of the options above: option -> value."""
    found = {}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if equals and option in HANDED_ON and section in SECTIONS:
            found[section, option] = str(ast.literal_eval(value))
    return {
        option: next(found[section, option] for section in SECTIONS if (section, option) in found)
        for option in HANDED_ON
        if any((section, option) in found for section in SECTIONS)
    }


def uv_environment(environment: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv.

    Args:
        environment: that of this process.
        settings: of pip, as `pip_settings` gives them.
    """
    result = dict(environment)
    for option, value in settings.items():
        variable, between = HANDED_ON[option]
        if value.split() and not (variable == "UV_DEFAULT_INDEX" and "UV_INDEX_URL" in environment):
            result.setdefault(variable, between.join(value.split()))
    # pip takes the best version of all indexes; uv by default looks only at the first one that has the package.
    if result.get("UV_EXTRA_INDEX_URL") or result.get("UV_INDEX"):
        result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return result


def without_cache(environment: Mapping[str, str]) -> dict[str, str]:
    """What makes uv go on without its cache where that cannot be written, as pip does; nothing where it can."""
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "~").expanduser() / ".cache"
    folder = Path(environment.get("UV_CACHE_DIR") or Path(base) / "uv")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return {}
    except OSError:
        return {"UV_NO_CACHE": "1"}


def main() -> None:
    """Run uv in place of this process."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    uv = Path(sys.executable).with_name("uv")
    environment = uv_environment(os.environ, pip_settings(listing)) | without_cache(os.environ)
    os.execve(uv, [str(uv), *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
