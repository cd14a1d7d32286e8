"""What a user sets for a training, as text, turned into a trainer's settings.

Belongs here: reading name=value into a dataclass of plain fields. Does not belong here: what the settings mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from cer_pipeline.errors import CerError

Settings = TypeVar("Settings")


def apply(settings: Settings, options: Mapping[str, str], also: Sequence[str] = ()) -> Settings:
    """Settings with some fields set by text.

    Args:
        settings: a dataclass whose fields are text, numbers and truth values; their present values tell the types.
        options: field -> text.
        also: options that are no fields and that the caller reads itself.

    Raises:
        CerError: an option that is no field, or a text that does not say a value of its type.
    """
    known = {field.name: getattr(settings, field.name) for field in fields(settings)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for name, text in options.items():
        if name in also:
            continue
        if name not in known:
            raise CerError("no such option of this training", name, f"choose from: {', '.join([*known, *also])}")
        given[name] = _value(name, text, type(known[name]))
    return replace(settings, **given)  # type: ignore[type-var]


def whole(options: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of at least 0.

    Raises:
        CerError: the text is none.
    """
    value = _value(name, options[name], int) if name in options else default
    if value < 0:
        raise CerError(f"{name} must not be negative", str(value))
    return value


def choice(options: Mapping[str, str], name: str, allowed: Sequence[str]) -> str:
    """One of some words; the first unless given.

    Raises:
        CerError: another word.
    """
    value = options.get(name, allowed[0])
    if value not in allowed:
        raise CerError(f"{name} cannot be this", value, f"choose one of: {', '.join(allowed)}")
    return value


def _value(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise CerError(f"{name} is either true or false", text)
    try:
        return kind(text)
    except ValueError:
        what = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
        raise CerError(f"{name} is {what}", text) from None
