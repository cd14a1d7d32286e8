"""`cer export`: the predictions of a corpus as files for other programs.

Belongs here: the command. Does not belong here: the formats (`export`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import console, print_json, safe
from cer_pipeline.export.registry import FORMATS
from cer_pipeline.profiles import DEFAULT_PROFILE

FORMATS_HELP = "; ".join(f"{name}: {format_.meaning}" for name, format_ in FORMATS.items())


def export(
    name: Annotated[str, typer.Argument(help="The corpus.")],
    to: Annotated[
        str, typer.Option("--to", help=f"Format. {FORMATS_HELP}; or the name of a format of an installed package.")
    ] = "parquet",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Write the predictions of a corpus: compounds by both mappings, and the basic emotions of every system."""
    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.export.registry import Request, format_of
    from cer_pipeline.store.home import default_home

    home, format_ = default_home(), format_of(to)
    folder = home.root / "exports" / name / format_.folder if out is None else out.expanduser().absolute()
    rule = Clear.of(settings_of(home, profile, set_))
    files = format_.load()(Request(home, name, to, folder, rule))
    if json:
        print_json({"corpus": name, "format": to, "files": [str(path) for path in files]})
        return
    for path in files:
        console().print(safe(str(path)), soft_wrap=True)
