#!/usr/bin/env bash
# Makes .venv with Python 3.11 or newer, and in it pip and uv at the versions of tools.txt. Keeps a .venv that works.
# What the system lacks is installed or named first (libraries.py), before anything is downloaded.
# PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=""
    # 3.11 first: the pins are resolved for it; 3.13 is tried too.
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if suits "$candidate"; then python="$candidate"; break; fi
    done
    if [[ -z "$python" ]]; then
        echo "Python 3.11 or newer is needed; found: $(${PYTHON:-python3} --version 2>&1 || true)." \
            "Install it (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv)," \
            "or say where it is: make install PYTHON=/path/to/python3.11" >&2
        exit 2
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python has no venv module: apt-get install python3-venv" >&2
        exit 2
    fi
    "$python" requirements/libraries.py
    rm -rf .venv
    "$python" -m venv .venv
else
    .venv/bin/python requirements/libraries.py
fi
if compgen -G '.venv/lib/python*/site-packages/opencv_contrib_python-*.dist-info' >/dev/null; then
    # An earlier version installed these: OpenCV with a window system fills the same folder as the build without, and
    # transformers loads soundfile where it is there.
    .venv/bin/python -m pip uninstall --quiet --yes opencv-contrib-python opencv-python opencv-python-headless soundfile soxr
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/tools.txt
