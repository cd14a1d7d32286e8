"""The corpus format `utterances`: labelled sentences of GoEmotions with its Ekman mapping, or of MELD.

Belongs here: reading the files of both corpora into `Utterance`s, with errors that name the row. Does not belong here:
training (`branches.text.train`) or embedding sentences (`branches.text.head`).

Labels are positions in `labels.BASIC`. Neither corpus has "Other". A row of GoEmotions may have several labels; all are
kept, and each caller documents which rows it uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cer_pipeline.corpora.annotations import plain
from cer_pipeline.corpora.csv_rows import read_rows, read_text
from cer_pipeline.corpora.scan import Scan
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

NATIVE: Final[dict[str, str]] = {
    "anger": "Anger",
    "disgust": "Disgust",
    "fear": "Fear",
    "joy": "Happiness",
    "neutral": "Neutral",
    "sadness": "Sadness",
    "surprise": "Surprise",
}
"""Class of both corpora (GoEmotions: ekman_mapping.json of its authors; MELD: column Emotion) -> basic emotion."""

MELD_COLUMNS: Final = ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID")


@dataclass(frozen=True)
class Utterance:
    """One labelled sentence.

    Args:
        id: id of the row in its corpus.
        text: the sentence as it is in the file, stripped.
        labels: positions in `BASIC`, ascending, at least one.
    """

    id: str
    text: str
    labels: tuple[int, ...]


def read_goemotions(folder: Path, split: str) -> list[Utterance]:
    """Read `train.tsv`, `dev.tsv` or `test.tsv`: text, comma-separated label ids (lines of `labels.txt`), id.

    Args:
        folder: folder with the tab-separated files and `labels.txt`.
        split: train, dev or test.

    Raises:
        CerError: a file is missing or not UTF-8, or a row has other columns, no text, or an unknown label.
    """
    names = [line.strip() for line in read_text(folder / "labels.txt").splitlines() if line.strip()]
    classes = [_class(name, f"{folder / 'labels.txt'}, line {i}") for i, name in enumerate(names, 1)]
    path = folder / f"{split}.tsv"
    rows: list[Utterance] = []
    # Sentences may contain characters at which str.splitlines breaks lines, so split at the newline alone.
    for number, line in enumerate(read_text(path).replace("\r\n", "\n").split("\n"), 1):
        if not line:
            continue
        where = f"{path}, line {number}"
        parts = line.split("\t")
        if len(parts) != 3:
            raise CerError(
                f"a row has {len(parts)} columns, expected text, labels and id", where, "separate them by tabs"
            )
        text, ids, name = parts[0].strip(), parts[1], parts[2].strip()
        if not text:
            raise CerError("a row has no text", where, "remove the row")
        try:
            labels = {classes[int(i)] for i in ids.split(",") if int(i) >= 0}
        except (ValueError, IndexError):
            raise CerError(f"unknown label id {ids!r}", where, f"use 0 to {len(classes) - 1}") from None
        if not labels:
            raise CerError("a row has no label", where, "remove the row")
        rows.append(Utterance(name, text, tuple(sorted(labels))))
    return _not_empty(rows, path)


def read_meld(folder: Path, split: str) -> list[Utterance]:
    """Read `train_sent_emo.csv` or `dev_sent_emo.csv`.

    Args:
        folder: folder with the CSV files.
        split: train or dev.

    Raises:
        CerError: a file is missing or not UTF-8, a column is missing, or a row has no text or an unknown class.
    """
    path = folder / f"{split}_sent_emo.csv"
    rows: list[Utterance] = []
    for where, row in read_rows(path, MELD_COLUMNS):
        text = row["Utterance"].strip()
        if not text:
            raise CerError("a row has no text", where, "remove the row")
        label = _class(row["Emotion"].strip(), where)
        rows.append(Utterance(f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}", text, (label,)))
    return _not_empty(rows, path)


def scan(folder: Path, options: Mapping[str, Any]) -> Scan:  # noqa: ARG001
    """Read a folder of GoEmotions, which has labels.txt, or of MELD; the corpus has no videos.

    Raises:
        CerError: the folder contains neither, or see `read_goemotions` and `read_meld`.
    """
    if not folder.is_dir():
        raise CerError("the folder does not exist", str(folder), "check the path")
    is_goemotions = (folder / "labels.txt").is_file()
    read, pattern = (read_goemotions, "*.tsv") if is_goemotions else (read_meld, "*_sent_emo.csv")
    files = sorted(folder.glob(pattern))
    splits = [path.name.partition("_")[0].partition(".")[0] for path in files]
    if "train" not in splits:
        then = "expected labels.txt with train.tsv, or train_sent_emo.csv"
        raise CerError("neither GoEmotions nor MELD", str(folder), then)
    rows = {split: read(folder, split) for split in splits}
    messages = [f"{split}: {len(sentences)} sentences" for split, sentences in rows.items()]
    for split, sentences in rows.items():
        shared = 0 if split == "train" else len(sentences) - len(unseen(sentences, rows["train"]))
        messages += [f"{shared} sentences of {split} are also in train"] if shared else []
    content = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    return Scan([], messages=messages, content=content)


def unseen(rows: Iterable[Utterance], train: Iterable[Utterance]) -> list[Utterance]:
    """Return the rows whose text, case and blanks aside, is not in the training rows."""
    known = {plain(row.text) for row in train}
    return [row for row in rows if plain(row.text) not in known]


def _class(name: str, where: str) -> int:
    label = NATIVE.get(name.lower())
    if label is None:
        raise CerError(f"unknown class {name!r}", where, f"use one of: {', '.join(NATIVE)}")
    return BASIC.index(label)


def _not_empty(rows: Sequence[Utterance], path: Path) -> list[Utterance]:
    if not rows:
        raise CerError("no labelled sentence", str(path))
    return list(rows)
