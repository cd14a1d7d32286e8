"""The resource that says where the home folder is and which settings hold.

Belongs here: the settings that are edited in the launchpad of the UI. Does not belong here: what a setting means
(`cer_pipeline.profiles`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import tomlkit
from pydantic import Field

from cer_pipeline.errors import CerError
from cer_pipeline.profiles import DEFAULT_PROFILE, Profile, load_profile
from cer_pipeline.store.home import Home, default_home


class Settings(dg.ConfigurableResource):
    """Profile, single settings over it, and the home folder.

    Settings go over the profile in this order: `settings.toml` in the home folder, then `sections`, then `overrides`.
    """

    profile: str = Field(default=DEFAULT_PROFILE, description="Shipped profile that the settings start from.")
    sections: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings by section, such as {windows: {hop_s: 1.0}}. `cer settings show` lists them.",
    )
    overrides: list[str] = Field(
        default_factory=list, description='Settings as text, such as "windows.hop_s=1.0"; they go over `sections`.'
    )
    home: str = Field(default="", description="Home folder; $CER_HOME, or that of the working copy, unless given.")

    def get_home(self) -> Home:
        """Return the home folder."""
        return Home(Path(self.home).expanduser().resolve()) if self.home else default_home()

    def get_profile(self) -> Profile:
        """Return the settings in force.

        Raises:
            CerError: unknown profile, section or setting, or a value that the section does not take.
        """
        overrides = [*as_overrides(self.sections), *self.overrides]
        return load_profile(self.profile, self.get_home().settings, overrides)


def as_overrides(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return settings by section in the form "section.setting=value", the value in TOML.

    Raises:
        CerError: a value that TOML has no form for, such as null.
    """
    settings = ((f"{section}.{key}", value) for section, values in sections.items() for key, value in values.items())
    return [f"{name}={_toml(name, value)}" for name, value in settings]


def _toml(name: str, value: Any) -> str:
    try:
        return tomlkit.item(value).as_string()
    except ValueError:
        raise CerError("a setting needs a value", name, "give one or remove the line") from None
