"""`cer settings`: what can be set, what holds here, and what a change costs.

Belongs here: printing. Does not belong here: what a setting is (`profiles`) or which tables it changes (`pipeline`).
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

app = typer.Typer(help="What can be set, what holds here, and what a change costs.", no_args_is_help=True)

LONGEST = 60
"""Characters of a value in the table; `explain` prints it whole."""


@app.command("show")
def show(
    section: Annotated[str, typer.Argument(help="Only this section.")] = "",
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from the profile's.")] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """List settings with value, unit, and where each value comes from."""
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
        print("`cer settings explain SETTING` prints meaning, range, reason, and what is computed anew when it changes")
    else:
        print(f"all settings are those of the profile {profile}")


@app.command("explain")
def explain(
    key: Annotated[str, typer.Argument(metavar="SECTION.SETTING", help="The setting.")],
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Print all that is known of one setting, and which tables are computed anew when it changes."""
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
        return "no result: nothing is computed anew"
    if section == REPORT:
        return "no table: what pictures, summaries and exports show"
    if section == CAPTIONS:
        return "captions, and what is made from them, where the captioner becomes another one; else no result"
    if not first and section in {spec.section for spec in CAPTIONERS.values()}:
        return "no result while captions.backend names another captioner"
    if not first:
        return "the graph itself: tables of the branches, fused and what is made from it"
    text = f"computes {', '.join(first)} anew"
    return f"{text}; then, where their inputs come out different: {', '.join(later)}" if later else text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    text = safe(_plain(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
