"""Options that several commands share.

Belongs here: the declarations of --profile, --set and --json. Does not belong here: options of one command.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cer_pipeline.profiles import DEFAULT_PROFILE, Profile, load_profile
from cer_pipeline.store.home import Home

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.SETTING=VALUE", help="Override a setting; may be repeated."),
]
ProfileName = Annotated[str, typer.Option("--profile", envvar="CER_PROFILE", help="Profile of settings and models.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def settings_of(home: Home, profile: str = DEFAULT_PROFILE, overrides: list[str] | None = None) -> Profile:
    """Return the settings in force: the profile, overridden by settings.toml in the home folder, then by --set."""
    return load_profile(profile, home.settings, overrides or [])
