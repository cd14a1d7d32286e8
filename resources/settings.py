"""Where the home folder is and which settings hold.

Belongs here: the one resource that people set in the UI's launchpad. Does not belong here: what a setting does.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from cer_pipeline.profiles import DEFAULT_PROFILE, Profile, load_profile
from cer_pipeline.store.home import Home, default_home


class Settings(dg.ConfigurableResource):
    """Profile, single settings over it, and the home folder.

    Settings go over the profile in this order: `settings.toml` in the home folder, then `overrides`.
    """

    profile: str = DEFAULT_PROFILE
    overrides: list[str] = Field(default_factory=list)
    home: str = ""

    def get_home(self) -> Home:
        """The home folder; `CER_HOME` or the working copy's own unless one is named."""
        return Home(Path(self.home).expanduser().resolve()) if self.home else default_home()

    def get_profile(self) -> Profile:
        """The settings in force.

        Raises:
            CerError: unknown profile, section or setting.
        """
        return load_profile(self.profile, self.get_home().settings, self.overrides)
