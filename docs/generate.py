"""Writes docs/tables.md from the table specs and statuses: `python docs/generate.py`. A test holds it up to date."""

from __future__ import annotations

from pathlib import Path

from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.tables import METRICS, STORE_COLUMNS, Column

TARGET = Path(__file__).with_name("tables.md")
MEANING = {
    "ok": "the row has its value",
    "no_video": "the container has no video stream, or none at this time",
    "no_face": "no verified face of a subject",
    "no_audio": "the container has no audio stream",
    "no_speech": "no speech was found",
    "empty_transcript": "speech was found, but no word was recognised, or none that can be believed",
    "not_english": "the speech is of another language, and what reads it knows English only",
    "undecodable": "the file, or this span of it, is damaged",
    "model_unavailable": "a weight or a trained head is not on this machine",
    "no_caption": "a view has no text for this segment, or none that is a caption; `reason` says which",
    "no_label": "nobody annotated it, or every annotation in it is a sentinel",
    "not_applicable": "the method does not judge this kind of input (PFSA: the describer's texts); nothing is missing",
    "failed": "an unforeseen error, told in `reason`; tried again by the next run",
}


def document() -> str:
    """The text of docs/tables.md."""
    parts = [
        "# Tables",
        "",
        "Made by `python docs/generate.py` from the table specs. A table lies in",
        "`$CER_HOME/tables/TABLE/corpus=NAME/shard=sNNN/data.parquet` (zstd). Times are seconds from the start of the",
        "container. Rows are sorted by the key.",
        "",
        "## Statuses",
        "",
        "| status | meaning |",
        "|---|---|",
        *(f"| `{status}` | {meaning} |" for status, meaning in MEANING.items()),
        "",
        "## Columns that the store adds to every table",
        "",
        *_columns(STORE_COLUMNS),
    ]
    for spec in stages(load_profile()):
        table = spec.table
        parts += [
            "",
            f"## {table.name}",
            "",
            f"{spec.description} One row per {table.row}. Key: {', '.join(f'`{k}`' for k in table.key)}.",
            f"Made from: {', '.join(f'`{n}`' for n in spec.inputs) or 'the files of the corpus'}.",
            "",
            *_columns(table.columns),
        ]
    parts += [
        "",
        f"## {METRICS.name}",
        "",
        "Scores of a labelled corpus, made by `cer evaluate` from all its shards; its one shard is `all`.",
        f"One row per {METRICS.row}. Key: {', '.join(f'`{k}`' for k in METRICS.key)}.",
        "",
        *_columns(METRICS.columns),
    ]
    return "\n".join(parts) + "\n"


def _columns(columns: tuple[Column, ...]) -> list[str]:
    rows = [f"| `{c.name}` | {c.type} | {'yes' if c.nullable else 'no'} | {c.meaning} |" for c in columns]
    return ["| column | type | may be null | meaning |", "|---|---|---|---|", *rows]


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
