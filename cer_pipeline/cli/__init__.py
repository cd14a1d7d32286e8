"""The entry point of the command `cer`, with few imports, so that Ctrl-C during later imports shows no traceback.

Belongs here: starting `app`. Does not belong here: commands.
"""

from __future__ import annotations

import os
import sys

from cer_pipeline.cli.stopping import repeat_interrupt

EXIT_INTERRUPTED = 130


def main() -> None:
    """Import the command line and run it."""
    try:
        with repeat_interrupt() as interrupted:
            from cer_pipeline.cli.app import main as run
        if interrupted.is_set():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.stderr.write("stopped before the command began\n")
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)  # partly imported modules may not be able to close
    run()
