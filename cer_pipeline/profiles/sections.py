"""One pydantic model for every section of a profile: its keys with type, meaning, unit and range.

Belongs here: what a setting is. Does not belong here: its value and the reason for the value, which stand side by side
in the profile's TOML file, or the merging of files and overrides (`cer_pipeline.profiles`).

A key that no model has is refused. Sections other than `Execution` enter the keys of the rows that read them, so a
model must hand on a value exactly as it was written.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SHARE: Final[dict[str, Any]] = {"ge": 0, "le": 1}
POSITIVE: Final[dict[str, Any]] = {"gt": 0}


def setting(meaning: str, unit: str = "", **limits: Any) -> Any:
    """A field: its meaning, its unit ("" for a plain number, a choice or a text), and limits as pydantic names them."""
    return Field(description=meaning, json_schema_extra={"unit": unit}, **limits)


def _ascending(values: list[float]) -> list[float]:
    if sorted(values) != values:
        raise ValueError("the values must ascend")
    return values


def _descending(values: list[float]) -> list[float]:
    if sorted(values, reverse=True) != values:
        raise ValueError("the values must descend")
    return values


Pair = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Three = Annotated[list[float], Field(min_length=3, max_length=3)]
Texts = Annotated[list[str], Field(min_length=1)]


class Section(BaseModel):
    """A section: no key but those that it declares, no conversion but from whole numbers to fractions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Windows(Section):
    """The windows that a video is cut into."""

    length_s: float = setting("length of a window", "s", **POSITIVE)
    hop_s: float = setting("time from the start of one window to the start of the next", "s", **POSITIVE)


class Grid(Section):
    """The samples at which pictures are looked at."""

    rate_hz: int = setting("samples per second", "Hz", ge=1)


class Execution(Section):
    """Resources of this machine. No setting of this section changes a result."""

    threads: int = setting("threads of every model library", "threads", ge=1)
    media_time_s: float = setting("waiting time for one media file, whatever its length", "s", **POSITIVE)
    media_time_per_s: float = setting("further waiting time for every second of media", "s/s", ge=0)
    media_memory_mb: int = setting("address space of the process that opens media", "MiB", ge=256)
    media_file_mb: int = setting("largest file that the process which opens media may write", "MiB", ge=1)


class Fusion(Section):
    """How branches become one distribution."""

    method: Literal["equal", "static", "dynamic"] = setting("equal weights, or the form of the trained fusion")


class Compound(Section):
    """How basic emotions become compound expressions."""

    method: Literal["ppa", "pfsa"] = setting("rows of `compound` that the frames follow")
    prior_correction: float = setting("share of the shard's mean score that every compound is divided by", **SHARE)
    smoothing: float = setting("share of a window's value that comes from its two neighbours in time", ge=0, lt=1)


class FramesOut(Section):
    """How windows become frames."""

    time_resolution: Literal["sample", "window"] = setting(
        "whether a branch that predicts single pictures speaks at the time of the frame or once a window"
    )
    bridge_s: float = setting("longest gap between two samples that is interpolated", "s", ge=0)


class Report(Section):
    """What pictures, summaries and exports call a clear expression; changes no table."""

    least_expressed: float = setting("least share on the six expressions, 1 - neutral - other", **SHARE)
    least_confidence: float = setting("least lead of the first compound over the second", **SHARE)


class Captions(Section):
    """Which captioner writes the texts on segments, and how a server is reached. No setting here enters a key."""

    backend: str = setting("name of the captioner: rule_based, imported, endpoint, or a plug-in")
    url: str = setting(
        "address of an OpenAI-compatible server, with its version", pattern=r"^https?://[^/\s?#]+[^\s?#]*$"
    )
    key_variable: str = setting("environment variable that holds the server's key", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    connections: int = setting("requests at a time", "requests", ge=1, le=256)
    timeout_s: float = setting("waiting time for one answer", "s", **POSITIVE)
    retries: int = setting("further requests after one that failed", "requests", ge=0)
    backoff_s: float = setting("wait before the first retry; doubled with each", "s", ge=0)


def _unique(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("a value stands twice")
    return values


Prompts = Annotated[list[Literal["prompt1", "prompt2"]], Field(min_length=1), AfterValidator(_unique)]


class CaptionsEndpoint(Section):
    """What the captioner `endpoint` asks, and which answers it takes."""

    model: str = setting("name of the model on the server", min_length=1)
    prompts: Prompts = setting("prompts of every window; each gives a view")
    picture_px: int = setting("longer side of the pictures that are sent", "pixels", ge=28)
    max_tokens: int = setting("longest answer", "tokens", ge=1)
    longest_words: int = setting("words from which an answer is too long to be used", "words", ge=1)


class Describer(Section):
    """Thresholds of the rule-based captioner."""

    brows_raised: Pair = setting("browOuterUp: [slight, clear]", "blendshape score")
    inner_brows_raised: Pair = setting("browInnerUp: [slight, clear]", "blendshape score")
    brows_lowered: Pair = setting("browDown: [slight, clear]", "blendshape score")
    eyes_wide: Pair = setting("eyeWide: [slight, clear]", "blendshape score")
    eyes_closed: Pair = setting("eyeBlink: [slight, clear]", "blendshape score")
    eyes_narrowed: Pair = setting("eyeSquint: [slight, clear]", "blendshape score")
    nose_wrinkled: Pair = setting("noseSneer: [slight, clear]", "blendshape score")
    upper_lip_raised: Pair = setting("mouthUpperUp: [slight, clear]", "blendshape score")
    lip_corners_up: Pair = setting("mouthSmile: [slight, clear]", "blendshape score")
    lip_corners_down: Pair = setting("mouthFrown: [slight, clear]", "blendshape score")
    lips_stretched: Pair = setting("mouthStretch: [slight, clear]", "blendshape score")
    lips_pressed: Pair = setting("mouthPress: [slight, clear]", "blendshape score")
    lips_drawn_in: Pair = setting("mouthRollLower, mouthRollUpper: [slight, clear]", "blendshape score")
    lips_forward: Pair = setting("mouthPucker, mouthFunnel: [slight, clear]", "blendshape score")
    chin_raised: Pair = setting("mouthShrugLower: [slight, clear]", "blendshape score")
    mouth_open: Pair = setting("jawOpen: [slight, clear]", "blendshape score")
    cheeks_puffed: Pair = setting("cheekPuff: [slight, clear]", "blendshape score")
    cheeks_raised: float = setting("eyeSquint beside raised lip corners", "blendshape score", **SHARE)
    change_share: float = setting("share of a clear threshold from which a change counts", **SHARE)
    uneven: float = setting("difference of left and right from which one side is named", "blendshape score", **SHARE)
    seen_share: float = setting("share of the window below which a face is said to be hidden at times", **SHARE)
    mouth_moves: float = setting("standard deviation of jawOpen", "blendshape score", **SHARE)
    gaze_down: float = setting("eyeLook scores", "-1..1", **SHARE)
    gaze_up: float = setting("eyeLook scores", "-1..1", **SHARE)
    gaze_side: float = setting("eyeLook scores", "-1..1", **SHARE)
    head_turned_deg: float = setting("yaw", "degrees", **POSITIVE)
    head_pitched_deg: float = setting("pitch", "degrees", **POSITIVE)
    head_tilted_deg: float = setting("roll", "degrees", **POSITIVE)
    head_change_deg: float = setting("change of an angle from the first to the last third", "degrees", **POSITIVE)
    head_speed_deg_s: Pair = setting("speed of the head: [still below, moving a lot from]", "degrees/s")
    shot: Annotated[Three, AfterValidator(_descending)] = setting(
        "height of the face over that of the picture: [close-up, near, some distance]"
    )
    brightness: Pair = setting("mean luma: [dark below, bright from]", "0..1")
    contrast: Pair = setting("standard deviation of luma: [low below, high from]", "0..1")
    warmth: Pair = setting("(red - blue) / sum: [bluish below, reddish from]", "-1..1")
    colour: float = setting("mean saturation below which a picture is almost without colour", "0..1", **SHARE)
    motion: Pair = setting("mean change of luma in 0.2 s: [hardly any below, much from]", "0..1")
    cut: float = setting("mean change of luma from which it is another view", "0..1", **SHARE)
    silent_dbfs: float = setting("mean level below which the sound counts as silent", "dBFS", le=0)
    louder_db: float = setting("level against the other windows of the video", "dB", **POSITIVE)
    higher_semitones: float = setting("pitch against the other windows of the video", "semitones", **POSITIVE)
    pitch_range_semitones: Pair = setting("10th to 90th percentile: [flat below, varied from]", "semitones")
    syllables_hz: Pair = setting("syllable nuclei per second of speech: [slow below, fast from]", "Hz")
    speech_share: Pair = setting("share of the window: [briefly below, all the time from]")
    pause_s: Pair = setting("longest gap between stretches of speech: [pause, long pause]", "s")
    pitch_floor_hz: float = setting("lowest pitch", "Hz", **POSITIVE)
    pitch_ceiling_hz: float = setting("highest pitch", "Hz", **POSITIVE)
    pitch_strength: float = setting("peak of the autocorrelation from which a frame is voiced", **SHARE)
    voiced_below_peak_db: float = setting("level below the loudest frame at which no pitch is looked for", "dB")
    syllable_dip_db: float = setting("dip between two syllable nuclei", "dB", **POSITIVE)


class MiniXception(Section):
    """The crop that mini-XCEPTION is shown."""

    sides: Annotated[list[float], Field(min_length=1)] = setting("side of the square over the eye distance")
    eye_line: float = setting("height of the eyes in the square, from its top", **SHARE)


class FaceStatic(Section):
    """The branch face_static."""

    network_share: float = setting("share of the network in the mean of the two experts", **SHARE)
    network_temperature: float = setting("temperature of the network's logits", **POSITIVE)
    unsupported_happiness: float = setting(
        "share of the network's Happiness that is kept with no smile in the action units", **SHARE
    )
    smile_without_lids: float = setting("weight of drawn lip corners without a sign of the cheeks", **SHARE)
    neutral_score: float = setting("score of Neutral that a prototype must outweigh", **SHARE)
    prototype_temperature: float = setting("temperature of the prototype scores", **POSITIVE)
    rest_prior_samples: float = setting("weight of the typical resting level", "samples", ge=0)
    rest: dict[str, float] = setting("highest resting level of every action unit", "blendshape score")
    rest_typical: dict[str, float] = setting("median resting level of every action unit", "blendshape score")
    full: dict[str, float] = setting("level of a strong expression of every action unit", "blendshape score")


class ZeroShot(Section):
    """Likeness to sentences, used until a head is trained."""

    temperature: float = setting("temperature of the cosine similarities", **POSITIVE)
    neutral: Texts = setting("sentences of Neutral")
    anger: Texts = setting("sentences of Anger")
    disgust: Texts = setting("sentences of Disgust")
    fear: Texts = setting("sentences of Fear")
    happiness: Texts = setting("sentences of Happiness")
    sadness: Texts = setting("sentences of Sadness")
    surprise: Texts = setting("sentences of Surprise")


class SceneLabel(Section):
    """The branch scene_label."""

    temperature: float = setting("temperature of the cosine similarities", **POSITIVE)
    labels: Annotated[list[str], Field(min_length=8, max_length=8)] = setting(
        "one text per basic emotion, in the order of the probabilities"
    )
    content_free: Texts = setting("captions that fit any video; a label near to them is near to everything")


class Media(Section):
    """What is accepted as a media file."""

    max_duration_s: float = setting("a file that states a longer duration is taken for damaged", "s", **POSITIVE)


class Frames(Section):
    """The pictures that are kept."""

    long_side: int = setting("longer side of a stored picture", "pixels", ge=32)
    jpeg_quality: int = setting("quality of the stored JPEG", "1..100", ge=1, le=100)
    hold_s: float = setting("how long a frame counts as shown after its end", "s", ge=0)


class Branches(Section):
    """Which branches take part."""

    enabled: list[str] = setting("branches in the order of their weights in `fused`; plug-ins by name")


class Faces(Section):
    """Detection, verification, crops and tracks of faces."""

    detector_long_side: int = setting("longer side of the detector's input", "pixels", ge=32)
    detector_score: float = setting("lowest score of a box", **SHARE)
    detector_overlap: float = setting("IoU above which two boxes are one face", **SHARE)
    smallest_px: int = setting("lowest height of a box", "pixels", ge=1)
    margin: float = setting("share of the box's longer side that is added on each end", ge=0)
    mesh_confidence: float = setting("lowest score of the mesh model's detection and presence test", **SHARE)
    mesh_agreement: float = setting("lowest IoU of mesh and box", **SHARE)
    mesh_lean_deg: float = setting("largest angle between the mesh and the detector's points", "degrees", gt=0, le=180)
    track_least_fit: float = setting("lowest distance-IoU of two boxes of one track", "-1..1", ge=-1, le=1)
    track_gap_samples: int = setting("samples without a face that a track outlives", "samples", ge=0)
    motion_share: float = setting("motion of the mesh within a face from which a step moves", "mesh spread", ge=0)
    motion_px: float = setting("motion of the mesh within a face from which a step moves", "pixels", ge=0)
    motion_steps: float = setting("share of moving steps from which a track moves", **SHARE)
    still_steps: int = setting("shortest track that can be called still", "samples", ge=1)
    still_px: float = setting("lowest face that can be called still", "pixels", ge=0)
    crop_side: int = setting("longest side of a stored crop", "pixels", ge=32)
    crop_quality: int = setting("quality of the stored JPEG", "1..100", ge=1, le=100)


class Speech(Section):
    """Rules that make speech intervals of the detector's probabilities."""

    threshold: float = setting("probability at which speech starts", **SHARE)
    release: float = setting("probability below which speech ends", **SHARE)
    min_speech_s: float = setting("shorter intervals are no speech", "s", ge=0)
    min_silence_s: float = setting("shorter silences do not end an interval", "s", ge=0)
    max_speech_s: float = setting("longer intervals are cut", "s", **POSITIVE)
    pad_s: float = setting("time that is added on both ends of an interval", "s", ge=0)


class Loudness(Section):
    """How loud the speech detector and the recogniser hear a sound."""

    level_dbfs: float = setting("level that a quieter sound is amplified to", "dBFS", le=0)
    gain_db: float = setting("largest amplification", "dB", ge=0)


class Transcripts(Section):
    """The speech recogniser, and what it is believed."""

    model: str = setting("zoo id of the recogniser")
    language_s: float = setting("length of the stretches whose language is predicted", "s", gt=0, le=30)
    language_sure: float = setting("probability of English from which words are kept", **SHARE)
    language_least: float = setting("probability of English below which a stretch is not recognised", **SHARE)
    word_probability: float = setting("mean word probability that is demanded between these two", **SHARE)
    compression: float = setting("largest compression ratio of the text between these two", **POSITIVE)
    compute_type: Literal["int8", "float32"] = setting("arithmetic of the runtime")
    beam_size: int = setting("hypotheses of the beam search", ge=1)
    no_speech: float = setting("probability of silence above which an unsure stretch is dropped", **SHARE)
    log_probability: float = setting("mean log probability below which a stretch is unsure", "nats", le=0)
    chunk_s: float = setting("longest stretch that is recognised at once", "s", gt=0, le=30)
    chunk_silence_s: float = setting("longest silence inside a stretch", "s", ge=0)
    lead_s: float = setting("sound before and after a stretch that is recognised with it", "s", ge=0)
    loop_words: int = setting("longest phrase that is looked for in a decoding loop", "words", ge=1)
    loop_keep: int = setting("how often a phrase may stand in a row", ge=1)
    word_slack_s: float = setting("how far a word may lie beside a speech interval", "s", ge=0)


class AudioStates(Section):
    """The states of the speech encoder that the voice heads read."""

    least_speech_s: float = setting("speech in a window before the voice is predicted from", "s", ge=0)


SECTIONS: Final[dict[str, type[Section]]] = {
    "windows": Windows,
    "grid": Grid,
    "execution": Execution,
    "fusion": Fusion,
    "compound": Compound,
    "report": Report,
    "frames_out": FramesOut,
    "captions": Captions,
    "captions_endpoint": CaptionsEndpoint,
    "describer": Describer,
    "mini_xception": MiniXception,
    "face_static": FaceStatic,
    "scene_minilm": ZeroShot,
    "scene_label": SceneLabel,
    "text_minilm": ZeroShot,
    "media": Media,
    "frames": Frames,
    "branches": Branches,
    "faces": Faces,
    "speech": Speech,
    "loudness": Loudness,
    "transcripts": Transcripts,
    "audio_states": AudioStates,
}
"""Section name -> its model."""
