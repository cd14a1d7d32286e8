"""Options that several commands share.

Belongs here: the declaration of --profile, --set and --json, and reading them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cer_pipeline.profiles import DEFAULT_PROFILE, Profile, load_profile
from cer_pipeline.store.home import Home

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.SETTING=VALUE", help="A setting over the profile; may be repeated."),
]
ProfileName = Annotated[str, typer.Option("--profile", envvar="CER_PROFILE", help="Which settings and models.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


def settings_of(home: Home, profile: str = DEFAULT_PROFILE, overrides: list[str] | None = None) -> Profile:
    """The settings in force: profile, then the home folder's settings.toml, then --set."""
    return load_profile(profile, home.settings, overrides or [])
