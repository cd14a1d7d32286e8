"""The branch scene_label_clip (Table 1, ID 14): the stages from frames to probabilities.

Belongs here: the similarities of frames and texts, and the rows of the four tables. Does not belong here: specs
(`label_clip_specs`) or CLIP (`branches.encoders.clip`).

A frame has the probabilities softmax(s cos(image, text)) over the 8 basic emotions, with CLIP's learned factor s
(Radford et al. 2021, section 3.1.2); the text of an emotion is the mean of its prompts (section 3.1.4). A window has
the mean over its frames.

The setting `variant = "published"` is what the published code of the paper does: 15 single words (8 basic and 7
compound emotions), no factor, the mean over frames, and the basic part scaled to the sum 1. Its values are nearly
uniform. The published code reads every frame of a video, this branch the stored frames of the 5 Hz grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from cer_pipeline import tables
from cer_pipeline.branches.encoders import clip
from cer_pipeline.branches.encoders.pretrained import Runner
from cer_pipeline.branches.encoders.specs import CLIP, SIZES
from cer_pipeline.branches.rows import Row, by_video, empty_row, feature_row, probability_rows, read_features
from cer_pipeline.branches.scene.label_clip_specs import FRAMES, NAME
from cer_pipeline.branches.sentences.minilm import load_tokenizer
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.perception.jpeg import decode_jpeg
from cer_pipeline.profiles import EXECUTION
from cer_pipeline.stage import StageContext, video_rows
from cer_pipeline.status import Status

PUBLISHED: Final = "published"
PUBLISHED_WORDS: Final = (
    *("neutral", "angry", "disgusted", "fearful", "happy", "sad", "surprised", "other"),
    *("fearfully surprised", "happily surprised", "sadly surprised", "disgustedly surprised", "angrily surprised"),
    *("sadly fearful", "sadly angry"),
)
MAX_TOKENS: Final = 77  # of CLIP's text tower

Array = NDArray[np.float64]


def unit_length(vectors: NDArray[np.floating]) -> Array:
    """Scale vectors [..., d] to length 1."""
    wide = np.asarray(vectors, np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


class LabelMatch:
    """Texts of the emotions in CLIP's space.

    Args:
        labels: directions [k, d] of length 1; the first 8 in the order of `labels.BASIC`.
        scale: factor of the cosine similarities.
    """

    def __init__(self, labels: Array, scale: float) -> None:
        self.labels, self.scale = labels, scale

    def frames(self, features: NDArray[np.floating]) -> Array:
        """Image features [n, d] -> probabilities [n, k]."""
        return softmax(self.scale * (unit_length(features) @ self.labels.T), axis=-1)

    def mean(self, features: NDArray[np.floating]) -> Array:
        """Image features [n, d] of n >= 1 frames -> probabilities [8] of the frames together."""
        basic = self.frames(features).mean(0)[: len(BASIC)]
        return basic / basic.sum()


def label_match(folder: Path, settings: Mapping[str, Any]) -> LabelMatch:
    """Encode the texts of a profile.

    Args:
        folder: of CLIP.
        settings: section [scene_label_clip].
    """
    network, tokenizer = clip.load_model(folder), load_tokenizer(folder, MAX_TOKENS)
    run = Runner(network, lambda ids: clip.text_features(network, ids), {"device": "cpu", "batch": 1, "threads": 1})

    def directions(prompts: Sequence[str]) -> Array:
        return unit_length(run([torch.tensor(tokenizer.encode(text).ids) for text in prompts]))

    if settings["variant"] == PUBLISHED:
        return LabelMatch(directions(PUBLISHED_WORDS), 1.0)
    prompts = [directions(settings[label.lower()]).mean(0) for label in BASIC]
    return LabelMatch(unit_length(np.stack(prompts)), clip.logit_scale(network))


class EncodeFrames:
    """Stage frame_features/clip_vit_b32: CLIP on every stored frame."""

    def __init__(self, context: StageContext) -> None:
        self.inputs, self.counters = context.inputs, context.counters
        network = clip.load_model(context.weights.path(CLIP))
        self.side = network.config.vision_config.image_size
        self.run = Runner(network, lambda x: clip.image_features(network, x), context.profile[EXECUTION])
        self.schema = tables.frame_features(CLIP, SIZES[CLIP]).schema

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video, streamed so that its pictures never lie in memory together."""
        rows = [row for video in units.column("video_id").to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _video(self, video: str) -> Iterator[Row]:
        for batch in self.inputs.batches("frames", video, ["sample", "jpeg", "status", "reason"]):
            frames = batch.to_pylist()
            shown = [clip.preprocess(_rgb(f["jpeg"]), self.side) for f in frames if f["status"] == Status.OK]
            features = iter(self.run(shown) if shown else ())
            self.counters[f"calls/{CLIP}"] += len(shown)
            for frame in frames:
                values = next(features).tolist() if frame["status"] == Status.OK else None
                keys = {"video_id": video, "sample": frame["sample"], "features": values}
                yield keys | {"status": frame["status"], "reason": frame["reason"]}


def _rgb(jpeg: bytes) -> NDArray[np.uint8]:
    return np.ascontiguousarray(decode_jpeg(jpeg)[:, :, ::-1])


class _Windows:
    """The frame features of the windows of a batch."""

    def __init__(self, context: StageContext) -> None:
        self.inputs = context.inputs

    def of(self, units: pa.Table) -> Iterator[tuple[Row, list[Row]]]:
        """Each segment with the rows of its samples."""
        for video, segments in by_video(units).items():
            rows = {row["sample"]: row for row in video_rows(self.inputs, FRAMES, video, _COLUMNS)}
            for segment in segments:
                own = range(segment["first_sample"], segment["first_sample"] + segment["samples"])
                yield segment, [rows[sample] for sample in own if sample in rows]


_COLUMNS: Final = ("sample", "features", "status", "reason")


def _matrix(rows: Sequence[Row]) -> NDArray[np.float32]:
    return np.array([row["features"] for row in rows if row["status"] == Status.OK], np.float32)


class Features:
    """Stage features/scene_label_clip."""

    def __init__(self, context: StageContext) -> None:
        self.windows = _Windows(context)

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment; without a frame it has the status of its first sample."""
        rows = [self._row(segment, frames) for segment, frames in self.windows.of(units)]
        return pa.Table.from_pylist(rows, schema=tables.features(NAME, SIZES[CLIP]).schema)

    def _row(self, segment: Row, frames: Sequence[Row]) -> Row:
        if segment["status"] != Status.OK:
            return empty_row(segment)
        features = _matrix(frames)
        if len(features):
            return feature_row(segment, unit_length(features).mean(0).astype(np.float32).tolist())
        if frames:
            return empty_row(segment, frames[0]["status"], frames[0]["reason"])
        return empty_row(segment, Status.NO_VIDEO, "no frame in the window")


class Probabilities:
    """Stage probabilities/scene_label_clip: the mean over the frames of a window."""

    def __init__(self, context: StageContext) -> None:
        self.windows = _Windows(context)
        self.match = label_match(context.weights.path(CLIP), context.profile[NAME])
        self.model = f"{CLIP}:{context.profile[NAME]['variant']}"
        self.features = read_features(context, f"features/{NAME}")

    def __call__(self, units: pa.Table) -> pa.Table:
        """One row a segment."""
        frames = {segment["segment_id"]: _matrix(rows) for segment, rows in self.windows.of(units)}

        def predict(unit: Row, _: NDArray[np.float32]) -> tuple[str, Array]:
            return self.model, self.match.mean(frames[unit["segment_id"]])

        return probability_rows(units, self.features, predict, tables.probabilities(NAME))


class Samples:
    """Stage samples/scene_label_clip: the prediction for every stored frame."""

    def __init__(self, context: StageContext) -> None:
        self.inputs = context.inputs
        self.match = label_match(context.weights.path(CLIP), context.profile[NAME])

    def __call__(self, units: pa.Table) -> pa.Table:
        """All samples of each video."""
        rows = [row for video in units.column("video_id").to_pylist() for row in self._video(video)]
        return pa.Table.from_pylist(rows, schema=tables.sample_probabilities(NAME).schema)

    def _video(self, video: str) -> Iterator[Row]:
        for frame in video_rows(self.inputs, FRAMES, video, _COLUMNS):
            row = {"video_id": video, "sample": frame["sample"], "faces": 0}
            if frame["status"] == Status.OK:
                values = self.match.mean(np.array([frame["features"]], np.float32))
                row |= dict(zip(BASIC_COLUMNS, values.tolist(), strict=True))
            yield row | {"status": frame["status"], "reason": frame["reason"]}
