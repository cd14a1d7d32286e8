"""`cer settings`: list the settings, explain one, and name the tables that a change recomputes.

Belongs here: printing. Does not belong here: settings (`profiles`) or the tables that they change (`pipeline`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import print_json, print_table, safe
from cer_pipeline.errors import CerError
from cer_pipeline.profiles import CAPTIONS, DEFAULT_PROFILE, EXECUTION, REPORT, nearest

if TYPE_CHECKING:
    from cer_pipeline.profiles.explain import Setting

app = typer.Typer(help="List settings, and explain a setting and the cost of a change.", no_args_is_help=True)

VALUE_WIDTH = 60
"""Maximum length of a value in the table, characters; `explain` prints all of it."""


@app.command("show")
def show(
    section: Annotated[str, typer.Argument(help="Only this section.")] = "",
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from the profile's.")] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """List settings with value, unit and origin of the value."""
    from cer_pipeline.profiles.explain import settings
    from cer_pipeline.store.home import default_home

    listed = list(settings(settings_of(default_home(), profile, set_ or [])))
    sections = {setting.section for setting in listed}
    if section and section not in sections:
        raise CerError("unknown section", section, nearest(section, sections))
    listed = [s for s in listed if section in ("", s.section) and not (changed and s.value == s.default)]
    if json:
        print_json([asdict(setting) for setting in listed])
    elif listed:
        rows = [(s.key, _short(s.value), s.unit, safe(s.origin)) for s in listed]
        print_table(f"Settings of the profile {profile}", ("setting", "value", "unit", "from"), rows)
        print("`cer settings explain SETTING` prints meaning, range, reason, and the tables that a change recomputes")
    else:
        print(f"all settings are those of the profile {profile}")


@app.command("explain")
def explain(
    key: Annotated[str, typer.Argument(metavar="SECTION.SETTING", help="The setting.")],
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Print meaning, value, range and reason of a setting, and the tables that a change recomputes."""
    from cer_pipeline.pipeline import recomputed, stages
    from cer_pipeline.profiles.explain import explain as find
    from cer_pipeline.store.home import default_home

    merged = settings_of(default_home(), profile, set_ or [])
    setting = find(merged, key)
    first, later = recomputed(stages(merged), setting.section)
    if json:
        print_json(asdict(setting) | {"recomputed": first, "recomputed_where_their_inputs_change": later})
        return
    for name, value in _lines(setting):
        if value:
            print(f"{name:<9} {value}")
    print(f"{'changes':<9} {_cost(setting.section, first, later)}")


def _lines(setting: Setting) -> list[tuple[str, str]]:
    return [
        ("setting", setting.key),
        ("meaning", setting.meaning),
        ("value", f"{_plain(setting.value)} {setting.unit}".strip()),
        ("default", f"{_plain(setting.default)} {setting.unit}".strip()),
        ("from", setting.origin),
        ("type", f"{setting.type}, {setting.limits}" if setting.limits else setting.type),
        ("reason", setting.reason),
    ]


def _cost(section: str, first: list[str], later: list[str]) -> str:
    from cer_pipeline.perception.captions.registry import CAPTIONERS

    if section == EXECUTION:
        return "no result; nothing is recomputed"
    if section == REPORT:
        return "no table, but pictures, summaries and exports"
    if section == CAPTIONS:
        return "captions and the tables made from them, if another captioner is chosen; otherwise no result"
    if not first and section in {spec.section for spec in CAPTIONERS.values()}:
        return "no result while captions.backend names another captioner"
    if not first:
        return "the graph: the tables of the branches, fused, and the tables made from it"
    text = f"recomputes {', '.join(first)}"
    return f"{text}; then, if their inputs change: {', '.join(later)}" if later else text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    text = safe(_plain(value))
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"
