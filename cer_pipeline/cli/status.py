"""`cer status`: rows by status and state of every table and shard.

Belongs here: printing `pipeline.table_states`. Does not belong here: computing states (`pipeline`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cer_pipeline.cli.absent import print_absent
from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import print_json, print_table, say, status_counts
from cer_pipeline.cli.run import absent_folder_message
from cer_pipeline.profiles import DEFAULT_PROFILE

if TYPE_CHECKING:
    from cer_pipeline.pipeline import TableState


def status(
    name: Annotated[str | None, typer.Argument(help="The corpus. Default: all.")] = None,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Print rows by status, state and cached units of every table and shard."""
    from cer_pipeline.corpora import registry
    from cer_pipeline.pipeline import stages, table_states
    from cer_pipeline.store.home import default_home
    from cer_pipeline.zoo import open_zoo

    home = default_home()
    settings = settings_of(home, profile, set_)
    specs, zoo = stages(settings), open_zoo(heads=home.heads)
    states_of = {}
    for corpus in [registry.load(home.root, n) for n in ([name] if name else registry.names(home.root))]:
        if absent := registry.why_absent(corpus):
            say(absent_folder_message(corpus, absent))
        states_of[corpus.name] = table_states(specs, home, settings, zoo, corpus.name, corpus.shard_labels())
    if json:
        print_json({"home": str(home.root), "corpora": {corpus: _document(s) for corpus, s in states_of.items()}})
    elif not states_of:
        print("no corpus is registered; next: cer corpus add NAME PATH")
    for corpus, states in states_of.items() if not json else ():
        rows = [
            (
                s.table,
                s.shard,
                s.state.value,
                str(s.footer.rows if s.footer else 0),
                status_counts(s.footer.by_status) if s.footer else "",
                "" if s.units is None else f"{s.cached}/{s.units}",
            )
            for s in states
        ]
        columns = ("table", "shard", "state", "rows", "by status", "units cached")
        print_table(f"Corpus {corpus}", columns, rows, right=("rows", "units cached"))
        print_absent(specs, zoo, [s.footer.by_status for s in states if s.footer])


def _document(states: list[TableState]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for s in states:
        entry = tables.setdefault(
            s.table, {"rows": 0, "by_status": {}, "units": 0, "cached": 0, "states": {}, "shards": {}}
        )
        by_status = s.footer.by_status if s.footer else {}
        entry["rows"] += s.footer.rows if s.footer else 0
        entry["by_status"] = dict(sorted((Counter(entry["by_status"]) + Counter(by_status)).items()))
        entry["units"] += s.units or 0
        entry["cached"] += s.cached or 0
        entry["states"][s.state.value] = entry["states"].get(s.state.value, 0) + 1
        entry["shards"][s.shard] = {
            "state": s.state.value,
            "rows": s.footer.rows if s.footer else 0,
            "by_status": by_status,
            "units": s.units,
            "cached": s.cached,
        }
    return {"tables": tables}
