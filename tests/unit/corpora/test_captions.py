"""The caption reader aligns views, keeps the label of AFEW out of every id, and refuses invalid rows in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from cer_pipeline.corpora.formats.caption_files import (
    FOLDERS,
    CaptionSplit,
    check_separate,
    overlap,
    parse_name,
    read_split,
    separate,
    splits,
)
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC

HEADER = ["video_name", "text", *BASIC]


def one_hot(name: str) -> list[str]:
    return ["1.0" if name == label else "0.0" for label in BASIC]


ROWS = [
    ["000149120___Angry_0000.avi", "The brows are lowered.", *one_hot("Anger")],
    ["000149120___Angry_0001.avi", "The jaw is set, the lips press.", *one_hot("Anger")],
    ["000777000___Happy_0000.avi", "A broad smile.", *one_hot("Happiness")],
]


def write(folder: Path, rows: list[list[str]], name: str = "m_prompt1_train.csv", header: list[str] = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


@pytest.mark.parametrize(
    ("name", "video_id", "segment", "frames"),
    [
        ("01___0003.mp4", "01", 3, None),
        ("000149120___Angry_0000.avi", "000149120", 0, None),
        ("117___2038_2158_0034.avi", "117", 34, (2038, 2158)),
        ("10-60-1280x720_right___0_120_0000.avi", "10-60-1280x720_right", 0, (0, 120)),
    ],
)
def test_a_name_gives_video_index_and_frames(name, video_id, segment, frames):
    parsed, _ = parse_name(name)
    assert (parsed.video_id, parsed.segment, parsed.frames) == (video_id, segment, frames)
    assert parsed.segment_id == f"{video_id}/{segment:04d}"


@pytest.mark.parametrize(("folder", "label"), FOLDERS.items())
def test_the_label_in_a_name_is_returned_apart_and_is_not_in_the_id(folder, label):
    parsed, spelled = parse_name(f"000149120___{folder}_0000.avi")
    assert spelled == label
    assert parsed == parse_name("000149120___0000.avi")[0]
    assert folder.lower() not in repr(parsed).lower()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip.avi", "another form"),
        ("", "another form"),
        ("000149120___Bored_0000.avi", "Bored"),
        ("angry_17___0000.avi", "angry"),
        ("clip-HAPPY___0000.avi", "HAPPY"),
    ],
)
def test_names_of_another_form_and_names_with_a_class_word_are_refused(name, message):
    with pytest.raises(CerError, match=message):
        parse_name(name)


@pytest.mark.parametrize("name", ["sadler___0000.mp4", "angerona___0000.mp4"])
def test_a_word_that_only_begins_like_a_class_is_accepted(name):
    assert parse_name(name)[0].segment == 0


def test_views_are_aligned_by_segment_with_none_for_missing_captions(tmp_path):
    write(tmp_path, ROWS)
    write(tmp_path, [[*ROWS[2][:1], "  ", *ROWS[2][2:]], ROWS[0]], "m_prompt2_train.csv")
    split = read_split(tmp_path, "train", labelled=True)
    assert [s.segment_id for s in split.segments] == ["000149120/0000", "000149120/0001", "000777000/0000"]
    assert split.texts["m_prompt1"] == ("The brows are lowered.", "The jaw is set, the lips press.", "A broad smile.")
    assert split.texts["m_prompt2"] == ("The brows are lowered.", None, None)
    assert split.labels is not None
    assert [BASIC[i] for i in split.targets] == ["Anger", "Anger", "Happiness"]
    assert split.videos == ("000149120", "000149120", "000777000")
    assert set(split.digests) == {"m_prompt1_train.csv", "m_prompt2_train.csv"}


def test_the_result_of_the_reader_contains_no_folder_label(tmp_path):
    rows = [
        [f"00000{i}___{folder}_0000.avi", "A face.", *one_hot(label)]
        for i, (folder, label) in enumerate(FOLDERS.items())
    ]
    split = read_split(write(tmp_path, rows), "train", labelled=True)
    exposed = " ".join([*split.videos, *(s.segment_id for s in split.segments), *map(str, split.segments)])
    assert not [folder for folder in FOLDERS if folder.lower() in exposed.lower()]


def test_soft_labels_stay_distributions_and_the_first_of_a_tie_is_the_target(tmp_path):
    row = ["117___2038_2158_0034.avi", "A face.", *["0.5", "0", "0.5", "0", "0", "0", "0", "0"]]
    split = read_split(write(tmp_path, [row]), "train", labelled=True)
    assert split.labels is not None
    np.testing.assert_array_equal(split.labels.sum(1), [1.0])
    assert split.targets.tolist() == [0]


def test_empty_label_columns_are_accepted_for_unlabelled_splits_only(tmp_path):
    write(tmp_path, [["01___0000.mp4", "A face.", *[""] * 8]], "m_prompt1_test.csv")
    assert read_split(tmp_path, "test", labelled=False).labels is None
    with pytest.raises(CerError, match="label columns are all empty"):
        read_split(tmp_path, "test", labelled=True)
    with pytest.raises(CerError, match="choose a labelled split"):
        _ = read_split(tmp_path, "test", labelled=False).targets


def changed(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(r) for r in ROWS]
    rows[row][HEADER.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, "Anger", "0.7"), r"sum to 0\.7.*row 3"),
        (changed(2, "Fear", "-1"), r"Fear is -1.*row 4"),
        (changed(2, "Fear", "nan"), r"Fear is nan.*row 4"),
        (changed(0, "Disgust", "much"), r"Disgust is no number.*row 2"),
        (changed(0, "Disgust", ""), r"Disgust is empty.*row 2"),
        (changed(1, "video_name", "000149120___Angry_0000.avi"), r"000149120/0000 occurs twice.*row 3.*row 2"),
        (changed(1, "video_name", "000149120___Fear_0001.avi"), r"name says Fear.*Anger.*row 3"),
        (changed(1, "video_name", "000149120___Shy_0001.avi"), r"unknown class 'Shy'.*row 3"),
        (changed(1, "text", "Frames of 000149120___Angry_0001 show a face."), r"text contains the name.*row 3"),
        ([*ROWS, ["000888000___Sad_0000.avi", "Tears.", *[""] * 8]], r"row without a label.*row 5"),
        ([], "no rows"),
    ],
)
def test_an_invalid_row_is_named_with_its_class(tmp_path, rows, message):
    write(tmp_path, rows)
    with pytest.raises(CerError, match=message) as caught:
        read_split(tmp_path, "train", labelled=True)
    assert "\n" not in caught.value.line()


def test_missing_unknown_and_repeated_columns_are_named(tmp_path):
    write(tmp_path / "a", [r[:-1] for r in ROWS], header=HEADER[:-1])
    write(tmp_path / "b", [[*r, "0"] for r in ROWS], header=[*HEADER, "Contempt"])
    write(tmp_path / "c", [[*r, "0"] for r in ROWS], header=[*HEADER, "Fear"])
    write(tmp_path / "d", [ROWS[0], ROWS[1][:-2]])
    for name, message in {
        "a": "no column Other",
        "b": "'Contempt'",
        "c": "occurs twice",
        "d": "8 values .* row 3",
    }.items():
        with pytest.raises(CerError, match=message):
            read_split(tmp_path / name, "train", labelled=True)


def test_other_encodings_and_broken_quotes_are_named_with_their_line(tmp_path):
    write(tmp_path / "a", ROWS)
    path = tmp_path / "a" / "m_prompt1_train.csv"
    path.write_bytes(path.read_bytes().replace(b"A broad smile", "A broad smile, très".encode("latin-1")))
    with pytest.raises(CerError, match="not UTF-8 at line 4"):
        read_split(tmp_path / "a", "train", labelled=True)
    path.write_bytes(b'video_name,text,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"a" b,c\n')
    with pytest.raises(CerError, match="not a CSV file"):
        read_split(tmp_path / "a", "train", labelled=True)


def test_a_byte_order_mark_and_texts_of_several_lines_are_read(tmp_path):
    write(tmp_path, changed(0, "text", 'He says "no",\nthen turns.'))
    path = tmp_path / "m_prompt1_train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_split(tmp_path, "train", labelled=True).texts["m_prompt1"][0] == 'He says "no",\nthen turns.'


def test_views_that_disagree_about_a_label_are_refused(tmp_path):
    write(tmp_path, [["1___0000.avi", "x", *one_hot("Fear")]])
    write(tmp_path, [["1___0000.avi", "y", *one_hot("Anger")]], "m_prompt2_train.csv")
    with pytest.raises(CerError, match="label 1/0000 differently"):
        read_split(tmp_path, "train", labelled=True)


def test_missing_folders_splits_and_views_are_one_line_errors(tmp_path):
    with pytest.raises(CerError, match="does not exist"):
        splits(tmp_path / "absent")
    with pytest.raises(CerError, match="no caption file"):
        splits(tmp_path)
    write(tmp_path, ROWS)
    with pytest.raises(CerError, match="it has: train"):
        read_split(tmp_path, "dev", labelled=True)
    with pytest.raises(CerError, match="unknown view"):
        read_split(tmp_path, "train", labelled=True, views=["m_prompt9"])


def pair(tmp_path: Path, dev_rows: list[list[str]]) -> tuple[CaptionSplit, CaptionSplit]:
    write(tmp_path, ROWS)
    write(tmp_path, dev_rows, "m_prompt1_dev.csv")
    return read_split(tmp_path, "train", labelled=True), read_split(tmp_path, "dev", labelled=True)


def test_splits_of_different_clips_are_accepted(tmp_path):
    train, dev = pair(tmp_path, [["000999000___Sad_0000.avi", "Tears.", *one_hot("Sadness")]])
    assert not overlap(train, dev)
    check_separate(train, dev)
    assert len(separate(train, dev)[0]) == len(train)


def test_a_shared_source_clip_is_found_and_its_rows_leave_training(tmp_path):
    train, dev = pair(tmp_path, [["000149120___Angry_0002.avi", "Another text.", *one_hot("Anger")]])
    with pytest.raises(CerError, match="1 source clips are in both splits, first 000149120"):
        check_separate(train, dev)
    rest, shared = separate(train, dev)
    assert shared.videos == ("000149120",)
    assert [s.segment_id for s in rest.segments] == ["000777000/0000"]
    assert rest.labels is not None
    assert rest.labels.shape == (1, 8)
    check_separate(rest, dev)


def test_a_test_row_in_training_is_found_under_another_name(tmp_path):
    train, dev = pair(tmp_path, [["000999000___Happy_0000.avi", "a  BROAD smile.", *one_hot("Happiness")]])
    with pytest.raises(CerError, match="1 texts are in both splits, first that of 000777000/0000"):
        check_separate(train, dev)
    check_separate(separate(train, dev)[0], dev)


def test_the_real_captions_are_whole(shared_data):
    folder = shared_data / "captions"
    train, dev = (read_split(folder / "AFEW", split, labelled=True) for split in ("train", "dev"))
    test = read_split(folder / "C-EXPR-DB", "test", labelled=False)
    assert (len(train), len(set(train.videos)), len(dev), len(set(dev.videos))) == (855, 773, 411, 383)
    assert (len(test), len(set(test.videos)), len(test.texts)) == (449, 56, 6)
    assert np.bincount(dev.targets, minlength=8).tolist() == [71, 67, 44, 48, 70, 64, 47, 0]
    assert {view: texts.count(None) for view, texts in test.texts.items() if None in texts} == {
        "qwen2.5-vl-3b_prompt1": 3,
        "qwen2.5-vl-3b_prompt2": 3,
    }
    assert overlap(train, dev).videos == ("001703120", "005153760")
    spoken = " ".join([*train.videos, *dev.videos, *(s.segment_id for s in (*train.segments, *dev.segments))]).lower()
    assert not [folder for folder in FOLDERS if folder.lower() in spoken]
