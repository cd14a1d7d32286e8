"""The describer's words: what was measured in a window -> plain English sentences.

Belongs here: the record of measurements and the one function that turns it into text. Everything is pure and light.
Does not belong here: taking the measurements (`measures`), tables and media (`stage`), or any
judgement of an emotion (`branches.scene.branch`): the text names only what is visible or audible. Words such as "smile"
or "frown" already name an expression, so the text says what moves: "the lip corners are pulled up and back".

The signs of the face are the action units of the Facial Action Coding System (Ekman, Friesen & Hager 2002) that
MediaPipe's blendshapes stand for; each is described in the words of that manual's appearance changes, in short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

PROMPT: Final = "describer/1"  # the `prompt` of every text that is made here; changes when the wording does


@dataclass(frozen=True)
class Settings:
    """Thresholds of the profile's section [describer]; a pair is (slight, clear). Meanings and units stand there."""

    brows_raised: Sequence[float]
    inner_brows_raised: Sequence[float]
    brows_lowered: Sequence[float]
    eyes_wide: Sequence[float]
    eyes_closed: Sequence[float]
    eyes_narrowed: Sequence[float]
    nose_wrinkled: Sequence[float]
    upper_lip_raised: Sequence[float]
    lip_corners_up: Sequence[float]
    lip_corners_down: Sequence[float]
    lips_stretched: Sequence[float]
    lips_pressed: Sequence[float]
    lips_drawn_in: Sequence[float]
    lips_forward: Sequence[float]
    chin_raised: Sequence[float]
    mouth_open: Sequence[float]
    cheeks_puffed: Sequence[float]
    cheeks_raised: float
    change_share: float
    uneven: float
    seen_share: float
    mouth_moves: float
    gaze_down: float
    gaze_up: float
    gaze_side: float
    head_turned_deg: float
    head_pitched_deg: float
    head_tilted_deg: float
    head_change_deg: float
    head_speed_deg_s: Sequence[float]
    shot: Sequence[float]
    brightness: Sequence[float]
    contrast: Sequence[float]
    warmth: Sequence[float]
    colour: float
    motion: Sequence[float]
    cut: float
    silent_dbfs: float
    louder_db: float
    higher_semitones: float
    pitch_range_semitones: Sequence[float]
    syllables_hz: Sequence[float]
    speech_share: Sequence[float]
    pause_s: Sequence[float]

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Settings:
        """The settings of the section [describer]; those of the measuring step are left out."""
        return cls(**{name: section[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Course:
    """How one quantity runs through a window.

    Args:
        level: median over the window.
        start: median over the first third; None where nothing was seen in it.
        middle: median over the middle third.
        end: median over the last third.
        lean: median of the person's left minus right, where there are two sides.
        spread: standard deviation over the window.
    """

    level: float
    start: float | None = None
    middle: float | None = None
    end: float | None = None
    lean: float = 0.0
    spread: float = 0.0

    @property
    def change(self) -> float:
        """Last third minus first third; 0 where one of them was not seen."""
        return 0.0 if self.start is None or self.end is None else self.end - self.start

    @property
    def bump(self) -> float:
        """How far the middle third lies above both others; 0 where one of them was not seen."""
        if self.start is None or self.middle is None or self.end is None:
            return 0.0
        return self.middle - max(self.start, self.end)


@dataclass(frozen=True)
class Face:
    """The subject's face in a window.

    Args:
        seen: share of the window's pictures in which it is visible.
        signs: scores 0..1 of the names in `SIGNS`.
        gaze_side: horizontal gaze, -1..1, positive to the person's left.
        gaze_up: vertical gaze, -1..1, positive up.
        yaw: head turn, degrees, positive to the person's left.
        pitch: head tilt, degrees, positive up.
        roll: head roll, degrees, positive towards the person's left shoulder.
        head_speed: median speed of the head's rotation, degrees/s.
        height: height of the face over the height of the picture.
    """

    seen: float
    signs: Mapping[str, Course]
    gaze_side: Course
    gaze_up: Course
    yaw: Course
    pitch: Course
    roll: Course
    head_speed: float
    height: float


@dataclass(frozen=True)
class Light:
    """The whole picture in a window; medians over its samples.

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
        speech_share: share of the window that is speech; None where speech was not looked for.
        pause_s: longest gap between two stretches of speech inside the window, s.
        voice_dbfs: mean power of the speech, dB; None without speech.
        pitch_hz: median fundamental frequency of the speech; None where it is not voiced.
        pitch_range: 10th to 90th percentile of the fundamental frequency, semitones.
        syllables_hz: syllable nuclei per second of speech.
        louder_db: voice_dbfs relative to the other windows of the video; None where there is none to compare with.
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
    """Everything that the describer knows of a window; None where it could not be looked at.

    Args:
        people: number of people whose faces are visible at the same time; None without a picture.
        face: the subject's face; None where there is none.
        light: the picture; None without one.
        sound: the sound; None without one.
    """

    people: int | None = None
    face: Face | None = None
    light: Light | None = None
    sound: Sound | None = None


@dataclass(frozen=True)
class SignWords:
    """A sign's words: its state (with a place for "slightly "), and how it comes and goes."""

    state: str
    comes: str
    goes: str


SIGNS: Final[Mapping[str, SignWords]] = {
    "brows_raised": SignWords("the brows are {}raised", "the brows rise", "the raised brows come down"),  # AU 1+2
    "inner_brows_raised": SignWords(
        "the inner ends of the brows are {}raised",
        "the inner ends of the brows rise",
        "the inner ends of the brows come down",
    ),  # AU 1
    "brows_lowered": SignWords(
        "the brows are {}lowered and drawn together",
        "the brows lower and draw together",
        "the lowered brows part again",
    ),  # AU 4
    "eyes_wide": SignWords(
        "the eyes are opened {}wide", "the eyes open wide", "the wide eyes return to normal"
    ),  # AU 5
    "eyes_closed": SignWords("the eyes are {}closed", "the eyes close", "the eyes open"),  # AU 43
    "eyes_narrowed": SignWords("the eyes are {}narrowed", "the eyes narrow", "the narrowed eyes open again"),  # AU 7
    "nose_wrinkled": SignWords("the nose is {}wrinkled", "the nose wrinkles", "the wrinkles of the nose go"),  # AU 9
    "upper_lip_raised": SignWords(
        "the upper lip is {}raised", "the upper lip rises", "the raised upper lip comes down"
    ),  # AU 10
    "lip_corners_up": SignWords(
        "the lip corners are {}pulled up and back",
        "the lip corners pull up and back",
        "the lip corners come back down",
    ),  # AU 12
    "lip_corners_down": SignWords(
        "the lip corners are {}pulled down", "the lip corners pull down", "the lip corners come back up"
    ),  # AU 15
    "chin_raised": SignWords("the chin is {}pushed up", "the chin pushes up", "the chin comes back down"),  # AU 17
    "lips_stretched": SignWords(
        "the lips are {}stretched sideways", "the lips stretch sideways", "the stretched lips loosen"
    ),  # AU 20
    "lips_forward": SignWords(
        "the lips are {}pushed forward", "the lips push forward", "the lips draw back"
    ),  # AU 18, 22
    "lips_pressed": SignWords(
        "the lips are {}pressed together", "the lips press together", "the pressed lips part"
    ),  # AU 24
    "lips_drawn_in": SignWords("the lips are {}drawn in", "the lips draw in", "the lips come back out"),  # AU 28
    "mouth_open": SignWords("the mouth is {}open", "the mouth opens", "the mouth closes"),  # AU 25, 26, 27
    "cheeks_puffed": SignWords("the cheeks are {}puffed out", "the cheeks puff out", "the cheeks flatten"),  # AU 33
}
"""Every sign of the face, in the order in which it is told: brows, eyes, nose, mouth, cheeks."""

CHEEKS: Final = "cheeks_raised"  # told beside raised lip corners only; no blendshape shows it on its own
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def describe(measured: Measurements, settings: Settings) -> str:
    """The text of a window: one to some ten sentences; never empty."""
    parts = [_people(measured.people, measured.face, settings)]
    if measured.face is not None:
        parts += [
            _face(measured.face, settings),
            _changes(measured.face, settings),
            _mouth_motion(measured.face, measured.sound, settings),
            _gaze(measured.face, settings),
            _head(measured.face, settings),
        ]
    parts += [_sound(measured.sound, settings), _light(measured.light, settings)]
    return " ".join(_sentence(part) for part in parts if part)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _joined(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    plain = len(phrases) == 2 and not any(" and " in phrase for phrase in phrases)
    return ", ".join(phrases[:-1]) + (" and " if plain else ", and ") + phrases[-1]


def _people(people: int | None, face: Face | None, s: Settings) -> str:
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
    return where if face.seen >= s.seen_share else f"{where}; part of the time the face is not visible"


def _degree(value: float, limits: Sequence[float]) -> str | None:
    slight, clear = limits
    return None if value < slight else "slightly " if value < clear else ""


def _face(face: Face, s: Settings) -> str:
    """The state of the face over the window: every sign above its threshold."""
    degrees = {name: _degree(course.level, getattr(s, name)) for name, course in face.signs.items()}
    shown = {name: degree for name, degree in degrees.items() if degree is not None}
    if shown:
        return _joined(_state_phrases(face, shown, s))
    return (
        "the brows and the eyes are at rest"
        if _mouth_moves(face, s)
        else "the brows, the eyes and the mouth are at rest"
    )


def _state_phrases(face: Face, shown: dict[str, str], s: Settings) -> list[str]:
    phrases = {name: SIGNS[name].state.format(degree) for name, degree in shown.items()}
    if "inner_brows_raised" in shown and "brows_lowered" in shown:  # AU 1+4: one sign to the eye, not two
        phrases["inner_brows_raised"] = "the inner ends of the brows are raised and drawn together"
        del phrases["brows_lowered"]
    elif "inner_brows_raised" in shown and "brows_raised" in shown:  # AU 1+2: the whole brow
        del phrases["inner_brows_raised"]
    if "brows_raised" in shown and abs(face.signs["brows_raised"].lean) >= s.uneven:
        phrases["brows_raised"] = "one brow is raised more"
    if "eyes_closed" in shown:
        phrases.pop("eyes_narrowed", None)
        phrases.pop("eyes_wide", None)
        if shown["eyes_closed"]:
            phrases["eyes_closed"] = "the eyes are half closed"
    if "lip_corners_up" in shown:
        phrases |= _lips(face, shown, s)
        phrases.pop("eyes_narrowed", None)  # told as raised cheeks
    elif "lip_corners_down" in shown and abs(face.signs["lip_corners_down"].lean) >= s.uneven:
        phrases["lip_corners_down"] = "one lip corner is pulled down"
    if shown.get("mouth_open") == "":
        phrases["mouth_open"] = "the mouth is wide open"
    return [phrases[name] for name in (*SIGNS, CHEEKS) if name in phrases]


def _lips(face: Face, shown: dict[str, str], s: Settings) -> dict[str, str]:
    """The words for raised lip corners and what goes with them."""
    # With the eyes shut and the lips together, the blendshape also answers to lips that are pressed and drawn tight, as
    # in weeping (the clip WolfgangLanger_Pexels scores 0.7 there), so the text must not claim raised corners.
    if shown.get("eyes_closed") == "" and not {"upper_lip_raised", "mouth_open"} & shown.keys():
        return {"lip_corners_up": "the closed lips are drawn tight and wide"}
    if abs(face.signs["lip_corners_up"].lean) >= s.uneven:
        return {"lip_corners_up": "one lip corner is pulled up more"}
    words = {}
    if shown["lip_corners_up"] == "":
        narrowed = face.signs.get("eyes_narrowed")
        if narrowed is not None and narrowed.level >= s.cheeks_raised:
            words[CHEEKS] = "the cheeks are raised"
        if shown.get("upper_lip_raised") == "":
            words["upper_lip_raised"] = "the teeth show"
    return words


def _changes(face: Face, s: Settings) -> str:
    """What comes, goes or passes between the first and the last third of the window."""
    over: list[str] = []
    midway: list[str] = []
    for name in SIGNS:
        course = face.signs.get(name)
        if course is None:
            continue
        slight, clear = getattr(s, name)
        step = s.change_share * clear
        peak = max(v for v in (course.start, course.middle, course.end, course.level) if v is not None)
        lids = face.signs.get("eyes_closed")
        if peak < slight or (name == "eyes_narrowed" and lids is not None and abs(lids.change) >= step):
            continue
        if course.change >= step:
            over.append(SIGNS[name].comes)
        elif course.change <= -step:
            over.append(SIGNS[name].goes)
        elif course.bump >= step:
            midway.append(SIGNS[name].comes)
    over += _turns(face, s)
    told = []
    if over:
        told.append("over the window " + _joined(over))
    if midway:
        told.append("midway " + _joined(midway) + " for a moment")
    return "; ".join(told)


def _turns(face: Face, s: Settings) -> list[str]:
    found = []
    if abs(face.pitch.change) >= s.head_change_deg:
        found.append("the head lifts" if face.pitch.change > 0 else "the head sinks")
    if abs(face.yaw.change) >= s.head_change_deg:
        away = abs(face.yaw.end or 0.0) > abs(face.yaw.start or 0.0)
        found.append("the head turns away" if away else "the head turns to the front")
    if abs(face.gaze_side.change) >= s.gaze_side:
        away = abs(face.gaze_side.end or 0.0) > abs(face.gaze_side.start or 0.0)
        found.append("the gaze turns away" if away else "the gaze turns to the front")
    return found


def _mouth_moves(face: Face, s: Settings) -> bool:
    jaw = face.signs.get("mouth_open")
    return jaw is not None and jaw.spread >= s.mouth_moves


def _mouth_motion(face: Face, sound: Sound | None, s: Settings) -> str:
    if not _mouth_moves(face, s):
        return ""
    speaking = sound is not None and sound.speech_share is not None and sound.speech_share >= s.speech_share[0]
    return "the mouth moves in speech" if speaking else "the mouth opens and closes"


def _gaze(face: Face, s: Settings) -> str:
    closed = face.signs.get("eyes_closed")
    if closed is not None and closed.level >= s.eyes_closed[1]:
        return ""  # behind closed lids the gaze is a guess
    where = []
    if face.gaze_up.level <= -s.gaze_down:
        where.append("down")
    elif face.gaze_up.level >= s.gaze_up:
        where.append("up")
    if abs(face.gaze_side.level) >= s.gaze_side:
        where.append("to the side")
    return "the gaze is directed " + " and ".join(where) if where else ""


def _head(face: Face, s: Settings) -> str:
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


def _sound(sound: Sound | None, s: Settings) -> str:
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
    told = f"a voice speaks {how_long}"
    manner = _manner(sound, s)
    if manner:
        told += "; it is " + _joined(manner)
    short, long = s.pause_s
    if sound.pause_s >= short:
        told += ", with long pauses" if sound.pause_s >= long else ", with pauses"
    return told


def _manner(sound: Sound, s: Settings) -> list[str]:
    found = []
    if sound.louder_db is not None and abs(sound.louder_db) >= s.louder_db:
        found.append("louder than before or after" if sound.louder_db > 0 else "quieter than before or after")
    if sound.higher is not None and abs(sound.higher) >= s.higher_semitones:
        found.append("higher in pitch" if sound.higher > 0 else "lower in pitch")
    if sound.pitch_range is not None:
        flat, varied = s.pitch_range_semitones
        if sound.pitch_range < flat:
            found.append("flat")
        elif sound.pitch_range >= varied:
            found.append("widely varied in pitch")
    if sound.syllables_hz is not None:
        slow, fast = s.syllables_hz
        if sound.syllables_hz < slow:
            found.append("slow")
        elif sound.syllables_hz >= fast:
            found.append("fast")
    return found


def _light(light: Light | None, s: Settings) -> str:
    if light is None:
        return ""
    dark, bright = s.brightness
    soft, hard = s.contrast
    words = ["dark" if light.brightness < dark else "bright" if light.brightness >= bright else "of medium brightness"]
    if light.contrast >= hard:
        words.append("high in contrast")
    elif light.contrast < soft:
        words.append("low in contrast")
    cool, warm = s.warmth
    if light.colour < s.colour:
        words.append("almost without colour")
    elif light.warmth >= warm:
        words.append("reddish")
    elif light.warmth < cool:
        words.append("bluish")
    told = "the picture is " + _joined(words)
    if light.cuts:
        return told + " and cuts to another view"
    still, lively = s.motion
    if light.motion >= lively:
        return told + ", with much motion"
    return told + ", with hardly any motion" if light.motion < still else told
