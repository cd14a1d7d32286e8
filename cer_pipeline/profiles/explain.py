"""Description of a setting: value, meaning, unit, range, reason and origin.

Belongs here: collecting these from the models, the profile file and the merged profile. Does not belong here: printing
them (`cli.settings`) or the tables that depend on a setting (`pipeline`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tomlkit

from cer_pipeline.errors import CerError
from cer_pipeline.profiles import Profile, nearest, profile_texts, section_model, shipped_values


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        key: "section.setting".
        value: the current value.
        default: the value of the shipped profile.
        origin: the profile, the settings file or the option that set the value.
        meaning: one clause.
        unit: its unit; empty for a plain number, a choice or a text.
        type: its Python type, or its choices.
        limits: constraints of its model, such as "greater than 0".
        reason: reason for the default: the comment on its line, else on the line of its section; empty without one.
    """

    key: str
    value: Any
    default: Any
    origin: str
    meaning: str
    unit: str
    type: str
    limits: str
    reason: str

    @property
    def section(self) -> str:
        """The section that it belongs to."""
        return self.key.partition(".")[0]


def settings(profile: Profile) -> Iterator[Setting]:
    """Yield all settings of a profile, in the order of its file."""
    comments = [tomlkit.parse(text) for text in reversed(profile_texts(profile.name))]
    for section, values in shipped_values(profile.name).items():
        fields = section_model(section).model_fields
        for name, default in values.items():
            field, key = fields[name], f"{section}.{name}"
            extra: Any = field.json_schema_extra or {}
            yield Setting(
                key=key,
                value=profile[section][name],
                default=default,
                origin=profile.origins.get(key, f"profile {profile.name}"),
                meaning=field.description or "",
                unit=extra.get("unit", ""),
                type=_type(field.annotation),
                limits=", ".join(limit for m in field.metadata for limit in _limits(m)),
                reason=_comment(comments, section, name),
            )


def explain(profile: Profile, key: str) -> Setting:
    """Return the description of one setting.

    Raises:
        CerError: there is none of that name.
    """
    every = {setting.key: setting for setting in settings(profile)}
    if key not in every:
        raise CerError("unknown setting", key, nearest(key, every))
    return every[key]


_LIMITS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than",
           "min_length": "length at least", "max_length": "length at most"}  # fmt: skip


def _limits(constraint: Any) -> list[str]:
    """Return the limits of one constraint of a field, in words; none for a validator."""
    return [f"{word} {getattr(constraint, name)}" for name, word in _LIMITS.items() if hasattr(constraint, name)]


def _type(annotation: Any) -> str:
    choices = getattr(annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return " | ".join(choices)
    return annotation.__name__ if isinstance(annotation, type) and not choices else str(annotation)


def _comment(documents: Sequence[Any], section: str, name: str) -> str:
    """Return the comment on the line of a setting, else on the line of its section, in the profile that sets it."""
    for document in documents:
        if name in document.get(section, {}):
            table = document[section]
            return (table.item(name).trivia.comment or table.trivia.comment).removeprefix("#").strip()
    return ""  # of a plug-in
