"""Settings: a profile file, the user's settings over it, single settings over both.

Belongs here: reading, merging and checking settings. Does not belong here: what a setting does (the code that reads
it); every number that is a choice stands in `embedded.toml` or `paper.toml` with a comment that says why.

Sections other than [execution] change results and so enter the keys of the rows that read them. [execution] holds
what must not: threads, time and memory limits.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cer_pipeline.errors import CerError

DEFAULT_PROFILE = "embedded"
EXECUTION = "execution"


@dataclass(frozen=True)
class Profile:
    """A named set of settings: section -> setting -> value."""

    name: str
    sections: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, section: str) -> Mapping[str, Any]:
        """The settings of a section.

        Raises:
            CerError: there is no such section.
        """
        try:
            return self.sections[section]
        except KeyError:
            raise CerError("the profile has no such section", f"[{section}] in {self.name}") from None


def load_profile(name: str = DEFAULT_PROFILE, settings: Path | None = None, overrides: Iterable[str] = ()) -> Profile:
    """Read a shipped profile, then the user's settings file over it, then single overrides.

    Args:
        name: a shipped profile: embedded or paper.
        settings: a TOML file of the same shape; ignored where it does not exist.
        overrides: "section.setting=value" with the value in TOML (a bare word counts as a string).

    Raises:
        CerError: unknown profile, section or setting, a value of another type, or a file that is no TOML.
    """
    shipped = resources.files("cer_pipeline.profiles")
    file = shipped / f"{name}.toml"
    if not file.is_file():
        known = sorted(f.name.removesuffix(".toml") for f in shipped.iterdir() if f.name.endswith(".toml"))
        raise CerError("unknown profile", name, f"choose one of: {', '.join(known)}")
    sections = {key: dict(value) for key, value in tomllib.loads(file.read_text("utf-8")).items()}
    if settings is not None and settings.is_file():
        for section, values in _parse(settings.read_text("utf-8"), str(settings)).items():
            if not isinstance(values, dict):
                raise CerError("a setting outside a section", f"{section} in {settings}", "put it below a [section]")
            for key, value in values.items():
                _set(sections, section, key, value, str(settings))
    for text in overrides:
        target, equals, value = text.partition("=")
        section, dot, key = target.strip().rpartition(".")
        if not equals or not dot:
            raise CerError("a setting must read section.setting=value", text, "such as faces.min_score=0.5")
        _set(sections, section, key, _value(value.strip()), text)
    return Profile(name, sections)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CerError(f"not valid TOML ({error})", where) from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set(sections: dict[str, dict[str, Any]], section: str, key: str, value: Any, where: str) -> None:
    if section not in sections:
        raise CerError(f"unknown section [{section}]", where, f"choose one of: {', '.join(sorted(sections))}")
    if key not in sections[section]:
        known = ", ".join(sorted(sections[section]))
        raise CerError(f"unknown setting {section}.{key}", where, f"choose one of: {known}")
    old = sections[section][key]
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(old) is not type(value):
        raise CerError(f"{section}.{key} must be of type {type(old).__name__}", where)
    sections[section][key] = value
