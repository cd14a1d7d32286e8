"""CSV files of spreadsheets and statistics programs give the same rows; errors name the place."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.annotations import read_labels
from cer_pipeline.corpora.csv_rows import delimiter_of, read_cells, read_rows
from cer_pipeline.corpora.formats.affwild2 import read_frames
from cer_pipeline.corpora.formats.caption_files import read_split
from cer_pipeline.corpora.formats.utterances import Utterance, read_meld
from cer_pipeline.corpora.formats.votes import read_votes
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, COMPOUND
from tests.helpers import corpus_files as files

pytestmark = pytest.mark.usefixtures("lengths_once")

COLUMNS = ("video", "begin", "note")
ROWS = [("a;b", "0.5", 'says "no", twice'), ("c\td", "1.25", "")]


def written(delimiter: str, quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([COLUMNS, *ROWS])
    return out.getvalue()


def rows(path: Path) -> list[dict[str, str]]:
    return [row for _, row in read_rows(path, COLUMNS, numbers=("begin",))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_delimiters_and_quotes_give_the_same_rows(tmp_path, delimiter, quoting, end, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes(written(delimiter, quoting, end).encode(encoding))
    assert [tuple(row.values()) for row in rows(path)] == ROWS


def test_a_first_line_that_names_the_delimiter_sets_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\r\n" + written(";", end="\r\n"), "utf-8", newline="")
    assert [where for where, _ in read_rows(path, COLUMNS)] == [f"row {n} of {path}" for n in (3, 4)]


@given(st.lists(st.text("abc,;\t xyz", min_size=1, max_size=8), min_size=2, max_size=6), st.sampled_from(",;\t"))
def test_the_delimiter_of_a_quoted_header_is_never_one_inside_quotes(names, delimiter):
    assert delimiter_of(delimiter.join(f'"{name}"' for name in names)) == delimiter


def test_a_decimal_comma_is_read_in_columns_of_numbers_unless_commas_separate_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("video;begin;note\n1,5;1,5;1,5\n", "utf-8")
    assert rows(path) == [{"video": "1,5", "begin": "1.5", "note": "1,5"}]
    path.write_text('video,begin,note\n"1,5","1,5",x\n', "utf-8")
    assert rows(path) == [{"video": "1,5", "begin": "1,5", "note": "x"}], "it may separate thousands"


def test_unnamed_row_numbers_and_blank_rows_and_columns_are_ignored(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"","video","begin","note",\n"1","a","0","x",\n,,,,\n\n"2","b","1","y",\n', "utf-8")
    assert [row["video"] for row in rows(path)] == ["a", "b"]
    path.write_text("video,begin,note,\na,0,x,lost\n", "utf-8")
    with pytest.raises(CerError, match="a value in a column without a name: row 2"):
        rows(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"video;begin\na;0\n", r"no column note \(read as UTF-8, separated by semicolons\)"),
        (b"video|begin|note\na|0|x\n", r"no column video, begin, note \(read as UTF-8, separated by commas\)"),
        (b"video\tbegin\tnote\na\t0\n", r"2 values for 3 columns: row 2 .* - the file was .* separated by tabs"),
        (b"video,begin,note\nJos\xe9,0,x\n", r"not UTF-8 at line 2 \(byte 0xe9: perhaps Latin-1 or Windows-1252\)"),
        ("video,begin,note\n".encode("utf-16-le"), r"not UTF-8 at line 1 \(a zero byte: perhaps UTF-16 without"),
        (b"\xff\xfev\0i\0d", r"not UTF-16 at line 1"),
        (b'video;begin;note\n"a" b;0;x\n', r"not a CSV file \(.*separated by semicolons\): .*line 2"),
        (b"", r"no column video, begin, note"),
    ],
)
def test_errors_name_the_place_and_how_the_file_was_read(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(CerError, match=message) as caught:
        rows(path)
    assert "\n" not in caught.value.line()
    assert str(path) in caught.value.line()


def rewritten(path: Path, delimiter: str) -> Path:
    """The same table with every cell in quotes, another delimiter, a byte order mark and line ends of Windows."""
    sheet = read_cells(path)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([sheet.header, *(cells for _, cells in sheet.rows)])
    path.write_bytes(out.getvalue().encode("utf-8-sig"))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_every_reader_accepts_every_csv_form(tmp_path, delimiter):
    names = ("video", "begin", "end", *COMPOUND)
    video = files.put(tmp_path / "v/01.mp4")
    spans = rewritten(
        files.spans(tmp_path / "spans.csv", [["01", 0, 1.5, *files.marks("Sadly Angry")]], names), delimiter
    )
    split = rewritten(files.write_csv(tmp_path / "split.csv", ("video", "split"), [("01", "test")]), delimiter)
    registry.register(tmp_path, "c", video.parent, "cexpr", {"labels": str(spans), "split": str(split)})
    corpus = registry.load(tmp_path, "c")
    (span,) = read_labels(corpus.annotations, "s000")["01"].spans
    assert (span.begin_s, span.end_s, corpus.files[0].split) == (0.0, 1.5, "test")
    captions = files.captions(tmp_path / "texts", "dev", {"000149120___Happy_0000.avi": "Happiness"})
    rewritten(captions / "m_prompt1_dev.csv", delimiter)
    assert read_split(captions, "dev", labelled=True).targets.tolist() == [BASIC.index("Happiness")]
    votes = [("1001_X", m, 1, 0, 0, 0, 3, 0) for m in ("voice", "face", "both")]
    path = rewritten(files.write_csv(tmp_path / "votes.csv", ("fileName", "modality", *"ADFHNS"), votes), delimiter)
    assert read_votes(path).targets.tolist() == [[0.25, 0, 0, 0, 0.75, 0]]
    meld = ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID")
    rewritten(files.write_csv(tmp_path / "meld/train_sent_emo.csv", meld, [("Hi, you", "joy", 1, 2)]), delimiter)
    assert read_meld(tmp_path / "meld", "train") == [Utterance("dia1_utt2", "Hi, you", (BASIC.index("Happiness"),))]
    assert read_frames(rewritten(files.annotation(tmp_path / "1.txt", [0, -1, 7]), delimiter)) == (0, -1, 7)


def test_the_error_for_an_unknown_class_names_the_delimiter(tmp_path):
    video = files.put(tmp_path / "v/01.mp4")
    spans = files.spans(tmp_path / "spans.csv", [["01", 0, 1, 1]], ("video", "begin", "end", "Bored"))
    with pytest.raises(CerError, match=r"unknown class or column 'Bored' \(read as UTF-8, separated by commas\)"):
        registry.register(tmp_path, "c", video.parent, "cexpr", {"labels": str(spans)})
