"""One `TableSpec` for each table: its columns with meaning and unit, its key, its unit of work and its order.

Belongs here: the schema of every table. The Arrow schema, the validation before a commit, the column descriptions in
the Dagster UI and docs/tables.md are derived from it. Does not belong here: the place of a table (`store`) or its
computation (modules named `stages`).

A *unit* is what a stage computes and the cache stores at once: a video or a segment. All rows of a unit are
consecutive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS

N_LANDMARKS = 478  # MediaPipe FaceLandmarker
N_BLENDSHAPES = 52  # MediaPipe FaceLandmarker
SEPARATOR = "__"
"""Between the name of a combination of branches and the name of its column; neither name contains it."""


def prefix_of(combination: str) -> str:
    """Prefix of the columns of a named combination of branches."""
    return f"{combination}{SEPARATOR}"


def status_column(column: str) -> str:
    """The column with the status of another column: that of its combination, or `status`."""
    combination, separator, _ = column.partition(SEPARATOR)
    if not separator or combination.startswith("w_"):  # a weight, whose branch may have the separator in its name
        return "status"
    return f"{combination}{separator}status"


@dataclass(frozen=True)
class Column:
    """One column: name, Arrow type, meaning with unit, and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = True


@dataclass(frozen=True)
class TableSpec:
    """The schema of a table.

    Args:
        name: table name, also its folder below `tables/`; may hold one slash (`probabilities/face_static`).
        row: what one row is.
        unit: the column that names the unit of work: `video_id` or `segment_id`.
        key: columns that together identify a row; the table is sorted by them.
        columns: all columns except the two that the store adds (`row_key`, `content`).
        distributions: groups of columns that sum to 1 where their status is ok and are null elsewhere.
        blob: whether rows contain media bytes; units are then cached and read one by one.
    """

    name: str
    row: str
    unit: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    distributions: tuple[tuple[str, ...], ...] = ()
    blob: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the rows that a stage returns, without the columns of the store."""
        return _schema(self.columns)

    @property
    def stored_schema(self) -> pa.Schema:
        """Arrow schema of the Parquet file, with the columns of the store."""
        return _schema((*self.columns, *STORE_COLUMNS))


def _schema(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable, metadata={"comment": c.meaning}) for c in columns])


STORE_COLUMNS: tuple[Column, ...] = (
    Column("row_key", pa.string(), "key of the computation: inputs, models, code version and settings", nullable=False),
    Column("content", pa.string(), "digest of all rows of this unit; its readers' keys are made of it", nullable=False),
)
_STATUS = (
    Column("status", pa.string(), "ok, or why there is no value (see docs/tables.md)", nullable=False),
    Column("reason", pa.string(), "what happened where status is not ok"),
)
_VIDEO = Column("video_id", pa.string(), "path of the video inside its corpus, without its ending", nullable=False)
_SAMPLE = Column("sample", pa.int32(), "index k on the 5 Hz grid: time k/5 s", nullable=False)
_SEGMENT = (
    Column("segment_id", pa.string(), "video_id/index", nullable=False),
    _VIDEO,
    Column("segment", pa.int32(), "window index i: [2i, 2i+4) s", nullable=False),
)


def _segment_table(
    name: str, unit: str, *columns: Column, distributions: tuple[tuple[str, ...], ...] = ()
) -> TableSpec:
    """Return a table with one row for each segment: its key, the given columns, status and reason."""
    return TableSpec(name, "segment", unit, ("video_id", "segment"), (*_SEGMENT, *columns, *_STATUS), distributions)


def probability_columns(labels: Sequence[str], names: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of a distribution over labels."""
    return tuple(Column(n, pa.float64(), f"probability of {label}") for label, n in zip(labels, names, strict=True))


_BASIC = probability_columns(BASIC, BASIC_COLUMNS)
_COMPOUND = probability_columns(COMPOUND, COMPOUND_COLUMNS)

_EXPRESSED = "1 - p_neutral - p_other of the fused basic emotions, 0..1: how much is expressed at all"
_AGREEMENT = (
    "1 - Jensen-Shannon divergence of the branches over its largest value, weighted by their shares in the fused "
    "value: 1 all say the same, 0 no two have a class in common"
)


def _certainty(labels: Sequence[str], prefix: str = "") -> tuple[Column, ...]:
    """Return the columns of confidence and entropy of a distribution over labels."""
    of = f"the {len(labels)} probabilities"
    return (
        Column(f"{prefix}confidence", pa.float64(), f"largest less second largest of {of}, 0..1; 0 is a tie"),
        Column(f"{prefix}entropy", pa.float64(), f"Shannon entropy of {of} over log {len(labels)}, 0..1; 1 is uniform"),
    )


_UNCERTAINTY = (
    Column("expressed", pa.float64(), _EXPRESSED),
    *_certainty(BASIC),
    Column("agreement", pa.float64(), f"{_AGREEMENT}; null with fewer than two branches"),
)

VIDEOS = TableSpec(
    name="videos",
    row="video",
    unit="video_id",
    key=("video_id",),
    columns=(
        _VIDEO,
        Column("path", pa.string(), "path below the corpus folder (undecodable bytes as \\xNN)", nullable=False),
        Column("sha256", pa.string(), "SHA-256 of the file", nullable=False),
        Column("bytes", pa.int64(), "file size, bytes", nullable=False),
        Column("container", pa.string(), "container format as FFmpeg names it"),
        Column("duration_s", pa.float64(), "duration D: end of the last packet of picture or sound, s"),
        Column("width", pa.int32(), "width as displayed (after rotation), pixels"),
        Column("height", pa.int32(), "height as displayed (after rotation), pixels"),
        Column("rotation", pa.int32(), "clockwise rotation that was applied for display, degrees"),
        Column("fps", pa.float64(), "mean frame rate, from time stamps, Hz"),
        Column("nominal_fps", pa.float64(), "frame rate that the container declares, Hz"),
        Column("variable_frame_rate", pa.bool_(), "whether the time stamps are unevenly spaced"),
        Column("frames", pa.int64(), "number of video packets"),
        Column("video_codec", pa.string(), "codec of the video stream; null without one"),
        Column("audio_codec", pa.string(), "codec of the sound track that is heard; null without one"),
        Column("audio_rate", pa.int32(), "sample rate of that track, Hz"),
        Column("audio_channels", pa.int32(), "channels of that track"),
        Column("audio_tracks", pa.int32(), "number of sound tracks"),
        Column("audio_track", pa.int32(), "number of the track that is heard, from 1; null where none is"),
        Column("audio_track_reason", pa.string(), "why this track is heard, or why none is"),
        Column("segments", pa.int32(), "number N of windows", nullable=False),
        Column("samples", pa.int32(), "number of samples on the 5 Hz grid", nullable=False),
        Column("split", pa.string(), "split of the corpus that the video belongs to"),
        *_STATUS,
    ),
)
SEGMENTS = TableSpec(
    name="segments",
    row="window of at most 4 s",
    unit="video_id",
    key=("video_id", "segment"),
    columns=(
        *_SEGMENT,
        Column("start_s", pa.float64(), "start 2i, s", nullable=False),
        Column("end_s", pa.float64(), "end, s: start + 4, or D for the last one", nullable=False),
        Column("first_sample", pa.int32(), "first grid sample: 10i", nullable=False),
        Column("samples", pa.int32(), "grid samples in the window, at most 20", nullable=False),
        Column("is_tail", pa.bool_(), "whether the window ends with the video", nullable=False),
        *_STATUS,
    ),
)
FRAMES = TableSpec(
    name="frames",
    row="sample of the 5 Hz grid",
    unit="video_id",
    key=("video_id", "sample"),
    columns=(
        _VIDEO,
        _SAMPLE,
        Column("time_s", pa.float64(), "time of the sample k/5, s", nullable=False),
        Column("source_frame", pa.int64(), "0-based number of the frame shown at that time"),
        Column("source_time_s", pa.float64(), "time stamp of that frame, s"),
        Column("width", pa.int32(), "width of the JPEG, pixels"),
        Column("height", pa.int32(), "height of the JPEG, pixels"),
        Column("jpeg", pa.binary(), "the frame as displayed, long side capped by the profile, JPEG"),
        Column(
            "frame_times",
            pa.list_(pa.float64()),
            "time stamps of all source frames from this sample to the next, s; over a video: its whole time line",
            nullable=False,
        ),
        *_STATUS,
    ),
    blob=True,
)
AUDIO = TableSpec(
    name="audio",
    row="video",
    unit="video_id",
    key=("video_id",),
    columns=(
        _VIDEO,
        Column("sample_rate", pa.int32(), "16000 Hz"),
        Column("duration_s", pa.float64(), "length of the sound, from the container's start, s"),
        Column("mix", pa.string(), "what the one channel is made of: a mean of channels, or one that the mean hides"),
        Column("flac", pa.binary(), "16 kHz mono sound, 16-bit FLAC; sample 0 is time 0 of the container"),
        *_STATUS,
    ),
    blob=True,
)
FACES = TableSpec(
    name="faces",
    row="face on a sample (one row without a box where there is none)",
    unit="video_id",
    key=("video_id", "sample", "face"),
    columns=(
        _VIDEO,
        _SAMPLE,
        Column("face", pa.int32(), "index of the face on the sample, largest first", nullable=False),
        Column("x", pa.float32(), "left edge of the detector's box, pixels of the stored frame"),
        Column("y", pa.float32(), "top edge, pixels"),
        Column("w", pa.float32(), "width, pixels"),
        Column("h", pa.float32(), "height, pixels"),
        Column("score", pa.float32(), "detector score, 0..1"),
        Column(
            "keypoints",
            pa.list_(pa.float32(), 10),
            "five points x, y of the detector: the person's right and left eye, nose tip, right and left corner of the "
            "mouth; pixels of the stored frame",
        ),
        Column("verified", pa.bool_(), "whether the face mesh was found in the expanded box"),
        Column("track", pa.int32(), "track number in the video; null where the face is not verified"),
        Column("is_subject", pa.bool_(), "whether the track is the subject of a window of this sample", nullable=False),
        Column("subject_of", pa.list_(pa.int32()), "windows whose subject this track is", nullable=False),
        Column("yaw", pa.float32(), "head turn, degrees, positive to the person's left"),
        Column("pitch", pa.float32(), "head tilt, degrees, positive up"),
        Column("roll", pa.float32(), "head roll, degrees, positive towards the person's left shoulder"),
        Column("blendshapes", pa.list_(pa.float32(), N_BLENDSHAPES), "52 blendshape scores, 0..1, MediaPipe's order"),
        Column("landmarks", pa.list_(pa.float32(), N_LANDMARKS * 3), "478 points x, y, z: pixels of the stored frame"),
        Column("crop", pa.binary(), "the face with its margin, JPEG"),
        *_STATUS,
    ),
    blob=True,
)
SPEECH = TableSpec(
    name="speech",
    row="speech interval (one row without times where there is none)",
    unit="video_id",
    key=("video_id", "interval"),
    columns=(
        _VIDEO,
        Column("interval", pa.int32(), "index of the interval", nullable=False),
        Column("start_s", pa.float64(), "start, s"),
        Column("end_s", pa.float64(), "end, s"),
        Column("score", pa.float32(), "mean speech probability, 0..1"),
        *_STATUS,
    ),
)
WORD = pa.struct(
    [
        pa.field("word", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("probability", pa.float32()),
    ]
)
TRANSCRIPTS = _segment_table(
    "transcripts",
    "video_id",
    Column("text", pa.string(), "words whose middle falls in the window"),
    Column("words", pa.list_(WORD), "words with start, end (s in the video) and probability"),
    Column(
        "language",
        pa.string(),
        "code of the language of the text; without a text, of the likeliest language; null where nobody speaks",
    ),
    Column(
        "english",
        pa.float32(),
        "probability that the speech in the window is English, by Whisper base before any word is read, 0..1",
    ),
    Column("model", pa.string(), "zoo id of the recogniser"),
)
CAPTIONS = TableSpec(
    name="captions",
    row="segment and view: a text by one model and prompt",
    unit="video_id",
    key=("video_id", "segment", "view"),
    columns=(
        *_SEGMENT,
        Column("view", pa.string(), "which of the segment's texts it is: MODEL_PROMPT, or describer", nullable=False),
        Column("prompt", pa.string(), "prompt or describer that made the text"),
        Column("text", pa.string(), "what is visible and audible, in English sentences"),
        Column("model", pa.string(), "model or describer with its version"),
        *_STATUS,
    ),
)

LABEL_COLUMNS: tuple[str, ...] = tuple(name.replace("p_", "y_", 1) for name in BASIC_COLUMNS)
COMPOUND_LABEL_COLUMNS: tuple[str, ...] = tuple(name.replace("p_", "y_", 1) for name in COMPOUND_COLUMNS)
"""Columns of a label distribution, in the order of `labels.BASIC` and `labels.COMPOUND`."""


def _label_columns(labels: Sequence[str], names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(
        Column(n, pa.float64(), f"share of {label} in the annotation; null where this vocabulary is not annotated")
        for label, n in zip(labels, names, strict=True)
    )


LABELS = _segment_table(
    "labels",
    "video_id",
    Column("split", pa.string(), "split that the video belongs to"),
    *_label_columns(BASIC, LABEL_COLUMNS),
    *_label_columns(COMPOUND, COMPOUND_LABEL_COLUMNS),
    Column("annotated", pa.float64(), "share of the window's frames with an annotation, 0..1", nullable=False),
)
FRAME_LABELS = TableSpec(
    name="frame_labels",
    row="annotated frame of the video",
    unit="video_id",
    key=("video_id", "frame"),
    columns=(
        _VIDEO,
        Column("frame", pa.int64(), "0-based number of the frame, in order of presentation", nullable=False),
        Column("basic", pa.string(), "basic emotion; null where the frame has none"),
        Column("compound", pa.string(), "compound expression; null where the frame has none"),
        *_STATUS,
    ),
)


def face_features(encoder: str, size: int) -> TableSpec:
    """Return the table of outputs of a face model on the faces of subject tracks, sample by sample."""
    return TableSpec(
        name=f"face_features/{encoder}",
        row="face of a subject track on a sample (one row without features where there is none)",
        unit="video_id",
        key=("video_id", "sample", "face"),
        columns=(
            _VIDEO,
            _SAMPLE,
            Column("face", pa.int32(), "index of the face on the sample, as in faces", nullable=False),
            Column("track", pa.int32(), "track number, as in faces"),
            Column("features", pa.list_(pa.float32(), size), f"output of {encoder}, {size} values"),
            *_STATUS,
        ),
    )


def frame_features(encoder: str, size: int) -> TableSpec:
    """Return the table of outputs of an image model on whole frames, sample by sample."""
    return TableSpec(
        name=f"frame_features/{encoder}",
        row="sample of the 5 Hz grid",
        unit="video_id",
        key=("video_id", "sample"),
        columns=(
            _VIDEO,
            _SAMPLE,
            Column("features", pa.list_(pa.float32(), size), f"output of {encoder}, {size} values"),
            *_STATUS,
        ),
    )


def sample_probabilities(branch: str) -> TableSpec:
    """Return the table of predictions of a branch on every grid sample, for branches that classify single images.

    The probabilities of a window are constant over its up to 4 s; this table resolves them in time. A row is computed
    from the features of its sample by the rules that the row of the window follows.
    """
    return TableSpec(
        name=f"samples/{branch}",
        row="sample of the 5 Hz grid (mean over the subject faces, where windows that share it have two subjects)",
        unit="video_id",
        key=("video_id", "sample"),
        columns=(
            _VIDEO,
            _SAMPLE,
            *_BASIC,
            Column("faces", pa.int32(), "number of subject faces that the values are the mean of", nullable=False),
            *_STATUS,
        ),
        distributions=(BASIC_COLUMNS,),
    )


def audio_features(encoder: str, size: int) -> TableSpec:
    """Return the table of outputs of an audio model on the sound of a window."""
    return _segment_table(
        f"audio_features/{encoder}",
        "video_id",
        Column("features", pa.list_(pa.float32(), size), f"states of {encoder}, step by step; 0 behind the last step"),
        Column("steps", pa.int32(), "steps that the sound of the window fills"),
    )


def features(branch: str, size: int) -> TableSpec:
    """Return the table of inputs of the head of a branch: one vector or flattened sequence per segment."""
    return _segment_table(
        f"features/{branch}",
        "segment_id",
        Column("features", pa.list_(pa.float32(), size), f"what the head of {branch} reads, {size} values"),
    )


def probabilities(branch: str) -> TableSpec:
    """Return the table of predictions of a branch: a distribution over the 8 basic emotions per segment."""
    return _segment_table(
        f"probabilities/{branch}",
        "segment_id",
        *_BASIC,
        Column("model", pa.string(), "head that gave the values"),
        distributions=(BASIC_COLUMNS,),
    )


Combinations = Mapping[str, Sequence[str]]
"""Name of a combination -> its branches."""


def fused(branches: Sequence[str], combinations: Combinations | None = None) -> TableSpec:
    """Output of the fusion, with the weight of every branch and class.

    Args:
        branches: all enabled branches, whose fusion has columns without a prefix.
        combinations: further fusions, each with the same columns behind its prefix.
    """
    further = combinations or {}
    return TableSpec(
        name="fused",
        row="segment",
        unit="segment_id",
        key=("video_id", "segment"),
        columns=(
            *_SEGMENT,
            *_fusion_columns(branches),
            *(column for name, own in further.items() for column in _prefixed(name, _fusion_columns(own))),
        ),
        distributions=_distributions(BASIC_COLUMNS, further),
    )


def _fusion_columns(branches: Sequence[str]) -> tuple[Column, ...]:
    return (
        *_BASIC,
        *_UNCERTAINTY,
        Column("present", pa.list_(pa.string()), "branches that had a value", nullable=False),
        *(
            Column(
                f"w_{branch}",
                pa.list_(pa.float64(), len(BASIC)),
                f"weight of {branch} for each basic emotion; 0 where it had no value; the sum over branches of "
                "weight times probability is the fused probability",
            )
            for branch in branches
        ),
        Column("model", pa.string(), "fusion that gave the weights, or equal_weights"),
        *_STATUS,
    )


def _prefixed(combination: str, columns: Sequence[Column]) -> Iterator[Column]:
    """The columns of a combination of branches."""
    for c in columns:
        meaning = f"combination {combination}: {c.meaning}"
        yield Column(f"{prefix_of(combination)}{c.name}", c.type, meaning, c.nullable)


def _distributions(columns: tuple[str, ...], combinations: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    prefixes = ("", *map(prefix_of, combinations))
    return tuple(tuple(f"{prefix}{name}" for name in columns) for prefix in prefixes)


def compounds(combinations: Iterable[str] = ()) -> TableSpec:
    """Compound expressions of every segment.

    Args:
        combinations: names of the further fusions in `fused`; PPA of each has columns behind its prefix.
    """
    names = tuple(combinations)
    columns = (
        *_COMPOUND,
        Column("expressed", pa.float64(), f"{_EXPRESSED}, as in fused"),
        *_certainty(COMPOUND),
        Column(
            "agreement", pa.float64(), "of the branches behind fused, as there; null for pfsa, which reads one branch"
        ),
        *_STATUS,
    )
    return TableSpec(
        name="compound",
        row="segment and method",
        unit="segment_id",
        key=("video_id", "segment", "method"),
        columns=(
            *_SEGMENT,
            Column("method", pa.string(), "ppa or pfsa", nullable=False),
            *columns,
            *(column for name in names for column in _prefixed(name, columns)),
        ),
        distributions=_distributions(COMPOUND_COLUMNS, names),
    )


COMPOUNDS = compounds()
NO_FRAME = -1  # `frame` of the one row of a video whose frames could not be computed
FRAME_PREDICTIONS = TableSpec(
    name="frame_predictions",
    row="frame of the video",
    unit="video_id",
    key=("video_id", "frame"),
    columns=(
        _VIDEO,
        Column(
            "frame",
            pa.int64(),
            "0-based number of the frame, in order of presentation; -1 in the one row of a video whose frames failed",
            nullable=False,
        ),
        Column("time_s", pa.float64(), "time stamp of the frame, s", nullable=False),
        *_BASIC,
        *_COMPOUND,
        Column("expressed", pa.float64(), "1 - p_neutral - p_other, 0..1: how much is expressed at all"),
        *_certainty(BASIC),
        *_certainty(COMPOUND, "compound_"),
        Column(
            "agreement",
            pa.float64(),
            "of the branches at the time of the frame, as in fused: the mean over the windows that have at least two",
        ),
        Column("segments", pa.list_(pa.int32()), "windows that the values are averaged over", nullable=False),
        Column("weights", pa.list_(pa.float64()), "weight of each of these windows; they sum to 1", nullable=False),
        *_STATUS,
    ),
    distributions=(BASIC_COLUMNS, COMPOUND_COLUMNS),
)
METRICS = TableSpec(
    name="metrics",
    row="system, split, protocol and metric",
    unit="system",
    key=("split", "protocol", "system", "metric"),
    columns=(
        Column("split", pa.string(), "split that was scored; `all` where the corpus names none", nullable=False),
        Column("protocol", pa.string(), "which units and classes count (see docs/methods.md)", nullable=False),
        Column(
            "system",
            pa.string(),
            "a branch, fused, ppa or pfsa; BRANCH/ppa for a branch mapped alone; `A - B` for a difference",
            nullable=False,
        ),
        Column("metric", pa.string(), "macro_f1, uar, average, f1/CLASS, ...", nullable=False),
        Column("value", pa.float64(), "percent (log_loss: nats); null where the system served no unit"),
        Column("low", pa.float64(), "lower end of the 95 % interval over resampled videos; null where none is made"),
        Column("high", pa.float64(), "upper end of that interval"),
        Column("n", pa.int64(), "units that the value is computed from", nullable=False),
        Column(
            "coverage", pa.float64(), "share of the labelled units that the system could serve, 0..1", nullable=False
        ),
        *_STATUS,
    ),
)
