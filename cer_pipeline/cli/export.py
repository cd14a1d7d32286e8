"""`cer export`: the predictions of a corpus as files for other programs.

Belongs here: the command. Does not belong here: any form of file (`export`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import console, print_json, safe
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE


def export(
    name: Annotated[str, typer.Argument(help="The corpus.")],
    to: Annotated[
        str, typer.Option("--to", help="parquet or csv: segments in long form; abaw: a text file for every video.")
    ] = "parquet",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Write the predictions of a corpus: compounds by both mappings, and the basic emotions of every system."""
    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.export import abaw
    from cer_pipeline.export import long_form as tables
    from cer_pipeline.store.home import default_home

    home = default_home()
    formats = (*tables.FORMATS, abaw.FORMAT)
    if to not in formats:
        raise CerError("unknown format", to, f"choose one of: {', '.join(formats)}")
    folder = (out or home.root / "exports" / name).expanduser().absolute()
    if to == abaw.FORMAT:
        written = abaw.export(home, name, folder / abaw.FORMAT if out is None else folder)
    else:
        written = tables.export(home, name, folder, to, Clear.of(settings_of(home, profile, set_)))
    if json:
        print_json({"corpus": name, "format": to, "files": [str(path) for path in written]})
        return
    for path in written:
        console().print(safe(str(path)), soft_wrap=True)
