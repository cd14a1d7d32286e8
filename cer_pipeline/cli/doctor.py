"""`cer doctor`: what this machine lacks, before anything is downloaded.

Belongs here: showing the findings. Does not belong here: looking (`cer_pipeline.doctor`).
"""

from __future__ import annotations

import typer

from cer_pipeline.cli.options import Json, ProfileName
from cer_pipeline.cli.output import console, print_json, safe
from cer_pipeline.profiles import DEFAULT_PROFILE

EXIT_INPUT = 2


def doctor(profile: ProfileName = DEFAULT_PROFILE, json: Json = False) -> None:
    """Check Python, system libraries, disk, memory, ffmpeg, weights and GPU; name what is missing and the remedy."""
    from cer_pipeline.doctor import diagnose

    findings = diagnose(profile)
    if json:
        print_json([{"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in findings])
    else:
        out = console()
        for f in findings:
            mark = "[green]ok[/]" if f.ok else "[red]missing[/]"
            out.print(f"{mark:<20} {f.name}: {safe(f.detail)}" + (f"\n        -> {safe(f.remedy)}" if not f.ok else ""))
    if not all(f.ok for f in findings):
        raise typer.Exit(EXIT_INPUT)
