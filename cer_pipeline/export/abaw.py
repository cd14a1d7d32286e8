"""Frame predictions in the text form of the ABAW challenges.

Belongs here: that form. Does not belong here: other forms (`long_form`).

One file a video and challenge, all of them or none. An id that is longer than the name of a file can be is cut, with a
digest behind it. `compound/VIDEO.txt`: the header `image_location,` and the seven compounds, then one
line a frame, `VIDEO/00001.jpg,K` with the number K of the top compound, 0 to 6. `basic/VIDEO.txt`: the eight basic
emotions as header, then one number 0 to 7 a frame; line n is frame n. Frames are counted from 1. A frame without a
value has -1, the challenges' own mark for none: nothing is filled forward. (Formats: Kollias et al. 2024, "7th ABAW
competition".) The challenges score one class for every frame, so a frame with a value has its first class here also
where no expression is clear (`compound.clear`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from cer_pipeline.arrow import matrix, texts
from cer_pipeline.errors import CerError
from cer_pipeline.evaluation.protocols import top
from cer_pipeline.evaluation.read import shards
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.store.files import commit_tree, file_name
from cer_pipeline.store.home import Home

FORMAT: Final = "abaw"


def export(home: Home, name: str, out: Path) -> list[Path]:
    """Write the files of every video that has frames.

    Args:
        home: the home folder.
        name: the corpus.
        out: folder; `compound/` and `basic/` are made below it.

    Returns:
        The two folders.

    Raises:
        CerError: no such corpus, its tables have not been made, or no video of it has frames.
    """
    commit_tree(out, lambda folder: _write(home, name, folder))
    return [out / "compound", out / "basic"]


def _write(home: Home, name: str, out: Path) -> None:
    columns = ["video_id", "frame", *BASIC_COLUMNS, *COMPOUND_COLUMNS]
    count = 0
    for shard in shards(home, name):
        table = shard.table("frame_predictions", columns)
        for video, rows in _videos(table):
            places: list[int] = rows.column("frame").to_pylist()
            basic, compound = (top(matrix(rows, group)).tolist() for group in (BASIC_COLUMNS, COMPOUND_COLUMNS))
            _save(out / "basic" / place_of(video), [",".join(BASIC), *map(str, basic)])
            lines = [f"{video}/{frame + 1:05d}.jpg,{k}" for frame, k in zip(places, compound, strict=True)]
            header = ",".join(["image_location", *(label.replace(" ", "_") for label in COMPOUND)])
            _save(out / "compound" / place_of(video), [header, *lines])
            count += 1
    if not count:
        raise CerError("the corpus has no frames", name, f"use `cer export {name} --to parquet`")


def place_of(video: str) -> Path:
    """Where the text file of a video lies below the folder of a challenge."""
    *folders, last = video.split("/")
    return Path(*(file_name(part) for part in folders), file_name(last, ".txt"))


def _videos(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The frames of every video, in order; the one row of a video whose frames failed is left out."""
    table = table.filter(pa.array(np.asarray(table.column("frame").to_numpy()) >= 0))
    names = texts(table, "video_id")
    starts = [i for i, v in enumerate(names) if i == 0 or v != names[i - 1]]
    for start, stop in itertools.pairwise([*starts, len(names)] if starts else []):
        yield names[start], table.slice(start, stop - start)


def _save(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
