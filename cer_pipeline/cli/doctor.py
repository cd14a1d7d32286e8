"""`cer doctor`: check whether this machine can run the pipeline.

Belongs here: printing the findings. Does not belong here: the checks (`machine.checks`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from cer_pipeline.cli.options import Json, Overrides, ProfileName
from cer_pipeline.cli.output import console, print_json, safe, say
from cer_pipeline.profiles import DEFAULT_PROFILE

EXIT_INPUT = 2


def doctor(
    profile: ProfileName = DEFAULT_PROFILE,
    packages: Annotated[
        bool,
        typer.Option("--packages", help="Only import every direct dependency, with its native libraries."),
    ] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Check packages, folders, memory, decoding, weights, GPU and caption server; name the remedy of every failure."""
    from cer_pipeline.machine.checks import diagnose, installed

    say("importing every package" + ("" if packages else ", hashing the weights, running the models"))
    findings = installed() if packages else diagnose(profile, overrides=set_ or ())
    if json:
        print_json([{"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in findings])
    else:
        out = console()
        for f in findings:
            mark = "[green]ok[/]" if f.ok else "[red]fails[/]"
            out.print(f"{mark:<20} {safe(f.name)}: {safe(f.detail)}", soft_wrap=True)
            if f.remedy:
                out.print(f"        -> {safe(f.remedy)}", soft_wrap=True)
    if not all(f.ok for f in findings):
        raise typer.Exit(EXIT_INPUT)
