"""Settings: a shipped profile, overridden by the settings file of the user, overridden by single settings.

Belongs here: reading, merging and validating settings, and their origins. Does not belong here: meaning and range of a
setting (`sections`), or its effect (the code that reads it). Every number that is a choice is in a profile file, with
the reason as a comment.

Sections other than [execution], [report] and [captions] change results, so they are part of the keys of the rows that
depend on them. [execution] has limits of threads, time and memory; [report] decides how results are shown; [captions]
chooses the captioner, whose own section enters the keys, and says how a server is reached. `CHOICES` lists single
settings of that kind.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cer_pipeline.errors import CerError

if TYPE_CHECKING:
    from pydantic import BaseModel

DEFAULT_PROFILE = "embedded"
BASE = "base"
EXECUTION = "execution"
REPORT = "report"
CAPTIONS = "captions"
CHOICES = frozenset({"faces.detector"})
"""Settings that choose between stages of one table. Models, sections and code version of the chosen stage enter the
keys of its rows; these settings do not."""
PLUGIN_SECTIONS = "cer_pipeline.profile_sections"
"""Entry point group of the sections of plug-ins: name -> a `sections.Section` whose every field has a default."""


@dataclass(frozen=True)
class Profile:
    """A named set of settings.

    Args:
        name: the shipped profile that it is based on.
        sections: section -> setting -> value.
        origins: "section.setting" -> the file or option that set it, for settings that override the profile.
    """

    name: str
    sections: Mapping[str, Mapping[str, Any]]
    origins: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, section: str) -> Mapping[str, Any]:
        """Return the settings of a section.

        Raises:
            CerError: there is no such section.
        """
        try:
            return self.sections[section]
        except KeyError:
            raise CerError("the profile has no such section", f"[{section}] in {self.name}") from None


def profile_names() -> list[str]:
    """Return the names of the shipped profiles, sorted."""
    shipped = resources.files("cer_pipeline.profiles")
    return sorted(f.name.removesuffix(".toml") for f in shipped.iterdir() if f.name.endswith(".toml"))


def profile_text(name: str) -> str:
    """Return the TOML text of a shipped profile.

    Raises:
        CerError: there is none of that name.
    """
    if name not in profile_names():
        raise CerError("unknown profile", name, f"choose one of: {', '.join(profile_names())}")
    return (resources.files("cer_pipeline.profiles") / f"{name}.toml").read_text("utf-8")


def profile_texts(name: str) -> list[str]:
    """Return the TOML text of a shipped profile after those of the profiles that it is based on.

    A profile with the key `base` holds only the settings in which it differs from that profile.

    Raises:
        CerError: there is none of that name.
    """
    text = profile_text(name)
    base = tomllib.loads(text).get(BASE)
    return [*(profile_texts(base) if base else []), text]


def shipped_values(name: str) -> dict[str, dict[str, Any]]:
    """Section -> setting -> value of a shipped profile, with the defaults of the sections of plug-ins."""
    values = {point.name: point.load()().model_dump() for point in metadata.entry_points(group=PLUGIN_SECTIONS)}
    for text in profile_texts(name):
        for section, own in tomllib.loads(text).items():
            if section != BASE:
                values[section] = values.get(section, {}) | own
    return values


def section_model(section: str) -> type[BaseModel]:
    """The pydantic model of a section, shipped or of a plug-in."""
    from cer_pipeline.profiles.sections import SECTIONS  # the process that opens media reads no profile: start fast

    if section in SECTIONS:
        return SECTIONS[section]
    # Reads the metadata of every installed package, which takes milliseconds, so not for the shipped sections.
    return metadata.entry_points(group=PLUGIN_SECTIONS)[section].load()


def load_profile(name: str = DEFAULT_PROFILE, settings: Path | None = None, overrides: Iterable[str] = ()) -> Profile:
    """Read a shipped profile, then apply the settings file of the user, then single overrides.

    Args:
        name: a shipped profile.
        settings: a TOML file with the same sections; ignored where it does not exist.
        overrides: "section.setting=value" with the value in TOML (a bare word counts as a string).

    Raises:
        CerError: unknown profile, section or setting, a value of another type or out of range, or a file that is
            not valid TOML.
    """
    sections = {key: dict(value) for key, value in shipped_values(name).items()}
    origins: dict[str, str] = {}
    if settings is not None and settings.is_file():
        for section, values in _parse(settings.read_text("utf-8"), str(settings)).items():
            if not isinstance(values, dict):
                raise CerError("a setting outside a section", f"{section} in {settings}", "put it below a [section]")
            for key, value in values.items():
                _set(sections, origins, section, key, value, str(settings))
    for text in overrides:
        target, equals, value = text.partition("=")
        section, dot, key = target.strip().rpartition(".")
        if not equals or not dot:
            raise CerError("a setting is written section.setting=value", text, "such as faces.margin=0.4")
        _set(sections, origins, section, key, _value(value.strip()), text)
    return Profile(name, {section: _checked(section, values, origins) for section, values in sections.items()}, origins)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown word: the most similar known one, else all of them."""
    known = sorted(known)
    similar = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {similar[0]}?" if similar else f"choose one of: {', '.join(known)}"


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


def _set(
    sections: dict[str, dict[str, Any]], origins: dict[str, str], section: str, key: str, value: Any, where: str
) -> None:
    if section not in sections:
        raise CerError(f"unknown section [{section}]", where, nearest(section, sections))
    if key not in sections[section]:
        known = [f"{section}.{name}" for name in sections[section]]
        raise CerError(f"unknown setting {section}.{key}", where, nearest(f"{section}.{key}", known))
    sections[section][key] = value
    origins[f"{section}.{key}"] = where


def _checked(section: str, values: dict[str, Any], origins: Mapping[str, str]) -> dict[str, Any]:
    """Return the validated values of a section; whole numbers become floats where the model declares floats."""
    from pydantic import ValidationError  # imported late: the process that opens media must start fast

    try:
        return section_model(section)(**values).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{section}.{first['loc'][0]}"
        message = first["msg"].removeprefix("Value error, ")
        raise CerError(f"{key}: {message}", origins.get(key, ""), f"`cer settings explain {key}` says more") from None
