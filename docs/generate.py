"""Write what docs/ repeats of the code: docs/tables.md, the pictures of architecture.md, the examples of extending.md.

Run `python docs/generate.py`. A test compares the files with what this module makes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from cer_pipeline.markdown import table
from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageSpec
from cer_pipeline.tables import METRICS, STORE_COLUMNS, Column

TABLES = Path(__file__).with_name("tables.md")
ARCHITECTURE = Path(__file__).with_name("architecture.md")
EXTENDING = Path(__file__).with_name("extending.md")
EXAMPLES = ("branch", "corpus_format", "captioner", "export")  # modules of docs/examples
CONTRACT = "No package imports one above it"
MEANING = {
    "ok": "the row has its value",
    "no_video": "the container has no video stream, or no picture at this time",
    "no_face": "no verified face of a subject",
    "no_audio": "the container has no audio stream",
    "no_speech": "no speech was detected",
    "empty_transcript": "speech was detected, but no word was recognised with sufficient confidence",
    "not_english": "the speech is in another language, and the branch reads English only",
    "undecodable": "the file, or this part of it, is damaged",
    "model_unavailable": "a weight or a trained head is not on this machine",
    "no_caption": "a view has no text for this segment, or none that is a caption; `reason` names the cause",
    "no_label": "the segment is not annotated, or every annotation in it is a sentinel",
    "not_applicable": "the method does not apply to this input (PFSA: texts of the rule-based captioner)",
    "failed": "an unforeseen error, named in `reason`; the next run computes the row again",
}


def tables_document() -> str:
    """Text of docs/tables.md."""
    parts = [
        "# Tables",
        "",
        "Made by `python docs/generate.py` from the table specs. The path of a table is",
        "`$CER_HOME/tables/TABLE/corpus=NAME/shard=sNNN/data.parquet` (zstd). Times are seconds from the start of the",
        "container. Rows are sorted by the key.",
        "",
        "## Statuses",
        "",
        table(("status", "meaning"), ((f"`{status}`", meaning) for status, meaning in MEANING.items())),
        "",
        "## Columns that the store adds to every table",
        "",
        _columns(STORE_COLUMNS),
    ]
    for spec in stages(load_profile()):
        parts += [
            "",
            f"## {spec.table.name}",
            "",
            f"{spec.description} One row per {spec.table.row}. Key: {', '.join(f'`{k}`' for k in spec.table.key)}.",
            f"Made from: {', '.join(f'`{n}`' for n in spec.inputs) or 'the files of the corpus'}.",
            "",
            _columns(spec.table.columns),
        ]
    parts += [
        "",
        f"## {METRICS.name}",
        "",
        "Scores of a labelled corpus, made by `cer evaluate` from all its shards; its one shard is `all`.",
        f"One row per {METRICS.row}. Key: {', '.join(f'`{k}`' for k in METRICS.key)}.",
        "",
        _columns(METRICS.columns),
    ]
    return "\n".join(parts) + "\n"


def architecture_document(text: str) -> str:
    """Text of docs/architecture.md with its pictures made anew.

    Args:
        text: the document as it is.
    """
    pictures = {"layers": _layers(), "flow": _flow()}
    return _with_blocks(text, "mermaid", {name: "\n".join(lines) for name, lines in pictures.items()})


def extending_document(text: str) -> str:
    """Text of docs/extending.md with the examples as they are.

    Args:
        text: the document as it is.
    """
    folder = EXTENDING.with_name("examples")
    return _with_blocks(text, "python", {name: (folder / f"{name}.py").read_text("utf-8") for name in EXAMPLES})


def _with_blocks(text: str, language: str, blocks: Mapping[str, str]) -> str:
    """Replace what stands between the marks `<!-- NAME: ... -->` and `<!-- end -->` by a code block."""
    for name, content in blocks.items():
        block = f"```{language}\n{content.rstrip()}\n```"
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, count=1, flags=re.DOTALL)
    return text


def _layers() -> Iterator[str]:
    """The layers of pyproject.toml, from the top down."""
    settings = tomllib.loads((TABLES.parents[1] / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["name"] == CONTRACT)
    yield "flowchart TD"
    for number, layer in enumerate(layers):
        yield f'    l{number}["{layer.replace(" : ", ", ")}"]'
    yield "    " + " --> ".join(f"l{number}" for number in range(len(layers)))


def _flow() -> Iterator[str]:
    """Table families by asset group, and which family reads which."""
    specs = stages(load_profile())
    groups: dict[str, list[str]] = {}
    edges: dict[tuple[str, str], None] = {}
    for spec in specs:
        family = _family(spec)
        members = groups.setdefault(spec.group, [])
        if family not in members:
            members.append(family)
        for name in spec.inputs:
            edges[(name.partition("/")[0], family.partition("/")[0])] = None
    yield "flowchart LR"
    for group, families in groups.items():
        yield f"    subgraph group_{group} [{group}]"
        yield from (f'        {family.partition("/")[0]}["{family}"]' for family in families)
        yield "    end"
    yield from (f"    {source} --> {target}" for source, target in edges)


def _family(spec: StageSpec) -> str:
    """Name of the table, or "features/..." for one of a family."""
    family, slash, _ = spec.name.partition("/")
    return f"{family}/..." if slash else family


def _columns(columns: tuple[Column, ...]) -> str:
    rows = ((f"`{c.name}`", c.type, "yes" if c.nullable else "no", c.meaning) for c in columns)
    return table(("column", "type", "may be null", "meaning"), rows)


if __name__ == "__main__":
    TABLES.write_text(tables_document(), encoding="utf-8")
    ARCHITECTURE.write_text(architecture_document(ARCHITECTURE.read_text("utf-8")), encoding="utf-8")
    EXTENDING.write_text(extending_document(EXTENDING.read_text("utf-8")), encoding="utf-8")
