"""Small corpora in the layouts in which their owners hand them out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cer_pipeline.labels import BASIC, COMPOUND

CAPTION_HEADER = ("video_name", "text", *BASIC)
AFEW_CLASSES = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
MEANT = dict(
    zip(AFEW_CLASSES, ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise"), strict=True)
)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def one_hot(label: str | None) -> list[str]:
    """The eight label cells of a class; empty ones for None."""
    return [""] * len(BASIC) if label is None else ["1.0" if name == label else "0.0" for name in BASIC]


def caption_rows(clips: Mapping[str, str | None], text: str = "A person in a room") -> list[list[str]]:
    """One row for every segment name, each with a text of its own."""
    return [
        [name, f"{text}, number {i} of {name.partition('___')[0]}.", *one_hot(label)]
        for i, (name, label) in enumerate(clips.items())
    ]


def captions(folder: Path, split: str, clips: Mapping[str, str | None], views: Sequence[str] = ("m_prompt1",)) -> Path:
    """A folder of caption files of one split: one for each view."""
    for view in views:
        write_csv(folder / f"{view}_{split}.csv", CAPTION_HEADER, caption_rows(clips, f"{view} sees a person"))
    return folder


def afew_captions(folder: Path, dev: Mapping[str, str] | None = None) -> Path:
    """AFEW's captions: seven train clips, one of two segments, and dev clips."""
    train = {f"00000{i}000___{c}_0000.avi": MEANT[c] for i, c in enumerate(AFEW_CLASSES)}
    captions(folder, "train", train | {"000000000___Angry_0001.avi": "Anger"}, ("m_prompt1", "m_prompt2"))
    names = dev or {f"00000{i}777___{c}_0000.avi": MEANT[c] for i, c in enumerate(AFEW_CLASSES)}
    return captions(folder, "dev", names, ("m_prompt1", "m_prompt2"))


def put(path: Path, content: bytes | None = None) -> Path:
    """A file whose content is its name, unless given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(str(path.name).encode() + str(path.parent).encode() if content is None else content)
    return path


def afew(root: Path) -> Path:
    """AFEW's folders: one clip a class and split."""
    for split, start in (("Train_AFEW", 0), ("Val_AFEW", 100)):
        for i, folder in enumerate(AFEW_CLASSES):
            put(root / split / folder / f"{start + i:09d}.avi")
    return root


def annotation(path: Path, values: Sequence[int | str], header: str = ",".join(BASIC)) -> Path:
    """An annotation file of AffWild2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *map(str, values)]) + "\n", "utf-8")
    return path


def spans(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] | None = None) -> Path:
    """A table of stretches of compound expressions: video, begin, end, then one mark a compound."""
    names = header or ("video", "begin", "end", *(name.replace(" ", "_") for name in COMPOUND))
    return write_csv(path, names, rows)


def marks(*compounds: str) -> list[int]:
    """Seven marks."""
    return [int(name in compounds) for name in COMPOUND]
