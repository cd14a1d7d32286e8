"""The `cer` command: its entry point, as light as can be, so that Ctrl-C during the imports is no traceback.

Belongs here: starting `app`. Does not belong here: anything else.
"""

from __future__ import annotations

import os
import sys

from cer_pipeline.cli.stopping import insisting

EXIT_STOPPED = 130


def main() -> None:
    """Import the command line and run it."""
    try:
        with insisting() as pressed:
            from cer_pipeline.cli.app import main as run
        if pressed.is_set():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.stderr.write("stopped before it began\n")
        sys.stderr.flush()
        os._exit(EXIT_STOPPED)  # modules that were half imported may not be able to close
    run()
