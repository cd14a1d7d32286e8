"""Metadata shown in the Dagster UI.

Belongs here: the mapping of library facts to Dagster's metadata types. Does not belong here: computing or drawing them.

Keys have no spaces, so that they can be named in searches and in GraphQL.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets.keys import asset_key
from assets.unstable import unstable_interfaces
from cer_pipeline.compound.clear import Clear, clear_rows
from cer_pipeline.lineage.columns import column_sources
from cer_pipeline.report.caption_quality import COLUMNS, ViewQuality, caption_quality
from cer_pipeline.report.plots import table_plot
from cer_pipeline.stage import StageSpec
from cer_pipeline.status import Status
from cer_pipeline.store.materialise import Report
from cer_pipeline.tables import CAPTIONS, TableSpec
from resources.tables import Tables


def table_metadata(table: TableSpec) -> dict[str, Any]:
    """Return the name of a table, what a row is, and its columns with type and meaning."""
    columns = [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=(field.metadata or {}).get(b"comment", b"").decode(),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in table.stored_schema
    ]
    return {
        "dagster/table_name": table.name,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "row": table.row,
    }


def stage_metadata(spec: StageSpec, specs: Mapping[str, StageSpec]) -> dict[str, Any]:
    """Return what holds for every materialisation of a stage: its table, lineage, source, settings and models.

    Args:
        spec: the stage.
        specs: all stages by table.
    """
    return {
        **table_metadata(spec.table),
        **column_lineage(spec, specs),
        "columns_read": table_value(("table", "columns"), ((t, ", ".join(names)) for t, names in spec.reads.items())),
        **code_reference(spec.stage),
        "settings_read": ", ".join(f"[{section}]" for section in spec.config) or "none",
        "models": ", ".join((*spec.models, *spec.optional_models)) or "none",
    }


def run_metadata(spec: StageSpec, report: Report, tables: Tables, shard: str) -> dict[str, Any]:
    """Return what one materialisation did and what the table holds now."""
    footer, inputs = report.footer, tables.inputs(shard)
    out: dict[str, Any] = {
        "dagster/row_count": footer.rows,
        "rows_ok": footer.by_status.get(Status.OK, 0),
        "rows_by_status": table_value(("status", "rows"), footer.by_status.items()),
        "units": footer.units,
        "units_cached": report.cached,
        "units_computed": report.computed,
        "unchanged": report.unchanged,
        "seconds": round(report.seconds, 3),
        "counters": dg.MetadataValue.json(report.counters),
        "file": dg.MetadataValue.path(str(inputs.home.table(spec.name, report.corpus, report.shard))),
        "plan": footer.plan,
    }
    if models := (*spec.models, *spec.optional_models):
        zoo = tables.zoo()
        out["weights"] = dg.MetadataValue.json({model: zoo.digest(model) or "absent" for model in models})
    if spec.table is CAPTIONS and (views := caption_quality([inputs.table(spec.name, COLUMNS)])):
        names = tuple(ViewQuality.__annotations__)
        out["caption_quality"] = table_value(names, [tuple(getattr(view, n) for n in names) for view in views])
    clear = clear_rows(inputs, spec.name, Clear.of(tables.settings.get_profile()))
    if clear:
        out["clear_expression"] = clear
    if png := table_plot(spec.table, inputs, clear):
        out["plot"] = picture_value(spec.name, png)
    return out


def table_value(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dg.TableMetadataValue:
    """Return rows of plain values as a table; the types are those of the first row, text without any."""
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    first = records[0] if records else dict.fromkeys(columns, "")
    types = {bool: "bool", int: "int", float: "float"}
    schema = dg.TableSchema([dg.TableColumn(name, types.get(type(value), "string")) for name, value in first.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema)


def picture_value(title: str, png: bytes) -> dg.MarkdownMetadataValue:
    """Return a PNG that lies in the event itself, so that it is shown without the file."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def numbers_by_key(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return numbers under metadata keys: "dev / all views / uar" -> dev/all_views/uar."""
    return {re.sub(r" +", "_", name.replace(" / ", "/")): number for name, number in numbers.items()}


def code_reference(path: str) -> dict[str, Any]:
    """Return the file and line of a class or function, found in the source text so that its module is not imported.

    Args:
        path: import path "package.module:name".
    """
    module, _, name = path.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None, path
    lines = Path(spec.origin).read_text("utf-8").splitlines()
    pattern = re.compile(rf"(class|def) {re.escape(name)}\b")
    number = next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)
    with unstable_interfaces():
        reference = dg.LocalFileCodeReference(file_path=spec.origin, line_number=number, label=path)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def column_lineage(spec: StageSpec, specs: Mapping[str, StageSpec]) -> dict[str, Any]:
    """Return the column lineage of a stage's table; none for a table that is made from files alone.

    It belongs to the definition: it is up to 400 KB, and the event log would keep it with every materialisation. The
    open-source UI draws no column lineage; it is there for GraphQL, and `columns_read` says the same in short.
    """
    sources = {
        column: [dg.TableColumnDep(asset_key(table), name) for table, name in found]
        for column, found in column_sources(spec, specs).items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(sources)} if sources else {}
