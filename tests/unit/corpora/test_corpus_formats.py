"""Every corpus format in its real layout, and every mistake in one line that names its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.annotations import Annotation, read_captions, read_labels
from cer_pipeline.corpora.corpus import Corpus, File
from cer_pipeline.corpora.formats.registry import FORMATS
from cer_pipeline.corpora.leaks import check_training
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, COMPOUND
from tests.helpers import corpus_files as files

pytestmark = pytest.mark.usefixtures("lengths_once")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "corpus"


def add(home: Path, root: Path, layout: str, **options: object) -> registry.Changes:
    return registry.register(home, "c", root, layout, {k: str(v) for k, v in options.items()})


def corpus(home: Path) -> Corpus:
    return registry.load(home, "c")


def by_id(home: Path) -> dict[str, File]:
    return {file.video_id: file for file in corpus(home).files}


def labels(home: Path) -> dict[str, Annotation]:
    return read_labels(corpus(home).annotations, "s000")


def one_line(error: pytest.ExceptionInfo[CerError]) -> None:
    assert "\n" not in error.value.line()


# --- captions ----------------------------------------------------------------------------------------------------


def test_captions_give_videos_windows_views_labels_and_splits(home, root):
    changes = add(home, files.afew_captions(root), "captions")
    videos = by_id(home)
    assert (len(videos), changes.messages) == (14, ())
    assert videos["000000000"].windows == (0, 1)
    assert {f.split for v, f in videos.items() if v.endswith("777")} == {"dev"}
    assert not corpus(home).has_media
    texts = read_captions(corpus(home).annotations, "s000")["000000000"]
    assert [(c.segment, c.view, c.model, c.prompt) for c in texts] == [
        (0, "m_prompt1", "m", "prompt1"),
        (0, "m_prompt2", "m", "prompt2"),
        (1, "m_prompt1", "m", "prompt1"),
        (1, "m_prompt2", "m", "prompt2"),
    ]
    assert labels(home)["000000000"].windows[1][BASIC.index("Anger")] == 1
    with pytest.raises(CerError, match="no media"):
        corpus(home).source("000000000")


def test_the_label_in_the_name_of_a_segment_is_not_in_the_registration(home, root):
    add(home, files.afew_captions(root), "captions")
    kept = (home / "corpora/c.json").read_text().lower()
    assert not [word for word in files.AFEW_CLASSES if word.lower() in kept.replace(str(root).lower(), "")]
    texts = read_captions(corpus(home).annotations, "s000")
    assert not [word for word in files.AFEW_CLASSES if word.lower() in repr(texts).lower()]


def test_one_changed_row_changes_one_video(home, root):
    files.afew_captions(root)
    add(home, root, "captions")
    path = root / "m_prompt2_dev.csv"
    path.write_text(path.read_text().replace("number 3 of", "number three of"), "utf-8")
    changes = add(home, root, "captions")
    assert (changes.changed, changes.added, changes.removed) == (("000003777",), (), ())
    assert len(list((home / "corpora").glob("c.*.parquet"))) == 2, "a run may still read the last annotations"
    assert add(home, root, "captions").changed == ()
    assert len(list((home / "corpora").glob("c.*.parquet"))) == 1


def test_a_clip_in_two_splits_leaves_training_and_is_reported(home, root):
    files.afew_captions(root, dev={"000002000___Fear_0000.avi": "Fear", "000009777___Sad_0000.avi": "Sadness"})
    changes = add(home, root, "captions")
    videos = by_id(home)
    assert (videos["000002000@train"].split, videos["000002000@dev"].split) == (None, "dev")
    assert videos["000002000@train"].excluded == "left out of train: the source clip also stands in dev"
    assert changes.messages[0].startswith("1 videos are left out of their split, first 000002000@train")
    with pytest.raises(CerError, match="are also in a split that is held out") as caught:
        add(home, root, "captions", leaks="refuse")
    one_line(caught)
    add(home, root, "captions", leaks="keep")
    assert by_id(home)["000002000@train"].split == "train"


def test_a_caption_in_two_splits_leaves_training(home, root):
    files.afew_captions(root)
    path = root / "m_prompt1_dev.csv"
    text = "m_prompt1 sees a person, number 2 of 000002777."
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, "M_PROMPT1 sees a  person, number 4 of 000004000."), "utf-8")
    add(home, root, "captions")
    assert by_id(home)["000004000"].excluded == "left out of train: an exact copy of it stands in dev"


def test_captions_without_labels_are_a_corpus_without_labels(home, root):
    add(home, files.captions(root, "test", {"01___0000.mp4": None, "01___0003.mp4": None}), "captions")
    assert not corpus(home).has_labels
    assert by_id(home)["01"].windows == (0, 3)


def test_a_view_without_labels_beside_one_with_labels_is_refused(home, root):
    files.captions(root, "train", {"1___0000.avi": "Fear"})
    files.captions(root, "train", {"1___0000.avi": None}, ["other_prompt1"])
    with pytest.raises(CerError, match=r"label columns are all empty.*other_prompt1_train\.csv.*as in the other"):
        add(home, root, "captions")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Fear", "-1", r"Fear is -1, outside 0..1: row 3 of .*leave unannotated frames out of means"),
        ("Fear", "0.5", r"labels sum to 1.5, not to 1: row 3"),
        ("video_name", "000000000___Angry_0000.avi", r"000000000/0000 occurs twice: row 3"),
        ("video_name", "000001000___Bored_0000.avi", r"unknown class 'Bored'.*row 3"),
        ("video_name", "angry_1___0000.avi", r"contains the class word 'angry'.*row 3"),
    ],
)
def test_an_invalid_caption_row_is_refused_when_the_corpus_is_added(home, root, column, value, message):
    rows = files.caption_rows({f"00000{i}000___Angry_0000.avi": "Anger" for i in range(3)})
    rows[1][files.CAPTION_HEADER.index(column)] = value
    files.write_csv(root / "m_prompt1_train.csv", files.CAPTION_HEADER, rows)
    with pytest.raises(CerError, match=message) as caught:
        add(home, root, "captions")
    one_line(caught)
    assert not (home / "corpora").exists()


def test_caption_files_of_another_shape_are_refused(home, root):
    path = files.write_csv(root / "m_prompt1_train.csv", files.CAPTION_HEADER[:-1], [])
    with pytest.raises(CerError, match="no column Other"):
        add(home, root, "captions")
    files.write_csv(path, files.CAPTION_HEADER, [])
    with pytest.raises(CerError, match="has no rows"):
        add(home, root, "captions")
    path.write_bytes("video_name,text\n".encode("utf-16-le"))  # without a mark nothing tells the encoding
    with pytest.raises(CerError, match="not UTF-8"):
        add(home, root, "captions")
    path.rename(root / "m_prompt1_some.csv")
    with pytest.raises(CerError, match="unknown split 'some'"):
        add(home, files.captions(root, "some", {"1___0000.avi": None}), "captions")


def test_captions_and_labels_can_be_added_to_the_videos_of_a_folder(home, root, tmp_path):
    for name in ("000149120.mp4", "deep/000777000.mp4", "other.mp4"):
        files.put(root / name)
    clips = {"000149120___Angry_0000.avi": "Anger", "000777000___Happy_0000.avi": "Happiness", "9___0000.avi": "Fear"}
    changes = add(home, root, "folder", captions=files.captions(tmp_path / "texts", "dev", clips))
    videos = by_id(home)
    assert [videos[v].split for v in ("000149120", "deep/000777000", "other")] == ["dev", "dev", None]
    assert labels(home)["deep/000777000"].windows[0][BASIC.index("Happiness")] == 1
    assert videos["other"].captions == ""
    assert changes.ignored == ("1 x video of the captions that the corpus lacks",)
    assert corpus(home).has_media
    with pytest.raises(CerError, match="no caption belongs to a video"):
        add(home, root, "folder", captions=files.captions(tmp_path / "b", "dev", {"8___0000.avi": None}))


def test_a_labelled_video_whose_folder_contains_a_class_word_is_refused(home, root, tmp_path):
    files.put(root / "Angry" / "000149120.mp4")
    texts = files.captions(tmp_path / "texts", "dev", {"000149120___Angry_0000.avi": "Anger"})
    with pytest.raises(CerError, match=r"contains the class word 'Angry': Angry/000149120\.mp4 - rename"):
        add(home, root, "folder", captions=texts)
    add(home, root, "folder")  # without labels it is a folder like any other
    assert list(by_id(home)) == ["Angry/000149120"]


# --- afew --------------------------------------------------------------------------------------------------------


def test_afew_has_one_class_a_clip_and_its_word_is_not_in_the_id(home, root):
    changes = add(home, files.afew(root), "afew")
    videos = by_id(home)
    assert len(videos) == 14
    assert videos["Train_AFEW/000000003"].path == "Train_AFEW/Happy/000000003.avi"
    assert [videos[v].split for v in ("Train_AFEW/000000003", "Val_AFEW/000000103")] == ["train", "dev"]
    assert labels(home)["Val_AFEW/000000103"].clip == tuple(float(name == "Happiness") for name in BASIC)
    assert changes.messages == ()
    assert corpus(home).source("Train_AFEW/000000003") == root / "Train_AFEW/Happy/000000003.avi"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Train_AFEW/Bored/1.avi", r"unknown class folder 'Bored': Train_AFEW/Bored/1\.avi - the class folders are:"),
        ("clips/Sad/1.avi", r"no split folder: clips/Sad/1\.avi"),
        ("Train_AFEW/Sad/angry_1.avi", r"contains the class word 'angry'"),
        ("Train_AFEW/Sad/000000000.avi", r"two files of one split are the video Train_AFEW/000000000"),
    ],
)
def test_afew_clips_without_a_class_or_split_folder_are_refused(home, root, path, message):
    files.put(files.afew(root) / path)
    with pytest.raises(CerError, match=message) as caught:
        add(home, root, "afew")
    one_line(caught)


def test_afew_copies_and_shared_clips_leave_training(home, root):
    files.afew(root)
    files.put(root / "Val_AFEW/Sad/000000000.avi", b"another cut of the same clip")
    files.put(root / "Val_AFEW/Fear/000000999.avi", (root / "Train_AFEW/Fear/000000002.avi").read_bytes())
    changes = add(home, root, "afew")
    excluded = {v: f.excluded for v, f in by_id(home).items() if f.excluded}
    assert excluded == {
        "Train_AFEW/000000000": "left out of train: the source clip also stands in dev",
        "Train_AFEW/000000002": "left out of train: an exact copy of it stands in dev",
    }
    assert any(line.startswith("the split train has no Anger, Fear") for line in changes.messages)


def test_one_file_under_two_classes_is_refused(home, root):
    files.afew(root)
    files.put(root / "Train_AFEW/Sad/7.avi", (root / "Train_AFEW/Angry/000000000.avi").read_bytes())
    with pytest.raises(CerError, match="one file has two labels"):
        add(home, root, "afew")


def test_a_training_split_of_one_clip_and_missing_classes_are_reported(home, root):
    files.put(root / "train/Sad/1.avi")
    messages = add(home, root, "afew").messages
    assert messages[0].startswith("the split train has no Neutral, Anger, Disgust, Fear, Happiness, Surprise:")
    assert messages[1].startswith("the training split has one source clip, 1:")


# --- affwild2 ----------------------------------------------------------------------------------------------------


def affwild2(root: Path, *, split: str = "Train_Set") -> Path:
    for name in ("1-30-1280x720.mp4", "10-60-1280x720.mp4", "bare.avi"):
        files.put(root / "videos" / name)
    annotation_folder = root / "EXPR_Recognition_Challenge"
    files.annotation(annotation_folder / split / "1-30-1280x720.txt", [-1, 0, 4, 4])
    files.annotation(annotation_folder / "Validation_Set" / "10-60-1280x720.txt", [7, 7])
    files.annotation(annotation_folder / "Validation_Set" / "10-60-1280x720_right.txt", [1, -1])
    files.put(annotation_folder / "readme.txt", b"no annotation")
    return root


def test_affwild2_has_a_class_for_every_frame_and_two_people_in_one_video(home, root):
    changes = add(home, affwild2(root), "affwild2")
    videos, annotations = by_id(home), labels(home)
    assert annotations["1-30-1280x720"].frames == (-1, 0, 4, 4)
    assert annotations["10-60-1280x720_right"].frames == (1, -1)
    assert videos["10-60-1280x720_right"].path == videos["10-60-1280x720"].path == "videos/10-60-1280x720.mp4"
    assert videos["10-60-1280x720_right"].source == "10-60-1280x720"
    splits = {v: f.split for v, f in videos.items()}
    assert splits == {"1-30-1280x720": "train", "10-60-1280x720": "dev", "10-60-1280x720_right": "dev", "bare": None}
    assert "1 x video without annotation (kept, unlabelled)" in changes.ignored


def test_affwild2_annotations_may_be_in_another_folder_and_a_change_changes_one_video(home, root, tmp_path):
    affwild2(root)
    annotation_folder = (root / "EXPR_Recognition_Challenge").rename(tmp_path / "notes")
    with pytest.raises(CerError, match=r"no annotation file below a split folder.*--labels"):
        add(home, root, "affwild2")
    add(home, root, "affwild2", labels=annotation_folder)
    files.annotation(annotation_folder / "Train_Set/1-30-1280x720.txt", [-1, 0, 4, 5])
    assert add(home, root, "affwild2", labels=annotation_folder).changed == ("1-30-1280x720",)


@pytest.mark.parametrize(
    ("values", "header", "message"),
    [
        ([0, 8], ",".join(BASIC), r"'8' is no class: line 3 of .*use 0 to 7, or -1"),
        ([0, "", 1], ",".join(BASIC), r"'' is no class: line 3"),
        ([0], ",".join(BASIC[:-1]) + ",Contempt", r"unknown class 'Contempt' in the header"),
        ([0], "Valence,Arousal", r"unknown class 'Valence'"),
        ([0], ",".join(BASIC[:-1]), r"the header is not the 8 classes in order"),
        ([], ",".join(BASIC), r"has no frame"),
    ],
)
def test_invalid_affwild2_annotations_are_refused(home, root, values, header, message):
    affwild2(root)
    files.annotation(root / "EXPR_Recognition_Challenge/Train_Set/1-30-1280x720.txt", values, header)
    with pytest.raises(CerError, match=message) as caught:
        add(home, root, "affwild2")
    one_line(caught)


def test_affwild2_annotations_without_a_video_are_refused(home, root):
    affwild2(root)
    extra = files.annotation(root / "EXPR_Recognition_Challenge/Train_Set/99.txt", [0])
    with pytest.raises(CerError, match=r"no video of the name 99: .*99\.txt"):
        add(home, root, "affwild2")
    extra.unlink()
    files.put(root / "batch2/1-30-1280x720.mp4")
    with pytest.raises(CerError, match="two videos have the name 1-30-1280x720"):
        add(home, root, "affwild2")


def test_a_video_of_affwild2_with_people_in_two_splits_leaves_training(home, root):
    affwild2(root)
    annotation_folder = root / "EXPR_Recognition_Challenge"
    (annotation_folder / "Validation_Set/10-60-1280x720_right.txt").rename(
        annotation_folder / "Train_Set/10-60-1280x720_right.txt"
    )
    add(home, root, "affwild2")
    assert by_id(home)["10-60-1280x720_right"].excluded.startswith("left out of train: the source clip")


# --- cexpr -------------------------------------------------------------------------------------------------------


def cexpr(root: Path) -> Path:
    for name in ("01.mp4", "02.mp4"):
        files.put(root / name)
    return root


def test_cexpr_needs_no_labels_and_is_held_out(home, root):
    add(home, cexpr(root), "cexpr")
    assert {v: f.split for v, f in by_id(home).items()} == {"01": "test", "02": "test"}
    assert not corpus(home).has_labels


def test_time_spans_share_the_classes_that_they_mark(home, root, tmp_path):
    rows = [["01", 4, 9.5, *files.marks("Sadly Angry")], ["01", 0, 4, *files.marks("Sadly Angry", "Sadly Fearful")]]
    add(home, cexpr(root), "cexpr", labels=files.spans(tmp_path / "labels.csv", rows))
    first, second = labels(home)["01"].spans
    assert (first.begin_s, first.end_s, second.begin_s, second.end_s) == (0, 4, 4, 9.5)
    assert first.compound is not None
    assert first.compound[-2:] == (0.5, 0.5)
    assert second.compound == tuple(float(name == "Sadly Angry") for name in COMPOUND)
    assert first.basic is None
    assert by_id(home)["02"].labels == ""


def test_time_spans_may_be_in_a_file_for_each_video_and_without_media(home, root, tmp_path):
    header = ("begin", "end", *COMPOUND)
    files.spans(tmp_path / "labels/02.csv", [[0, 3, *files.marks("Happily Surprised")]], header)
    add(home, cexpr(root), "cexpr", labels=tmp_path / "labels")
    assert list(labels(home)) == ["02"]
    texts = files.captions(tmp_path / "texts", "test", {"02___0000.mp4": None})
    registry.register(home, "d", texts, "captions", {"labels": str(tmp_path / "labels")})
    assert list(read_labels(registry.load(home, "d").annotations, "s000")) == ["02"]


GOOD = files.marks("Sadly Angry")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["03", 0, 1, *GOOD], r"the corpus has no video '03': row 3"),
        (["01", 2, 2, *GOOD], r"ends at 2 s, not after its begin at 2 s: row 3"),
        (["01", "x", 2, *GOOD], r"begin is 'x', no time in seconds: row 3"),
        (["01", 0, 2, *([0] * 7)], r"no class is marked: row 3"),
        (["01", 0, 2, -1, *([0] * 6)], r"Fearfully Surprised is '-1', outside 0..1: row 3"),
        (["01", 0, 1, *GOOD], r"occurs twice: row 3"),
        (["01", 0, 1], r"3 values for 10 columns: row 3"),
    ],
)
def test_an_invalid_time_span_is_refused(home, root, tmp_path, row, message):
    table = files.spans(tmp_path / "labels.csv", [["01", 0, 1, *GOOD], row])
    with pytest.raises(CerError, match=message) as caught:
        add(home, cexpr(root), "cexpr", labels=table)
    one_line(caught)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("video", "begin", "end", *COMPOUND[:-1]), "no column Sadly Angry"),
        (("video", "begin", "end", *COMPOUND[:-1], "Angrily Sad"), "unknown class or column 'Angrily Sad'"),
        (("begin", "end", *COMPOUND), "no column video"),
        (("video", "begin", "end"), "no column for a class"),
        (("video", "begin", "end", *COMPOUND, "Fear"), "'Fear' is of the other vocabulary"),
    ],
)
def test_a_table_of_time_spans_with_other_columns_is_refused(home, root, tmp_path, header, message):
    table = files.spans(tmp_path / "labels.csv", [["01", 0, 1, *GOOD][: len(header)]], header)
    with pytest.raises(CerError, match=message):
        add(home, cexpr(root), "cexpr", labels=table)


# --- splits ------------------------------------------------------------------------------------------------------


def test_a_split_can_be_set_for_all_videos_or_by_a_table(home, root, tmp_path):
    cexpr(root)
    add(home, root, "folder", split="val")
    assert {f.split for f in by_id(home).values()} == {"dev"}
    table = files.write_csv(tmp_path / "s.csv", ("video", "split"), [("01", "train"), ("02", "test")])
    assert add(home, root, "folder", split=table).changed == ("01", "02")
    assert [f.split for f in by_id(home).values()] == ["train", "test"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("01", "train")], "1 videos have no split, first 02"),
        ([("01", "some"), ("02", "test")], "unknown split 'some': row 2"),
        ([("01", "train"), ("03", "test")], "the corpus has no video '03': row 3"),
        ([("01", "train"), ("01", "test")], "the video 01 has the splits train and test: row 3"),
    ],
)
def test_an_invalid_table_of_splits_is_refused(home, root, tmp_path, rows, message):
    table = files.write_csv(tmp_path / "s.csv", ("video", "split"), rows)
    with pytest.raises(CerError, match=message):
        add(home, cexpr(root), "folder", split=table)
    with pytest.raises(CerError, match="neither a split nor a file"):
        add(home, root, "folder", split="nowhere.csv")


# --- ravdess, votes, utterances ----------------------------------------------------------------------------------


def test_ravdess_keeps_the_emotion_out_of_the_id_and_the_actor_as_source(home, root):
    for emotion in ("01", "02", "05"):
        files.put(root / "Actor_01" / f"03-01-{emotion}-01-02-01-01.flac")
    files.put(root / "Actor_02" / "03-01-05-01-02-01-02.wav")
    changes = add(home, root, "ravdess")
    videos, annotations = by_id(home), labels(home)
    given = {f.path[-24:-5]: annotations[v].clip for v, f in videos.items()}
    assert [sorted(BASIC[c.index(1.0)] for c in given.values() if c)] == [["Anger", "Anger", "Neutral", "Neutral"]]
    assert all(v.startswith(("Actor_01/03-01-01-02-01-01-", "Actor_02/03-01-01-02-01-02-")) for v in videos)
    assert {f.source for f in videos.values()} == {"Actor_01", "Actor_02"}
    assert {f.split for f in videos.values()} == {"train"}
    assert any("has no Disgust, Fear" in line for line in changes.messages)
    assert corpus(home).has_media


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Actor_01/03-01-09-01-02-01-01.wav", "unknown emotion 09"),
        ("Actor_01/angry.wav", "not of the form of RAVDESS"),
        ("Actor_02/03-01-05-01-02-01-01.wav", "different actors"),
    ],
)
def test_invalid_ravdess_names_are_refused(home, root, name, message):
    files.put(root / name)
    with pytest.raises(CerError, match=message):
        add(home, root, "ravdess")


VOTES = ("fileName", "modality", *"ADFHNS")


def test_votes_are_a_corpus_for_training_alone(home, tmp_path):
    rows = [("1001_IEO_NEU_XX", m, 1, 0, 0, 0, 4, 0) for m in ("voice", "face", "both")]
    path = files.write_csv(tmp_path / "votes.csv", VOTES, rows)
    changes = add(home, path, "votes")
    assert changes.messages == ("1 clips of 1 actors with votes for voice, face, both",)
    assert (corpus(home).shard_labels(), corpus(home).trains) == ([], "mhpf")
    files.write_csv(path, VOTES, [*rows, *[("1002_IEO_NEU_XX", *row[1:]) for row in rows]])
    assert add(home, path, "votes").messages[-1] == "its content has changed"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("1001_X", "voice", 1, 0, 0, 0, 0, 0), "votes on 1001_X by voice occur twice: row 5"),
        (("1002_X", "smell", 1, 0, 0, 0, 0, 0), "unknown modality 'smell': row 5"),
        (("1002_X", "voice", -1, 0, 0, 0, 0, 0), "no number: '-1' for Anger: row 5"),
        (("1002_X", "voice", 1, 0, 0, 0, 0, 0), "1002_X in"),
    ],
)
def test_invalid_votes_are_refused(home, tmp_path, row, message):
    rows = [("1001_X", m, 1, 0, 0, 0, 4, 0) for m in ("voice", "face", "both")]
    path = files.write_csv(tmp_path / "votes.csv", VOTES, [*rows, row])
    with pytest.raises(CerError, match=message):
        add(home, path, "votes")


def test_sentences_are_a_corpus_for_training_alone_and_copies_are_reported(home, root):
    files.put(root / "labels.txt", b"anger\njoy\n")
    files.put(root / "train.tsv", b"So glad\t1\ta\nHow dare you\t0\tb\n")
    files.put(root / "test.tsv", b"so  GLAD\t1\tc\nNo!\t0\td\n")
    messages = add(home, root, "utterances").messages
    assert messages == ("test: 2 sentences", "train: 2 sentences", "1 sentences of test are also in train")
    assert corpus(home).trains == "text_minilm"
    files.put(root / "train.tsv", b"So glad\t2\ta\n")
    with pytest.raises(CerError, match="unknown label id '2'"):
        add(home, root, "utterances")


def test_a_folder_of_other_files_is_no_corpus_of_sentences(home, root):
    files.put(root / "train.csv")
    with pytest.raises(CerError, match="neither GoEmotions nor MELD"):
        add(home, root, "utterances")


# --- all ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS)
def test_an_empty_or_missing_corpus_is_refused_in_one_line(home, root, layout):
    with pytest.raises(CerError) as caught:
        add(home, root, layout)
    one_line(caught)
    root.mkdir()
    with pytest.raises(CerError) as caught:
        add(home, root, layout)
    one_line(caught)
    assert not (home / "corpora").exists()


def test_an_option_that_a_format_does_not_take_is_refused(home, root):
    with pytest.raises(CerError, match=r"the format afew takes no --labels: x - it takes: --split, --captions"):
        add(home, files.afew(root), "afew", labels="x")


def test_refreshing_a_registration_keeps_its_options(home, root, tmp_path):
    rows = [["01", 0, 4, *GOOD]]
    add(home, cexpr(root), "cexpr", labels=files.spans(tmp_path / "labels.csv", rows), split="dev")
    files.put(root / "03.mp4")
    changes = registry.register(home, "c", root, "cexpr")
    assert (changes.added, changes.changed) == (("03",), ())
    assert corpus(home).has_labels


@pytest.mark.slow
def test_the_real_captions_register(home, shared_data):
    messages = add(home, shared_data / "captions" / "AFEW", "captions").messages
    videos = corpus(home).files
    assert len(messages) == 1
    assert messages[0].startswith(
        "2 videos are left out of their split, first 001703120@train (train): the source clip"
    )
    assert sum(len(f.windows) for f in videos if f.split == "train") == 853
    assert sum(len(f.windows) for f in videos if f.split == "dev") == 411
    assert [f.video_id for f in videos if f.excluded] == ["001703120@train", "005153760@train"]
    registry.register(home, "x", shared_data / "captions" / "C-EXPR-DB", "captions")
    test = registry.load(home, "x")
    assert (len(test.files), sum(len(f.windows) for f in test.files), test.has_labels) == (56, 449, False)


def test_training_members_are_the_labelled_videos_of_the_training_split(home, root, tmp_path):
    add(home, files.afew_captions(root, dev={"000002000___Fear_0000.avi": "Fear"}), "captions")
    learned = registry.training_members(home, [corpus(home)])
    assert {m.split for m in learned} == {"train"}
    assert sorted(m.video_id for m in learned) == [f"00000{i}000" for i in range(7) if i != 2]
    check_training(learned, lambda: registry.members(home))
    held = files.write_csv(
        tmp_path / "held/m_prompt1_test.csv", files.CAPTION_HEADER, [["9___0000.mp4", "A  dog.", *[""] * 8]]
    )
    registry.register(home, "held", held.parent, "captions")
    path = root / "m_prompt1_train.csv"
    path.write_text(path.read_text().replace("m_prompt1 sees a person, number 4 of 000004000.", "a dog."), "utf-8")
    add(home, root, "captions")
    with pytest.raises(CerError, match=r"1 training videos are held out elsewhere: 000004000 .*test of held \(9\)"):
        check_training(registry.training_members(home, [corpus(home)]), lambda: registry.members(home))


def test_a_training_on_leaks_that_were_kept_is_refused(home, root):
    add(home, files.afew_captions(root, dev={"000002000___Fear_0000.avi": "Fear"}), "captions", leaks="keep")
    with pytest.raises(CerError, match="000002000@train"):
        check_training(registry.training_members(home, [corpus(home)]), lambda: registry.members(home))
