"""A branch in one module: the level of the sound of a window -> 8 probabilities."""

from functools import partial

import numpy as np
import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.branch import BranchSpec
from cer_pipeline.branches.rows import by_video, empty_row, feature_row, probability_rows, read_features, segment_units
from cer_pipeline.labels import BASIC
from cer_pipeline.sound_file import read_sound_file
from cer_pipeline.stage import StageContext, StageSpec


class Level:
    """`features/loudness`: the level of every window in decibels, 0 at full scale."""

    def __init__(self, context: StageContext) -> None:
        self.inputs = context.inputs

    def __call__(self, units: pa.Table) -> pa.Table:
        rows = [row for video, segments in by_video(units).items() for row in self.video(video, segments)]
        return pa.Table.from_pylist(rows, FEATURES.table.schema)

    def video(self, video: str, segments: list[dict]) -> list[dict]:
        (audio,) = next(self.inputs.batches("audio", video, ["flac", "status", "reason"])).to_pylist()
        if audio["status"] != "ok":
            return [empty_row(segment, audio["status"], audio["reason"]) for segment in segments]
        sound, rate = read_sound_file(audio["flac"])
        starts, counts = (np.array([s[name] for s in segments]) * rate // 5 for name in ("first_sample", "samples"))
        power = [np.square(sound[i : i + n], dtype=float).sum() / n for i, n in zip(starts, counts, strict=True)]
        return [feature_row(s, [10 * np.log10(p + 1e-10)]) for s, p in zip(segments, power, strict=True)]


class Head:
    """`probabilities/loudness`: the louder a window, the less Neutral it is."""

    def __init__(self, context: StageContext) -> None:
        self.features = read_features(context, FEATURES.name)

    def __call__(self, units: pa.Table) -> pa.Table:
        return probability_rows(units, self.features, self.predict, PREDICTED)

    def predict(self, unit: dict, features: np.ndarray) -> tuple[str, np.ndarray]:
        neutral = 1 / (1 + np.exp((float(features[0]) + 20) / 5))
        return "loudness", np.where(np.array(BASIC) == "Neutral", neutral, (1 - neutral) / 7)


def stage(table: tables.TableSpec, text: str, group: str, source: str, by: str, name: str) -> StageSpec:
    plan = partial(segment_units, sources=(source,), by=by)
    return StageSpec(table, text, group, ("segments", source), plan, f"{__name__}:{name}", code_version="1")


FEATURES = stage(tables.features("loudness", 1), "Level of every window.", "features", "audio", "video_id", "Level")
PREDICTED = tables.probabilities("loudness")
PROBABILITIES = stage(PREDICTED, "Emotions by level.", "probabilities", FEATURES.name, "segment_id", "Head")
LOUDNESS = BranchSpec("loudness", "Loudness", "audio", None, FEATURES, PROBABILITIES)
