"""Frame predictions in the text format of the ABAW challenges (Kollias et al. 2024, "7th ABAW competition").

Belongs here: that format. Does not belong here: other formats.

Each video has one file for every challenge; all files are written or none. `compound/VIDEO.txt` has the header
`image_location,` and the seven compounds, then a line `VIDEO/00001.jpg,K` for every frame, with the index K of the top
compound, 0 to 6. `basic/VIDEO.txt` has the eight basic emotions as header, then an index 0 to 7 for every frame. Frames
are counted from 1. A frame without a value has -1, as in the challenges; no value is filled forward. The challenges
score one class for every frame, so a frame with a value has its top class also where no expression is clear
(`compound.clear`). A video id that is too long for a file name is cut and gets a digest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from cer_pipeline.arrow import matrix, texts
from cer_pipeline.corpora.shards import shards
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.protocols import top
from cer_pipeline.export.registry import Request
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.store.files import commit_tree, file_name
from cer_pipeline.store.home import Home


def export(request: Request) -> list[Path]:
    """Write the files of every video that has frames, below `compound/` and `basic/` in the output folder.

    Returns:
        The two folders.

    Raises:
        CerError: unknown corpus, tables that have not been made, or no video with frames.
    """
    commit_tree(request.out, lambda folder: _write(request.home, request.corpus, folder))
    return [request.out / "compound", request.out / "basic"]


def _write(home: Home, name: str, out: Path) -> None:
    columns = ["video_id", "frame", *BASIC_COLUMNS, *COMPOUND_COLUMNS]
    count = 0
    for shard in shards(home, name):
        table = shard.table("frame_predictions", columns)
        for video, rows in _videos(table):
            frames: list[int] = rows.column("frame").to_pylist()
            basic, compound = (top(matrix(rows, group)).tolist() for group in (BASIC_COLUMNS, COMPOUND_COLUMNS))
            _save(out / "basic" / text_file(video), [",".join(BASIC), *map(str, basic)])
            lines = [f"{video}/{frame + 1:05d}.jpg,{k}" for frame, k in zip(frames, compound, strict=True)]
            header = ",".join(["image_location", *(label.replace(" ", "_") for label in COMPOUND)])
            _save(out / "compound" / text_file(video), [header, *lines])
            count += 1
    if not count:
        raise CerError("the corpus has no frames", name, f"use `cer export {name} --to parquet`")


def text_file(video: str) -> Path:
    """Return the path of the text file of a video below the folder of a challenge."""
    *folders, last = video.split("/")
    return Path(*(file_name(part) for part in folders), file_name(last, ".txt"))


def _videos(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield every video with its frames, in order, without the single row (frame -1) of a video that failed."""
    table = table.filter(pa.array(np.asarray(table.column("frame").to_numpy()) >= 0))
    names = texts(table, "video_id")
    starts = [i for i, v in enumerate(names) if i == 0 or v != names[i - 1]]
    for start, stop in itertools.pairwise([*starts, len(names)] if starts else []):
        yield names[start], table.slice(start, stop - start)


def _save(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
