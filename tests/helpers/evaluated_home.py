"""A home folder with a small labelled corpus whose tables are made by hand, for tests of evaluation and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus, File, shard_label, shard_of
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS, COMPOUND_PAIRS
from cer_pipeline.store.fingerprint import content_digests
from cer_pipeline.store.home import Home
from cer_pipeline.store.parquet import write_table
from cer_pipeline.tables import COMPOUND_LABEL_COLUMNS, LABEL_COLUMNS, TableSpec
from tests.helpers.memory_inputs import rows, segment

NAME = "toy"
BRANCHES = ("face_static", "scene_minilm", "text_minilm")
FPS = 5.0
NO_VALUE = dict.fromkeys((*BASIC_COLUMNS, *COMPOUND_COLUMNS))
PAIRS = [(BASIC.index(a), BASIC.index(b)) for a, b in COMPOUND_PAIRS]


class ToyCorpus:
    """Twelve videos in two shards and two splits: 7 basic classes, 3 compounds, half of them in a text branch.

    Everything is random but for the labels, which the face branch often guesses. `text_minilm` serves no video of
    dev whose number is odd, and nothing at all of video 11; the rows are kept as plain dicts for naive versions.
    """

    def __init__(self, seed: int = 0, videos: int = 12, labelled: bool = True) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows: dict[str, list[dict]] = {
            name: []
            for name in ("videos", "segments", "labels", "frame_labels", "fused", "compound", "frame_predictions")
        }
        self.rows |= {f"probabilities/{b}": [] for b in BRANCHES}
        self.split = {f"v{i:02d}": "dev" if i % 3 else "train" for i in range(videos)}
        for i, video in enumerate(self.split):
            self._video(video, i, labelled)

    def _video(self, video: str, number: int, labelled: bool) -> None:
        count, split = 1 + number % 3, self.split[video]
        self.rows["videos"].append({"video_id": video, "path": f"{video}.mp4", "sha256": "", "split": split})
        duration = 2.0 * count + 1.5
        frames = np.arange(int(duration * FPS)) / FPS
        fused, mapped = [], []
        for i in range(count):
            end = duration if i == count - 1 else 2.0 * i + 4
            self.rows["segments"].append(segment(video, i) | {"start_s": 2.0 * i, "end_s": end})
            truth = int(self.rng.integers(0, 7))
            self._label(video, i, split, truth, labelled)
            values = self._branches(video, i, number, truth)
            fused.append(np.mean([v for v in values.values() if v is not None], axis=0))
            row = segment(video, i) | dict(zip(BASIC_COLUMNS, fused[-1].tolist(), strict=True))
            self.rows["fused"].append(row | measures(fused[-1], fused[-1]))
            mapped.append(np.array([fused[-1][a] + fused[-1][b] for a, b in PAIRS]))
            mapped[-1] /= mapped[-1].sum()
            for method, p in (("ppa", mapped[-1]), ("pfsa", self.rng.dirichlet(np.ones(7)))):
                row = segment(video, i) | {"method": method}
                row |= dict(zip(COMPOUND_COLUMNS, p.tolist(), strict=True))
                self.rows["compound"].append(row | measures(fused[-1], p))
        for k, time in enumerate(frames):
            held = [i for i in range(count) if 2 * i <= time < (duration if i == count - 1 else 2 * i + 4)]
            row = {"video_id": video, "frame": k, "time_s": float(time), "segments": held}
            row |= dict(zip(BASIC_COLUMNS, np.mean([fused[i] for i in held], axis=0).tolist(), strict=True))
            row |= dict(zip(COMPOUND_COLUMNS, np.mean([mapped[i] for i in held], axis=0).tolist(), strict=True))
            self.rows["frame_predictions"].append(row | {"weights": [1 / len(held)] * len(held)})
            self._frame_label(video, k, number, labelled)
        # One annotated frame that was never shown.
        if labelled:
            self.rows["frame_labels"].append({"video_id": video, "frame": len(frames), "basic": "Neutral"})

    def _label(self, video: str, i: int, split: str, truth: int, labelled: bool) -> None:
        row = segment(video, i) | {"split": split, "annotated": 1.0}
        if not labelled:
            self.rows["labels"].append(row | {"annotated": 0.0, "status": "no_label", "reason": "not annotated"})
            return
        soft = np.zeros(8)
        soft[truth], soft[(truth + 1) % 7] = 0.6, 0.4
        row |= dict(zip(LABEL_COLUMNS, soft.tolist(), strict=True))
        compound = np.zeros(7)
        compound[truth % 3] = 1.0
        self.rows["labels"].append(row | dict(zip(COMPOUND_LABEL_COLUMNS, compound.tolist(), strict=True)))

    def _branches(self, video: str, i: int, number: int, truth: int) -> dict[str, np.ndarray | None]:
        values: dict[str, np.ndarray | None] = {}
        for branch in BRANCHES:
            p = self.rng.dirichlet(np.full(8, 0.6))
            if branch == "face_static":
                p = 0.6 * p + 0.4 * np.eye(8)[truth]
            absent = branch == "text_minilm" and number % 2 == 1
            values[branch] = None if absent else p
            found = {"status": "no_speech", "reason": "silence"} | NO_VALUE if absent else {}
            row = segment(video, i) | dict(zip(BASIC_COLUMNS, p.tolist(), strict=True)) | found
            self.rows[f"probabilities/{branch}"].append(row)
        return values

    def _frame_label(self, video: str, k: int, number: int, labelled: bool) -> None:
        if not labelled:
            if k == 0:
                self.rows["frame_labels"].append({"video_id": video, "frame": -1, "status": "no_label"})
            return
        row = {"video_id": video, "frame": k}
        if k % 4 == 3:  # nobody annotated this frame
            self.rows["frame_labels"].append(row | {"status": "no_label", "reason": "sentinel"})
        else:
            named = {"basic": BASIC[int(self.rng.integers(0, 7))]} if k % 5 else {}
            named |= {"compound": COMPOUND[int(self.rng.integers(0, 3))]} if k % 3 else {}
            self.rows["frame_labels"].append(row | (named or {"status": "no_label"}))


def measures(basic: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Expressed of the basic emotions, confidence and entropy of a row's own distribution, and some agreement."""
    first, second = sorted(own.tolist(), reverse=True)[:2]
    entropy = -sum(v * np.log(v) for v in own.tolist() if v > 0) / np.log(len(own))
    shown = 1 - float(basic[0]) - float(basic[7])
    return {"expressed": shown, "confidence": first - second, "entropy": float(entropy), "agreement": 0.5}


def write(home: Path, corpus: ToyCorpus, name: str = NAME, shards: int = 2, layout: str = "folder") -> Home:
    """Register a corpus and write its tables, shard by shard."""
    made = Home(home)
    files = tuple(
        File(f"{v}.mp4", v, 1, 1, 1, "0" * 64, shard_of(v, shards), split) for v, split in corpus.split.items()
    )
    registry._save(home, Corpus(name, layout, home / "clips", shards, files))
    specs = {s.name: s for s in (tables.VIDEOS, tables.SEGMENTS, tables.LABELS, tables.FRAME_LABELS, tables.COMPOUNDS)}
    specs |= {"fused": tables.fused(BRANCHES), "frame_predictions": tables.FRAME_PREDICTIONS}
    specs |= {f"probabilities/{b}": tables.probabilities(b) for b in BRANCHES}
    for shard in (shard_label(i) for i in range(shards)):
        for table, spec in specs.items():
            mine = [r for r in corpus.rows[table] if shard_of(r["video_id"], shards) == shard]
            write_rows(made, spec, mine, name, shard)
    return made


def write_rows(home: Home, spec: TableSpec, values: Sequence[Mapping], name: str, shard: str) -> None:
    """One shard of a table as the store writes it."""
    table = rows(spec, [dict(v) for v in values]).sort_by([(k, "ascending") for k in spec.key])
    content = content_digests(table, range(table.num_rows))
    table = table.append_column("row_key", pa.array(["key"] * table.num_rows, pa.string()))
    table = table.append_column("content", pa.array(content, pa.string()))
    write_table(home.table(spec.name, name, shard), spec, [table], "plan", len(values))
