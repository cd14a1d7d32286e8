"""An export format of another package: one JSON line for every segment.

Its package registers the function in pyproject.toml:

    [project.entry-points."cer_pipeline.exports"]
    jsonl = "its_package.jsonl:export"

`cer export CORPUS --to jsonl` then writes CORPUS.jsonl.
"""

import json
from pathlib import Path

from cer_pipeline.export.long_form import compounds
from cer_pipeline.export.registry import Request
from cer_pipeline.labels import COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.store.files import commit_bytes


def export(request: Request) -> list[Path]:
    """Write one JSON object a line: the segment, its probabilities by PPA, and the clear expression.

    Args:
        request: home folder, corpus, output folder, and the rule for a clear expression.

    Returns:
        The file.

    Raises:
        CerError: unknown corpus, or its tables have not been made.
    """
    lines = []
    for row in compounds(request.home, request.corpus, request.rule).to_pylist():
        if row["method"] == "ppa":
            probabilities = {label: row[column] for label, column in zip(COMPOUND, COMPOUND_COLUMNS, strict=True)}
            record = {name: row[name] for name in ("video_id", "start_s", "end_s", "status", "reason", "expression")}
            lines.append(json.dumps(record | {"probabilities": probabilities}))
    path = request.out / f"{request.corpus}.jsonl"
    commit_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return [path]
