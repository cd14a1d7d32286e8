"""What a person sees beside an asset in the Dagster UI.

Belongs here: putting library facts into Dagster's metadata types. Does not belong here: computing or drawing them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg

from cer_pipeline.compound.clear import Clear, clear_rows
from cer_pipeline.report.plots import table_plot
from cer_pipeline.stage import StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.materialise import Report
from resources.tables import Tables


def asset_metadata(spec: StageSpec) -> dict[str, Any]:
    """What holds for every materialisation: the schema with the meaning of each column, and what a row is."""
    columns = [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=(field.metadata or {}).get(b"comment", b"").decode(),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in spec.table.stored_schema
    ]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": spec.name,
        "one row per": spec.table.row,
        "settings read": ", ".join(f"[{section}]" for section in spec.config) or "none",
        "models": ", ".join((*spec.models, *spec.optional_models)) or "none",
    }


def run_metadata(spec: StageSpec, report: Report, tables: Tables, shard: str) -> dict[str, Any]:
    """What one materialisation did and what the table holds now."""
    footer = report.footer
    inputs = tables.inputs(shard)
    path = inputs.home.table(spec.name, report.corpus, report.shard)
    out: dict[str, Any] = {
        "dagster/row_count": footer.rows,
        "rows ok": footer.by_status.get(Status.OK, 0),
        "rows by status": dg.MetadataValue.md(_counts_table("status", "rows", footer.by_status)),
        "units": footer.units,
        "units cached": report.cached,
        "units computed": report.computed,
        "unchanged": report.unchanged,
        "seconds": round(report.seconds, 3),
        "counters": dg.MetadataValue.json(report.counters),
        "file": dg.MetadataValue.path(str(path)),
        "plan": footer.plan,
    }
    weights = {model: tables.zoo().digest(model) or "absent" for model in (*spec.models, *spec.optional_models)}
    if weights:
        out["weights"] = dg.MetadataValue.json(weights)
    note = clear_rows(inputs, spec.name, Clear.of(tables.settings.get_profile()))
    if note:
        out["clear expression"] = note
    picture = table_plot(spec.table, inputs, note)
    if picture:
        out["plot"] = dg.MetadataValue.md(f"![{spec.name}](data:image/png;base64,{base64.b64encode(picture).decode()})")
    return out


def check_metadata(**facts: Any) -> dict[str, Any]:
    """Facts of a check: numbers as they are, lists as JSON."""
    return {name: dg.MetadataValue.json(v) if isinstance(v, list) else v for name, v in facts.items()}


def _counts_table(key: str, value: str, counts: Mapping[str, int]) -> str:
    lines = [f"| {key} | {value} |", "|---|---:|", *(f"| {name} | {count} |" for name, count in counts.items())]
    return "\n".join(lines)
