"""Readers of labelled speech and sentences: their rows, and one line for every invalid file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cer_pipeline.corpora.formats.ravdess import read_ravdess
from cer_pipeline.corpora.formats.utterances import Utterance, read_goemotions, read_meld, unseen
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

LABELS = "anger\ndisgust\nfear\njoy\nsadness\nsurprise\nneutral\n"
MELD_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"


def goemotions(folder: Path, text: str) -> Path:
    """A folder in GoEmotions' layout."""
    (folder / "labels.txt").write_text(LABELS)
    (folder / "train.tsv").write_bytes(text.encode())
    return folder


def basic(*names: str) -> tuple[int, ...]:
    """Positions of basic emotions."""
    return tuple(sorted(BASIC.index(name) for name in names))


def test_goemotions_rows_keep_all_their_labels(tmp_path: Path) -> None:
    folder = goemotions(tmp_path, "I love it\t3\ta1\nWhat\u2028?!\t5,0\ta2\r\n")
    assert read_goemotions(folder, "train") == [
        Utterance("a1", "I love it", basic("Happiness")),
        Utterance("a2", "What\u2028?!", basic("Surprise", "Anger")),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("only text\n", "a row has 1 columns"),
        ("text\t9\tid\n", "unknown label id '9'"),
        ("text\t-1\tid\n", "no label"),
        ("text\tjoy\tid\n", "unknown label id 'joy'"),
        (" \t3\tid\n", "no text"),
        ("", "no labelled sentence"),
    ],
)
def test_an_invalid_goemotions_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    folder = goemotions(tmp_path, ("fine\t3\ta1\n" if row else "") + row)
    with pytest.raises(CerError, match=message) as error:
        read_goemotions(folder, "train")
    assert "\n" not in error.value.line()
    assert not row or "line 2" in error.value.line()


def test_goemotions_without_a_split_or_with_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="does not exist"):
        read_goemotions(goemotions(tmp_path, "a\t1\tb\n"), "dev")
    (tmp_path / "labels.txt").write_text("anger\nboredom\n")
    with pytest.raises(CerError, match=r"unknown class 'boredom'.*line 2"):
        read_goemotions(tmp_path, "train")


def test_meld_rows_may_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    text = MELD_HEADER + '1,"Oh, ""no"".\nReally?",Joey,surprise,negative,3,4\n'
    (tmp_path / "dev_sent_emo.csv").write_text(text, "utf-8")
    assert read_meld(tmp_path, "dev") == [Utterance("dia3_utt4", 'Oh, "no".\nReally?', basic("Surprise"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Utterance,Speaker\nhi,Joey\n", "the file has no column Emotion, Dialogue_ID, Utterance_ID"),
        (MELD_HEADER + "1,hi,Joey,bored,neutral,0,0\n", "unknown class 'bored'.*row 2"),
        (MELD_HEADER + "1,,Joey,joy,neutral,0,0\n", "no text.*row 2"),
        (MELD_HEADER, "no labelled sentence"),
    ],
)
def test_an_invalid_meld_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train_sent_emo.csv").write_text(text, "utf-8")
    with pytest.raises(CerError, match=message):
        read_meld(tmp_path, "train")


def test_the_error_for_another_encoding_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "train_sent_emo.csv").write_bytes(MELD_HEADER.encode() + b"1,caf\xe9,A,joy,x,0,0\n")
    with pytest.raises(CerError, match=r"not UTF-8 at line 2 .byte 0xe9: perhaps Latin-1"):
        read_meld(tmp_path, "train")


def test_unseen_ignores_case_and_blanks() -> None:
    train = [Utterance("1", "Oh  my God", (0,))]
    rows = [Utterance("2", "oh my god", (0,)), Utterance("3", "oh my dog", (0,))]
    assert unseen(rows, train) == rows[1:]


def clip(folder: Path, name: str, content: bytes) -> None:
    """One file in RAVDESS's layout."""
    path = folder / f"Actor_{name[-2:]}" / f"{name}.flac"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def test_ravdess_names_give_actor_and_emotion_and_copies_are_removed(tmp_path: Path) -> None:
    clip(tmp_path, "03-01-02-01-01-01-07", b"a")
    clip(tmp_path, "03-01-02-01-01-02-07", b"a")
    clip(tmp_path, "03-01-08-01-01-01-02", b"b")
    clips = read_ravdess(tmp_path)
    assert [(c.actor, BASIC[c.label], c.calm) for c in clips] == [(2, "Surprise", False), (7, "Neutral", True)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("03-01-09-01-01-01-01", "unknown emotion 09"), ("speech-01", "not of the form of RAVDESS")],
)
def test_an_invalid_ravdess_name_is_refused(tmp_path: Path, name: str, message: str) -> None:
    clip(tmp_path, name, b"a")
    with pytest.raises(CerError, match=message):
        read_ravdess(tmp_path)


def test_one_recording_with_two_emotions_is_refused(tmp_path: Path) -> None:
    clip(tmp_path, "03-01-05-01-01-01-01", b"a")
    clip(tmp_path, "03-01-04-01-01-01-01", b"a")
    with pytest.raises(CerError, match="two labels or actors"):
        read_ravdess(tmp_path)


def test_a_folder_without_ravdess_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="no speech clip"):
        read_ravdess(tmp_path)
    with pytest.raises(CerError, match="does not exist"):
        read_ravdess(tmp_path / "absent")


def test_the_real_corpora_have_the_documented_sizes(shared_data: Path) -> None:
    meld = shared_data / "text" / "meld"
    dev, train = read_meld(meld, "dev"), read_meld(meld, "train")
    assert (len(train), len(dev), len(unseen(dev, train))) == (9989, 1109, 974)
    sentences = [len(read_goemotions(shared_data / "text" / "goemotions", s)) for s in ("train", "dev", "test")]
    assert sentences == [43410, 5426, 5427]
    clips = read_ravdess(shared_data / "speech" / "ravdess")
    assert len(clips) == 1199  # 1,200 with one copy
    assert {c.actor for c in clips} == set(range(1, 21))
