"""The sentences of the rule-based captioner: measurements of a window -> plain English.

Belongs here: the record of measurements and the one function that turns it into text. Everything is pure and light.
Does not belong here: taking the measurements (`measures`), tables and media (`captioner`), or predicting an emotion
(`branches.scene.branch`): the text names only what is visible or audible. Words such as "smile" or "frown" already name
an expression, so the text says what moves: "the lip corners are pulled up and back".

The facial actions are the action units of the Facial Action Coding System (Ekman, Friesen & Hager 2002) that
MediaPipe's blendshapes correspond to; each is described in the words of that manual's appearance changes, in short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cer_pipeline.profiles.sections import Describer

PROMPT: Final = "describer/1"  # the `prompt` of every text of this module; changes with the wording


@dataclass(frozen=True)
class TimeProfile:
    """One quantity over the time of a window.

    Args:
        level: median over the window.
        start: median over the first third; None where it has no sample.
        middle: median over the middle third.
        end: median over the last third.
        asymmetry: median of the person's left minus right; 0 for a quantity without sides.
        spread: standard deviation over the window.
    """

    level: float
    start: float | None = None
    middle: float | None = None
    end: float | None = None
    asymmetry: float = 0.0
    spread: float = 0.0

    @property
    def change(self) -> float:
        """Last third minus first third; 0 where one of them has no sample."""
        return 0.0 if self.start is None or self.end is None else self.end - self.start

    @property
    def peak(self) -> float:
        """Middle third minus the larger of the others, negative where it is lower; 0 where one has no sample."""
        if self.start is None or self.middle is None or self.end is None:
            return 0.0
        return self.middle - max(self.start, self.end)


@dataclass(frozen=True)
class Face:
    """The subject's face in a window.

    Args:
        visible_share: share of the window's pictures in which it is visible.
        actions: scores 0..1 by the names in `ACTIONS`.
        gaze_side: horizontal gaze, -1..1, positive to the person's left.
        gaze_up: vertical gaze, -1..1, positive up.
        yaw: head turn, degrees, positive to the person's left.
        pitch: head tilt, degrees, positive up.
        roll: head roll, degrees, positive towards the person's left shoulder.
        head_speed: median speed of the head's rotation, degrees/s.
        height: height of the face over the height of the picture.
    """

    visible_share: float
    actions: Mapping[str, TimeProfile]
    gaze_side: TimeProfile
    gaze_up: TimeProfile
    yaw: TimeProfile
    pitch: TimeProfile
    roll: TimeProfile
    head_speed: float
    height: float


@dataclass(frozen=True)
class PictureStats:
    """The pictures of a window as a whole; medians over its samples.

    Args:
        brightness: mean luma, 0..1.
        contrast: standard deviation of luma, 0..0.5.
        warmth: (red - blue) / (red + green + blue), -1..1.
        colour: mean saturation, 0..1.
        motion: mean absolute change of luma from one sample to the next, 0..1.
        cuts: number of sudden changes of the whole picture.
    """

    brightness: float
    contrast: float
    warmth: float
    colour: float
    motion: float
    cuts: int = 0


@dataclass(frozen=True)
class Sound:
    """The sound in a window.

    Args:
        level_dbfs: mean power, dB relative to full scale.
        speech_share: share of the window that is speech; None where speech was not detected for want of a model.
        pause_s: longest gap between two stretches of speech inside the window, s.
        voice_dbfs: mean power of the speech, dB; None without speech.
        pitch_hz: median fundamental frequency of the speech; None where it is not voiced.
        pitch_range: 10th to 90th percentile of the fundamental frequency, semitones.
        syllables_hz: syllable nuclei per second of speech.
        louder_db: voice_dbfs relative to the other windows of the video; None without another one.
        higher: pitch relative to the other windows of the video, semitones.
    """

    level_dbfs: float
    speech_share: float | None = None
    pause_s: float = 0.0
    voice_dbfs: float | None = None
    pitch_hz: float | None = None
    pitch_range: float | None = None
    syllables_hz: float | None = None
    louder_db: float | None = None
    higher: float | None = None


@dataclass(frozen=True)
class Measurements:
    """All measurements of a window; None where the window has no picture, face or sound.

    Args:
        people: number of people whose faces are visible at the same time.
        face: the subject's face.
        pictures: the pictures as a whole.
        sound: the sound.
    """

    people: int | None = None
    face: Face | None = None
    pictures: PictureStats | None = None
    sound: Sound | None = None


@dataclass(frozen=True)
class Phrases:
    """The phrases of a facial action: its state (with a place for "slightly "), its onset and its offset."""

    state: str
    onset: str
    offset: str


ACTIONS: Final[Mapping[str, Phrases]] = {
    "brows_raised": Phrases("the brows are {}raised", "the brows rise", "the raised brows come down"),  # AU 1+2
    "inner_brows_raised": Phrases(
        "the inner ends of the brows are {}raised",
        "the inner ends of the brows rise",
        "the inner ends of the brows come down",
    ),  # AU 1
    "brows_lowered": Phrases(
        "the brows are {}lowered and drawn together",
        "the brows lower and draw together",
        "the lowered brows part again",
    ),  # AU 4
    "eyes_wide": Phrases("the eyes are opened {}wide", "the eyes open wide", "the wide eyes return to normal"),  # AU 5
    "eyes_closed": Phrases("the eyes are {}closed", "the eyes close", "the eyes open"),  # AU 43
    "eyes_narrowed": Phrases("the eyes are {}narrowed", "the eyes narrow", "the narrowed eyes open again"),  # AU 7
    "nose_wrinkled": Phrases("the nose is {}wrinkled", "the nose wrinkles", "the wrinkles of the nose go"),  # AU 9
    "upper_lip_raised": Phrases(
        "the upper lip is {}raised", "the upper lip rises", "the raised upper lip comes down"
    ),  # AU 10
    "lip_corners_up": Phrases(
        "the lip corners are {}pulled up and back",
        "the lip corners pull up and back",
        "the lip corners come back down",
    ),  # AU 12
    "lip_corners_down": Phrases(
        "the lip corners are {}pulled down", "the lip corners pull down", "the lip corners come back up"
    ),  # AU 15
    "chin_raised": Phrases("the chin is {}pushed up", "the chin pushes up", "the chin comes back down"),  # AU 17
    "lips_stretched": Phrases(
        "the lips are {}stretched sideways", "the lips stretch sideways", "the stretched lips loosen"
    ),  # AU 20
    "lips_forward": Phrases(
        "the lips are {}pushed forward", "the lips push forward", "the lips draw back"
    ),  # AU 18, 22
    "lips_pressed": Phrases(
        "the lips are {}pressed together", "the lips press together", "the pressed lips part"
    ),  # AU 24
    "lips_drawn_in": Phrases("the lips are {}drawn in", "the lips draw in", "the lips come back out"),  # AU 28
    "mouth_open": Phrases("the mouth is {}open", "the mouth opens", "the mouth closes"),  # AU 25, 26, 27
    "cheeks_puffed": Phrases("the cheeks are {}puffed out", "the cheeks puff out", "the cheeks flatten"),  # AU 33
}
"""Facial actions in the order of the sentences: brows, eyes, nose, mouth, cheeks."""

CHEEKS: Final = "cheeks_raised"  # reported beside raised lip corners only; no blendshape measures it alone
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def describe(measured: Measurements, settings: Describer) -> str:
    """The text of a window: one to about ten sentences, never empty."""
    parts = [_people(measured.people, measured.face, settings)]
    if measured.face is not None:
        parts += [
            _face(measured.face, settings),
            _changes(measured.face, settings),
            _mouth_motion(measured.face, measured.sound, settings),
            _gaze(measured.face, settings),
            _head(measured.face, settings),
        ]
    parts += [_sound(measured.sound, settings), _pictures(measured.pictures, settings)]
    return " ".join(_sentence(part) for part in parts if part)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _joined(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    plain = len(phrases) == 2 and not any(" and " in phrase for phrase in phrases)
    return ", ".join(phrases[:-1]) + (" and " if plain else ", and ") + phrases[-1]


def _people(people: int | None, face: Face | None, s: Describer) -> str:
    if people is None:
        return "there is no picture"
    if people == 0 and face is None:
        return "no face is visible"
    people = max(people, 1)
    number = NUMBERS[people] if people < len(NUMBERS) else "many"
    who = "one person is" if people == 1 else f"{number} people are"
    if face is None:
        return f"{who} visible"
    close, medium, far = s.shot
    height = face.height
    shot = (
        "in a close-up"
        if height >= close
        else "from near"
        if height >= medium
        else "from some distance"
        if height >= far
        else "from far away"
    )
    where = f"{who} visible {shot}"
    return where if face.visible_share >= s.seen_share else f"{where}; part of the time the face is not visible"


def _degree(value: float, limits: Sequence[float]) -> str | None:
    slight, clear = limits
    return None if value < slight else "slightly " if value < clear else ""


def _face(face: Face, s: Describer) -> str:
    """The state of the face over the window: every action above its threshold."""
    degrees = {name: _degree(profile.level, getattr(s, name)) for name, profile in face.actions.items()}
    shown = {name: degree for name, degree in degrees.items() if degree is not None}
    if shown:
        return _joined(_state_phrases(face, shown, s))
    return (
        "the brows and the eyes are at rest"
        if _mouth_moves(face, s)
        else "the brows, the eyes and the mouth are at rest"
    )


def _state_phrases(face: Face, shown: dict[str, str], s: Describer) -> list[str]:
    phrases = {name: ACTIONS[name].state.format(degree) for name, degree in shown.items()}
    if "inner_brows_raised" in shown and "brows_lowered" in shown:  # AU 1+4 look like one action
        phrases["inner_brows_raised"] = "the inner ends of the brows are raised and drawn together"
        del phrases["brows_lowered"]
    elif "inner_brows_raised" in shown and "brows_raised" in shown:  # AU 1+2: the whole brow
        del phrases["inner_brows_raised"]
    if "brows_raised" in shown and abs(face.actions["brows_raised"].asymmetry) >= s.uneven:
        phrases["brows_raised"] = "one brow is raised more"
    if "eyes_closed" in shown:
        phrases.pop("eyes_narrowed", None)
        phrases.pop("eyes_wide", None)
        if shown["eyes_closed"]:
            phrases["eyes_closed"] = "the eyes are half closed"
    if "lip_corners_up" in shown:
        phrases |= _lips(face, shown, s)
        phrases.pop("eyes_narrowed", None)  # reported as raised cheeks
    elif "lip_corners_down" in shown and abs(face.actions["lip_corners_down"].asymmetry) >= s.uneven:
        phrases["lip_corners_down"] = "one lip corner is pulled down"
    if shown.get("mouth_open") == "":
        phrases["mouth_open"] = "the mouth is wide open"
    return [phrases[name] for name in (*ACTIONS, CHEEKS) if name in phrases]


def _lips(face: Face, shown: dict[str, str], s: Describer) -> dict[str, str]:
    """The phrases for raised lip corners and the actions that occur with them."""
    # With the eyes shut and the lips together, the blendshape also responds to lips that are pressed and drawn tight,
    # as in weeping (the clip WolfgangLanger_Pexels scores 0.7 there), so the text must not name raised corners.
    if shown.get("eyes_closed") == "" and not {"upper_lip_raised", "mouth_open"} & shown.keys():
        return {"lip_corners_up": "the closed lips are drawn tight and wide"}
    if abs(face.actions["lip_corners_up"].asymmetry) >= s.uneven:
        return {"lip_corners_up": "one lip corner is pulled up more"}
    phrases = {}
    if shown["lip_corners_up"] == "":
        narrowed = face.actions.get("eyes_narrowed")
        if narrowed is not None and narrowed.level >= s.cheeks_raised:
            phrases[CHEEKS] = "the cheeks are raised"
        if shown.get("upper_lip_raised") == "":
            phrases["upper_lip_raised"] = "the teeth show"
    return phrases


def _changes(face: Face, s: Describer) -> str:
    """Actions that set in, end, or occur for a moment between the first and the last third of the window."""
    over: list[str] = []
    midway: list[str] = []
    for name in ACTIONS:
        profile = face.actions.get(name)
        if profile is None:
            continue
        slight, clear = getattr(s, name)
        step = s.change_share * clear
        highest = max(v for v in (profile.start, profile.middle, profile.end, profile.level) if v is not None)
        lids = face.actions.get("eyes_closed")
        if highest < slight or (name == "eyes_narrowed" and lids is not None and abs(lids.change) >= step):
            continue
        if profile.change >= step:
            over.append(ACTIONS[name].onset)
        elif profile.change <= -step:
            over.append(ACTIONS[name].offset)
        elif profile.peak >= step:
            midway.append(ACTIONS[name].onset)
    over += _turns(face, s)
    clauses = []
    if over:
        clauses.append("over the window " + _joined(over))
    if midway:
        clauses.append("midway " + _joined(midway) + " for a moment")
    return "; ".join(clauses)


def _turns(face: Face, s: Describer) -> list[str]:
    phrases = []
    if abs(face.pitch.change) >= s.head_change_deg:
        phrases.append("the head lifts" if face.pitch.change > 0 else "the head sinks")
    if abs(face.yaw.change) >= s.head_change_deg:
        away = abs(face.yaw.end or 0.0) > abs(face.yaw.start or 0.0)
        phrases.append("the head turns away" if away else "the head turns to the front")
    if abs(face.gaze_side.change) >= s.gaze_side:
        away = abs(face.gaze_side.end or 0.0) > abs(face.gaze_side.start or 0.0)
        phrases.append("the gaze turns away" if away else "the gaze turns to the front")
    return phrases


def _mouth_moves(face: Face, s: Describer) -> bool:
    jaw = face.actions.get("mouth_open")
    return jaw is not None and jaw.spread >= s.mouth_moves


def _mouth_motion(face: Face, sound: Sound | None, s: Describer) -> str:
    if not _mouth_moves(face, s):
        return ""
    speaking = sound is not None and sound.speech_share is not None and sound.speech_share >= s.speech_share[0]
    return "the mouth moves in speech" if speaking else "the mouth opens and closes"


def _gaze(face: Face, s: Describer) -> str:
    closed = face.actions.get("eyes_closed")
    if closed is not None and closed.level >= s.eyes_closed[1]:
        return ""  # the gaze of closed eyes is not measured
    directions = []
    if face.gaze_up.level <= -s.gaze_down:
        directions.append("down")
    elif face.gaze_up.level >= s.gaze_up:
        directions.append("up")
    if abs(face.gaze_side.level) >= s.gaze_side:
        directions.append("to the side")
    return "the gaze is directed " + " and ".join(directions) if directions else ""


def _head(face: Face, s: Describer) -> str:
    pose = []
    if face.pitch.level <= -s.head_pitched_deg:
        pose.append("bowed")
    elif face.pitch.level >= s.head_pitched_deg:
        pose.append("lifted")
    if abs(face.yaw.level) >= s.head_turned_deg:
        pose.append("turned to the side")
    if abs(face.roll.level) >= s.head_tilted_deg:
        pose.append("tilted")
    still, lively = s.head_speed_deg_s
    moves = "moves a lot" if face.head_speed >= lively else "keeps still" if face.head_speed < still else ""
    if pose:
        return "the head is " + _joined(pose) + (f" and {moves}" if moves else "")
    return f"the head {moves}" if moves else ""


def _sound(sound: Sound | None, s: Describer) -> str:
    if sound is None:
        return "there is no sound"
    if sound.level_dbfs < s.silent_dbfs:
        return "the sound is silent"
    if sound.speech_share is None or sound.voice_dbfs is None:
        return "there is sound" if sound.speech_share is None else "there is sound, but nobody speaks"
    some, most = s.speech_share
    how_long = (
        "nearly all the time"
        if sound.speech_share >= most
        else "part of the time"
        if sound.speech_share >= some
        else "briefly"
    )
    sentence = f"a voice speaks {how_long}"
    manner = _manner(sound, s)
    if manner:
        sentence += "; it is " + _joined(manner)
    short, long = s.pause_s
    if sound.pause_s >= short:
        sentence += ", with long pauses" if sound.pause_s >= long else ", with pauses"
    return sentence


def _manner(sound: Sound, s: Describer) -> list[str]:
    phrases = []
    if sound.louder_db is not None and abs(sound.louder_db) >= s.louder_db:
        phrases.append("louder than before or after" if sound.louder_db > 0 else "quieter than before or after")
    if sound.higher is not None and abs(sound.higher) >= s.higher_semitones:
        phrases.append("higher in pitch" if sound.higher > 0 else "lower in pitch")
    if sound.pitch_range is not None:
        flat, varied = s.pitch_range_semitones
        if sound.pitch_range < flat:
            phrases.append("flat")
        elif sound.pitch_range >= varied:
            phrases.append("widely varied in pitch")
    if sound.syllables_hz is not None:
        slow, fast = s.syllables_hz
        if sound.syllables_hz < slow:
            phrases.append("slow")
        elif sound.syllables_hz >= fast:
            phrases.append("fast")
    return phrases


def _pictures(pictures: PictureStats | None, s: Describer) -> str:
    if pictures is None:
        return ""
    dark, bright = s.brightness
    soft, hard = s.contrast
    adjectives = [
        "dark" if pictures.brightness < dark else "bright" if pictures.brightness >= bright else "of medium brightness"
    ]
    if pictures.contrast >= hard:
        adjectives.append("high in contrast")
    elif pictures.contrast < soft:
        adjectives.append("low in contrast")
    cool, warm = s.warmth
    if pictures.colour < s.colour:
        adjectives.append("almost without colour")
    elif pictures.warmth >= warm:
        adjectives.append("reddish")
    elif pictures.warmth < cool:
        adjectives.append("bluish")
    sentence = "the picture is " + _joined(adjectives)
    if pictures.cuts:
        return sentence + " and cuts to another view"
    still, lively = s.motion
    if pictures.motion >= lively:
        return sentence + ", with much motion"
    return sentence + ", with hardly any motion" if pictures.motion < still else sentence
