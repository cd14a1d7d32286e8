"""One pydantic model for every section of a profile: its keys with type, meaning, unit and range.

Belongs here: the definition of a setting. Does not belong here: its value and the reason for it, which are in the TOML
file of the profile, or the merging of files and overrides (`cer_pipeline.profiles`).

Unknown keys are refused. Values are part of row keys, so a model must return every value exactly as it was written.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SHARE: Final[dict[str, Any]] = {"ge": 0, "le": 1}
POSITIVE: Final[dict[str, Any]] = {"gt": 0}
COMBINATION_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def setting(meaning: str, unit: str = "", **limits: Any) -> Any:
    """Return a field with its meaning, its unit ("" for a plain number, a choice or a text), and pydantic's limits."""
    return Field(description=meaning, json_schema_extra={"unit": unit}, **limits)


def _ascending(values: list[float]) -> list[float]:
    if sorted(values) != values:
        raise ValueError("the values must ascend")
    return values


def _descending(values: list[float]) -> list[float]:
    if sorted(values, reverse=True) != values:
        raise ValueError("the values must descend")
    return values


def _combination_names(values: dict[str, list[str]]) -> dict[str, list[str]]:
    for name, branches in values.items():
        if not COMBINATION_NAME.fullmatch(name):
            raise ValueError(f"the name {name!r} must be of small letters, digits and single underscores")
        if name == "w" or name.startswith("w_"):
            raise ValueError(f"the name {name!r} must not start with w_, as the weights of the branches do")
        if not branches or len(set(branches)) < len(branches):
            raise ValueError(f"{name} must name at least one branch, and none twice")
    return values


Pair = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
Three = Annotated[list[float], Field(min_length=3, max_length=3)]
Texts = Annotated[list[str], Field(min_length=1)]


class Section(BaseModel):
    """A section: only declared keys, and no conversion except from int to float."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Windows(Section):
    """Windows of a video."""

    length_s: float = setting("length of a window", "s", **POSITIVE)
    hop_s: float = setting("time from the start of one window to the start of the next", "s", **POSITIVE)


class Grid(Section):
    """The grid of times at which frames are sampled."""

    rate_hz: int = setting("samples per second", "Hz", ge=1)


class Execution(Section):
    """Limits on resources of this machine. No setting of this section changes a result."""

    device: str = setting("device of torch models: auto, cpu, cuda or cuda:N")
    batch: int = setting("largest batch on a GPU", "items", ge=1)
    threads: int = setting("number of threads of every model library", "threads", ge=1)
    media_time_s: float = setting("timeout for one media file, independent of its length", "s", **POSITIVE)
    media_time_per_s: float = setting("timeout added for every second of media", "s/s", ge=0)
    media_memory_mb: int = setting("limit on the address space of the process that opens media", "MiB", ge=256)
    media_file_mb: int = setting("largest file that the process that opens media writes", "MiB", ge=1)


class Fusion(Section):
    """Fusion of the branches into one distribution."""

    method: Literal["equal", "static", "dynamic"] = setting("equal weights, or trained static or dynamic weights")


class Combinations(Section):
    """Further fusions of some of the enabled branches, beside the fusion of all."""

    named: Annotated[dict[str, list[str]], AfterValidator(_combination_names)] = setting(
        "name -> enabled branches; `fused` and `compound` get the columns of each, NAME__p_neutral and so on"
    )


class Compound(Section):
    """Mapping of basic emotions to compound expressions."""

    method: Literal["ppa", "pfsa"] = setting("method whose rows of `compound` are averaged over frames")
    prior_correction: float = setting(
        "exponent s of the mean m of a compound in the shard; it is divided by m^s", **SHARE
    )
    smoothing: float = setting("weight of the two neighbouring windows in the value of a window", ge=0, lt=1)


class FramesOut(Section):
    """Averaging of windows over frames."""

    time_resolution: Literal["sample", "window"] = setting(
        "predictions that a frame averages, where a branch has both: of samples or of windows"
    )
    bridge_s: float = setting("longest gap between two samples that is interpolated", "s", ge=0)


class Report(Section):
    """When pictures, summaries and exports show an expression as clear. No setting of this section changes a table."""

    least_expressed: float = setting("minimum of 1 - p_neutral - p_other", **SHARE)
    least_confidence: float = setting("minimum of the difference between the first and the second compound", **SHARE)


URL: Final = re.compile(r"https?://[^/\s?#]+[^\s?#]*")


def _addresses(values: dict[str, str]) -> dict[str, str]:
    for model, url in values.items():
        if not URL.fullmatch(url):
            raise ValueError(f"{url!r} of {model} is no address, such as http://127.0.0.1:8001/v1")
    return values


def _prices(values: dict[str, list[float]]) -> dict[str, list[float]]:
    for model, pair in values.items():
        if len(pair) != 2 or min(pair) < 0:
            raise ValueError(f"{model} must have two prices of at least 0")
    return values


class Captions(Section):
    """Which captioner writes the texts on segments, and how a server is reached. No setting here enters a key."""

    backend: str = setting("name of the captioner: rule_based, imported, endpoint, transformers, or a plug-in")
    url: str = setting("address of an OpenAI-compatible server, with its version", pattern=rf"^{URL.pattern}$")
    key_variable: str = setting("environment variable that holds the server's key", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    connections: int = setting("requests at a time", "requests", ge=1, le=256)
    timeout_s: float = setting("waiting time for one answer", "s", **POSITIVE)
    retries: int = setting("further requests after one that failed", "requests", ge=0)
    backoff_s: float = setting("wait before the first retry; doubled with each", "s", ge=0)
    urls: Annotated[dict[str, str], AfterValidator(_addresses)] = setting(
        "model -> address of its server, where that is not `url`"
    )
    prices: Annotated[dict[str, list[float]], AfterValidator(_prices)] = setting(
        "model -> price of a million tokens: [of requests, of answers]", "any currency"
    )


def _unique(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("a value stands twice")
    return values


def _unique_views(values: list[str]) -> list[str]:
    """A view is named after the last part of the model's name, see `perception.captions.prompts.view_name`."""
    if not all(values):
        raise ValueError("a model has no name")
    _unique([value.rpartition("/")[2].lower().removesuffix("-instruct") for value in values])
    return values


Models = Annotated[list[str], Field(min_length=1), AfterValidator(_unique_views)]
Prompts = Annotated[list[Literal["prompt1", "prompt2"]], Field(min_length=1), AfterValidator(_unique)]


class CaptionsEndpoint(Section):
    """What the captioner `endpoint` asks, and which answers it takes."""

    models: Models = setting("names of the models on their servers; each gives a view with each prompt")
    prompts: Prompts = setting("prompts of every window; each gives a view with each model")
    pictures: Literal["images", "video"] = setting("how a window is sent: as images, or as one video (vLLM)")
    picture_px: int = setting("longer side of the pictures that are sent", "pixels", ge=28)
    max_tokens: int = setting("longest answer", "tokens", ge=1)
    longest_words: int = setting("words from which an answer is too long to be used", "words", ge=1)


class CaptionsTransformers(Section):
    """What the captioner `transformers` asks a model in this process, and which answers it takes."""

    model: Literal["qwen25_vl_3b", "qwen25_vl_7b", "qwen25_vl_32b", "qwen3_vl_4b"] = setting("zoo id of the model")
    prompts: Prompts = setting("prompts of every window; each gives a view")
    picture_px: int = setting("longer side of the pictures that the model is given", "pixels", ge=28)
    max_tokens: int = setting("longest answer", "tokens", ge=1)
    longest_words: int = setting("words from which an answer is too long to be used", "words", ge=1)
    precision: Literal["float32", "bfloat16"] = setting("number type of the weights")


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
    cheeks_raised: float = setting("eyeSquint, where the lip corners are raised", "blendshape score", **SHARE)
    change_share: float = setting("described change, as a share of the clear threshold", **SHARE)
    uneven: float = setting("difference of left and right from which one side is named", "blendshape score", **SHARE)
    seen_share: float = setting("share of the window below which a face is hidden at times", **SHARE)
    mouth_moves: float = setting(
        "standard deviation of jawOpen from which the mouth moves", "blendshape score", **SHARE
    )
    gaze_down: float = setting("eyeLook scores from which the gaze is directed down", "-1..1", **SHARE)
    gaze_up: float = setting("eyeLook scores from which the gaze is directed up", "-1..1", **SHARE)
    gaze_side: float = setting("eyeLook scores from which the gaze is directed to a side", "-1..1", **SHARE)
    head_turned_deg: float = setting("yaw from which the head is turned", "degrees", **POSITIVE)
    head_pitched_deg: float = setting("pitch from which the head is raised or lowered", "degrees", **POSITIVE)
    head_tilted_deg: float = setting("roll from which the head is tilted", "degrees", **POSITIVE)
    head_change_deg: float = setting(
        "described change of an angle from the first to the last third", "degrees", **POSITIVE
    )
    head_speed_deg_s: Pair = setting("speed of the head: [still below, moves a lot from]", "degrees/s")
    shot: Annotated[Three, AfterValidator(_descending)] = setting(
        "height of the face over that of the frame: [close-up, near, some distance]"
    )
    brightness: Pair = setting("mean luma: [dark below, bright from]", "0..1")
    contrast: Pair = setting("standard deviation of luma: [low below, high from]", "0..1")
    warmth: Pair = setting("(red - blue) / sum: [bluish below, reddish from]", "-1..1")
    colour: float = setting("mean saturation below which a frame is almost without colour", "0..1", **SHARE)
    motion: Pair = setting("mean change of luma in 0.2 s: [hardly any below, much from]", "0..1")
    cut: float = setting("mean change of luma in 0.2 s from which it is a cut", "0..1", **SHARE)
    silent_dbfs: float = setting("mean level below which the window is silent", "dBFS", le=0)
    louder_db: float = setting("described difference of level to the other windows", "dB", **POSITIVE)
    higher_semitones: float = setting("described difference of pitch to the other windows", "semitones", **POSITIVE)
    pitch_range_semitones: Pair = setting(
        "pitch from the 10th to the 90th percentile: [flat below, varied from]", "semitones"
    )
    syllables_hz: Pair = setting("syllable nuclei per second of speech: [slow below, fast from]", "Hz")
    speech_share: Pair = setting("share of speech in the window: [briefly below, nearly all the time from]")
    pause_s: Pair = setting("longest gap between speech intervals: [pause, long pause]", "s")
    pitch_floor_hz: float = setting("lowest pitch that is searched", "Hz", **POSITIVE)
    pitch_ceiling_hz: float = setting("highest pitch that is searched", "Hz", **POSITIVE)
    pitch_strength: float = setting("peak of the autocorrelation from which a frame is voiced", **SHARE)
    voiced_below_peak_db: float = setting("level below the loudest frame at which no pitch is searched", "dB")
    syllable_dip_db: float = setting("smallest dip of the level between two syllable nuclei", "dB", **POSITIVE)


class MiniXception(Section):
    """Face crops for mini-XCEPTION."""

    sides: Annotated[list[float], Field(min_length=1)] = setting("sides of the square crops over the eye distance")
    eye_line: float = setting("height of the eyes in the square, from its top", **SHARE)


class FaceStatic(Section):
    """The branch face_static."""

    network_share: float = setting("weight of the network in the mean of network and prototypes", **SHARE)
    network_temperature: float = setting("temperature of the network's logits", **POSITIVE)
    unsupported_happiness: float = setting("share of Happiness of the network that is kept without a smile", **SHARE)
    smile_without_lids: float = setting("share of a smile that is kept without tightened lids or bared teeth", **SHARE)
    neutral_score: float = setting("score of Neutral among the scores of the prototypes", **SHARE)
    prototype_temperature: float = setting("temperature of the prototype scores", **POSITIVE)
    rest_prior_samples: float = setting("weight of the typical resting level, in samples", "samples", ge=0)
    rest: dict[str, float] = setting("largest resting level of every action unit", "blendshape score")
    rest_typical: dict[str, float] = setting("median resting level of every action unit", "blendshape score")
    full: dict[str, float] = setting("level of every action unit in a strong expression", "blendshape score")


class ZeroShot(Section):
    """Zero-shot prediction by similarity to sentences, used while no head is trained."""

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
    content_free: Texts = setting("captions of any video, whose mean similarity to a label is subtracted")


class Media(Section):
    """Limits on media files."""

    max_duration_s: float = setting("longest duration; a file that states more counts as damaged", "s", **POSITIVE)


class Frames(Section):
    """Sampled frames."""

    long_side: int = setting("longer side of a stored frame", "pixels", ge=32)
    jpeg_quality: int = setting("quality of the stored JPEG", "1..100", ge=1, le=100)
    hold_s: float = setting("time after its end for which a frame still counts as shown", "s", ge=0)


class Branches(Section):
    """Enabled branches."""

    enabled: list[str] = setting("branches in the order of their weights in `fused`; plug-ins by name")


class Faces(Section):
    """Detection, verification, crops and tracks of faces."""

    detector: Literal["centerface", "yolo", "ultralytics"] = setting(
        "CenterFace, or YOLO11n-face through onnxruntime (yolo) or through the package ultralytics"
    )
    detector_long_side: int = setting("longer side of the input of CenterFace; that of YOLO is 640", "pixels", ge=32)
    detector_score: float = setting("lowest score of a box", **SHARE)
    detector_overlap: float = setting("IoU above which two boxes are the same face", **SHARE)
    smallest_px: int = setting("lowest height of a box", "pixels", ge=1)
    margin: float = setting("margin on each side, over the longer side of the box", ge=0)
    mesh_confidence: float = setting("lowest score of detection and presence of the mesh model", **SHARE)
    mesh_agreement: float = setting("lowest IoU of mesh and box", **SHARE)
    mesh_lean_deg: float = setting("largest angle between the mesh and the detector's points", "degrees", gt=0, le=180)
    track_least_fit: float = setting("lowest distance-IoU of two boxes of one track", "-1..1", ge=-1, le=1)
    track_gap_samples: int = setting("longest gap in a track", "samples", ge=0)
    motion_share: float = setting("motion inside the mesh from which a step moves", "mesh spread", ge=0)
    motion_px: float = setting("motion inside the mesh from which a step moves", "pixels", ge=0)
    motion_steps: float = setting("share of moving steps above which a track moves", **SHARE)
    still_steps: int = setting("shortest track that can be still", "samples", ge=1)
    still_px: float = setting("lowest height of a face that can be still", "pixels", ge=0)
    crop_side: int = setting("longest side of a stored crop", "pixels", ge=32)
    crop_quality: int = setting("quality of the stored JPEG", "1..100", ge=1, le=100)


class EmoAffectNet(Section):
    """Part of the frame that EmoAffectNet reads."""

    crop: Literal["box", "published"] = setting(
        "the detector's box with a margin, or, as in the published code, widened by 10 % of its left and top coordinate"
    )
    margin: float = setting("margin on each side over that side of the box, where crop is box", ge=0)


class FaceClip(Section):
    """How CLIP encodes faces."""

    library: Literal["auto", "open_clip", "transformers"] = setting(
        "library that runs the image encoder; auto is open_clip where it is installed"
    )
    margin: float = setting("margin on each side over that side of the box", ge=0)


class Speech(Section):
    """Rules from the probabilities of the speech detector to speech intervals."""

    threshold: float = setting("probability at which speech starts", **SHARE)
    release: float = setting("probability below which speech ends", **SHARE)
    min_speech_s: float = setting("shortest speech interval", "s", ge=0)
    min_silence_s: float = setting("shortest silence that ends an interval", "s", ge=0)
    max_speech_s: float = setting("longest speech interval; longer ones are cut", "s", **POSITIVE)
    pad_s: float = setting("time added on both ends of an interval", "s", ge=0)


class Loudness(Section):
    """Amplification of the sound for speech detection and recognition."""

    level_dbfs: float = setting("level to which a quieter sound is amplified", "dBFS", le=0)
    gain_db: float = setting("largest amplification", "dB", ge=0)


class Transcripts(Section):
    """Speech recognition, and which of its output is kept."""

    model: str = setting("zoo id of the recogniser: whisper_tiny_en, whisper_base or parakeet_tdt_06b")
    language_s: float = setting("length of the intervals whose language is predicted", "s", gt=0, le=30)
    language_sure: float = setting("probability of English from which all words are kept", **SHARE)
    language_least: float = setting("probability of English below which an interval is not transcribed", **SHARE)
    word_probability: float = setting("lowest mean word probability between these two", **SHARE)
    compression: float = setting("largest compression ratio of a text between these two", **POSITIVE)
    compute_type: Literal["int8", "float32"] = setting("number type of the weights")
    beam_size: int = setting("number of hypotheses of the beam search", ge=1)
    no_speech: float = setting("probability of silence above which an uncertain chunk is dropped", **SHARE)
    log_probability: float = setting("mean log probability below which a chunk is uncertain", "nats", le=0)
    chunk_s: float = setting("longest chunk that is transcribed at once", "s", gt=0, le=30)
    chunk_silence_s: float = setting("longest silence inside a chunk", "s", ge=0)
    lead_s: float = setting("sound before and after a chunk that is transcribed with it", "s", ge=0)
    loop_words: int = setting("longest phrase whose repetition counts as a decoding loop", "words", ge=1)
    loop_keep: int = setting("largest number of consecutive repetitions of a phrase that are kept", ge=1)
    word_slack_s: float = setting("largest distance of a word from a speech interval", "s", ge=0)


class TranscriptsParakeet(Section):
    """Parakeet, where it is the recogniser of the transcripts."""

    scope: Literal["video", "window"] = setting("transcribe the speech of a video once, or the sound of every window")
    runtime: Literal["transformers", "nemo"] = setting("library that runs the model")
    local_attention: Annotated[list[int], Field(min_length=2, max_length=2)] = setting(
        "states of 80 ms before and after each that the encoder attends to; nemo only", "states"
    )


class AudioStates(Section):
    """States of the speech encoder, the input of the audio heads."""

    least_speech_s: float = setting("least speech in a window for a prediction from the voice", "s", ge=0)


Precision = Literal["float32", "bfloat16"]


class EncodedTexts(Section):
    """A branch over texts by an encoder of the model hub."""

    max_tokens: int = setting("longest text; a longer one is cut", "tokens", ge=3)
    precision: Precision = setting("number type of the encoder's weights")


class SceneLabelClip(Section):
    """The branch scene_label_clip."""

    variant: Literal["prompts", "published"] = setting(
        "prompts: the texts below with CLIP's learned factor; published: as the published code, whose texts are fixed"
    )
    neutral: Texts = setting("texts of Neutral, whose mean direction is compared")
    anger: Texts = setting("texts of Anger")
    disgust: Texts = setting("texts of Disgust")
    fear: Texts = setting("texts of Fear")
    happiness: Texts = setting("texts of Happiness")
    sadness: Texts = setting("texts of Sadness")
    surprise: Texts = setting("texts of Surprise")
    other: Texts = setting("texts of Other")


class AudioWavlm(Section):
    """The branches on WavLM."""

    framing: Literal["masked", "published"] = setting(
        "masked: windows of less than 4 s keep their length; published: zeros up to 4 s, the last state in no third"
    )
    reader: Literal["pyav", "torchaudio"] = setting("library that decodes the stored sound")


SECTIONS: Final[dict[str, type[Section]]] = {
    "windows": Windows,
    "grid": Grid,
    "execution": Execution,
    "fusion": Fusion,
    "combinations": Combinations,
    "compound": Compound,
    "report": Report,
    "frames_out": FramesOut,
    "captions": Captions,
    "captions_endpoint": CaptionsEndpoint,
    "captions_transformers": CaptionsTransformers,
    "describer": Describer,
    "mini_xception": MiniXception,
    "face_static": FaceStatic,
    "scene_minilm": ZeroShot,
    "scene_label": SceneLabel,
    "text_minilm": ZeroShot,
    "scene_jina": EncodedTexts,
    "scene_roberta": EncodedTexts,
    "scene_clip": EncodedTexts,
    "text_jina": EncodedTexts,
    "text_roberta": EncodedTexts,
    "text_clip": EncodedTexts,
    "scene_label_clip": SceneLabelClip,
    "media": Media,
    "frames": Frames,
    "branches": Branches,
    "faces": Faces,
    "emoaffectnet": EmoAffectNet,
    "face_clip": FaceClip,
    "speech": Speech,
    "loudness": Loudness,
    "transcripts": Transcripts,
    "transcripts_parakeet": TranscriptsParakeet,
    "audio_states": AudioStates,
    "audio_wavlm": AudioWavlm,
}
"""Section name -> its model."""
