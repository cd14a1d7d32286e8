"""The stages that open media, run over a folder as the pipeline runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cer_pipeline.arrow import pc
from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.media import stages
from cer_pipeline.media.sandbox import Sandbox
from cer_pipeline.media.specs import STAGES
from cer_pipeline.profiles import load_profile
from cer_pipeline.sound_file import SAMPLE_RATE_HZ, read_sound_file
from cer_pipeline.stage import StageContext
from tests.helpers.memory_inputs import MemoryInputs, NoWeights


@dataclass
class FolderInputs(MemoryInputs):
    """`stage.Inputs` of a registered folder, tables in memory."""

    registration: Corpus | None = None

    def registered(self) -> Corpus:
        assert self.registration is not None
        return self.registration

    def source(self, video_id: str) -> Path:
        return self.registered().source(video_id)


@dataclass
class Made:
    """The tables of a folder."""

    tables: dict[str, pa.Table]
    counters: Counter[str] = field(default_factory=Counter)

    def rows(self, table: str, video_id: str) -> list[dict]:
        """The rows of one video."""
        rows = self.tables[table]
        return rows.filter(pc.equal(rows.column("video_id"), video_id)).to_pylist()

    def video(self, video_id: str) -> dict:
        """The row of one video in `videos`."""
        (row,) = self.rows("videos", video_id)
        return row

    def sound(self, video_id: str) -> NDArray[np.float32]:
        """The sound of one video, [n] at 16 kHz."""
        (row,) = self.rows("audio", video_id)
        samples, rate = read_sound_file(row["flac"])
        assert (rate, samples.shape[1]) == (SAMPLE_RATE_HZ, 1)
        return samples[:, 0]

    def times(self, video_id: str) -> list[float]:
        """The times of all frames of one video, s."""
        return [time for row in self.rows("frames", video_id) for time in row["frame_times"]]


def make(
    home: Path,
    folder: Path,
    tables: Sequence[str] = ("videos", "segments", "frames", "audio"),
    *overrides: str,
    options: Mapping[str, Any] | None = None,
    sandbox: Sandbox | None = None,
) -> Made:
    """Register a folder and make its tables.

    Args:
        home: home folder for the registration.
        folder: the videos.
        tables: names of the tables.
        overrides: settings.
        options: options of the corpus.
        sandbox: child process for all stages; by default each stage starts its own, which takes half a second.
    """
    registry.register(home, "clips", folder, options=options)
    inputs = FolderInputs(corpus="clips", registration=registry.load(home, "clips"))
    profile, made = load_profile(overrides=overrides), Made(inputs.tables)
    for spec in STAGES:
        if spec.name in tables:
            context = StageContext(profile, NoWeights(), inputs, made.counters)
            with patch.object(stages, "Sandbox", return_value=sandbox) if sandbox else nullcontext():
                stage = spec.load()(context)
            inputs.tables[spec.name] = stage(spec.plan(inputs, profile))
    return made
