"""Annotations that do not fit the length of their video are reported, and dropped where the difference is large."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.annotation_fit import Length, compare_frames, compare_spans, compare_windows
from cer_pipeline.corpora.annotations import Annotation, Caption, Span, VideoAnnotations, read_captions, read_labels
from cer_pipeline.corpora.corpus import File
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC
from tests.helpers import corpus_files as files
from tests.helpers.clips import make_clip

FRAMES, FPS = 150, 25  # 6 s: two windows
MARKS = files.marks("Sadly Angry")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    path = make_clip(tmp_path_factory.mktemp("clip") / "a.mkv", [i / FPS for i in range(FRAMES)], size=(32, 32))
    return path.read_bytes()


@pytest.fixture
def root(tmp_path: Path, clip: bytes) -> Path:
    for name in ("a", "b"):
        files.put(tmp_path / "videos" / f"{name}.mkv", clip + name.encode())
    return tmp_path / "videos"


def add(tmp_path: Path, root: Path, layout: str, **options: object) -> registry.Changes:
    return registry.register(tmp_path / "home", "c", root, layout, {k: str(v) for k, v in options.items()})


def registered(tmp_path: Path) -> dict[str, File]:
    return {file.video_id: file for file in registry.load(tmp_path / "home", "c").files}


def annotated(tmp_path: Path, **counts: int) -> Path:
    folder = tmp_path / "notes"
    for name, count in counts.items():
        files.annotation(folder / "Train_Set" / f"{name}.txt", [4] * count)
    return folder


@pytest.mark.usefixtures("lengths_once")
@pytest.mark.parametrize("difference", [-5, -1, 1, 5])
def test_a_difference_of_a_few_frames_is_reported_with_both_numbers_and_the_annotation_kept(tmp_path, root, difference):
    annotations = annotated(tmp_path, a=FRAMES + difference, b=FRAMES)
    changes = add(tmp_path, root, "affwild2", labels=annotations)
    lines = [line for line in changes.messages if "frames" in line]
    numbers = f"{FRAMES + difference} annotated frames, {FRAMES} frames in the file"
    assert lines == [f"a: {numbers}; annotations beyond the end are ignored"]
    assert all(file.labels and not file.excluded for file in registered(tmp_path).values())


@pytest.mark.usefixtures("lengths_once")
@pytest.mark.parametrize("difference", [-FRAMES // 2, -6, 6, FRAMES])
def test_an_annotation_with_another_number_of_frames_is_dropped_and_reported(tmp_path, root, difference):
    changes = add(tmp_path, root, "affwild2", labels=annotated(tmp_path, a=FRAMES + difference, b=FRAMES))
    numbers = f"{FRAMES + difference} annotated frames, {FRAMES} frames in the file"
    assert f"a: {numbers}; left out: it does not fit this video" in changes.messages
    file = registered(tmp_path)["a"]
    assert (file.labels, file.split) == ("", "train")
    assert file.excluded == f"the annotation does not fit the video: {numbers}"
    assert set(read_labels(registry.load(tmp_path / "home", "c").annotations, "s000")) == {"b"}


@pytest.mark.usefixtures("lengths_once")
def test_a_corpus_in_which_no_annotation_fits_is_refused(tmp_path, root):
    with pytest.raises(CerError, match=r"no annotation fits its video \(2 compared\): a: 300 annotated frames, 150"):
        add(tmp_path, root, "affwild2", labels=annotated(tmp_path, a=2 * FRAMES, b=2 * FRAMES))
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("lengths_once")
@pytest.mark.parametrize(
    ("end", "reported", "fits"),
    [
        (6.0, False, True),
        (6.2, False, True),
        (6.5, True, True),
        (7.0, True, True),
        (7.1, True, False),
        (6000, True, False),
    ],
)
def test_a_time_span_beyond_the_end_is_reported_and_dropped_above_one_second(tmp_path, root, end, reported, fits):
    table = files.spans(tmp_path / "l.csv", [["a", 0, end, *MARKS], ["b", 0, 6, *MARKS]])
    changes = add(tmp_path, root, "cexpr", labels=table)
    lines = [line for line in changes.messages if line.startswith("a: ")]
    assert bool(lines) is reported
    assert all(f"annotated up to {end:g} s, the video ends at 6.000 s" in line for line in lines)
    assert bool(registered(tmp_path)["a"].labels) is fits
    assert registered(tmp_path)["b"].labels


@pytest.mark.usefixtures("lengths_once")
@pytest.mark.parametrize(("last", "reported", "fits"), [(1, False, True), (2, True, True), (3, True, False)])
def test_windows_beyond_the_last_one_are_reported_and_dropped_where_there_are_several(
    tmp_path, root, last, reported, fits
):
    clips = {f"{name}___{i:04d}.avi": "Fear" for name, n in (("a", last + 1), ("b", 2)) for i in range(n)}
    changes = add(tmp_path, root, "folder", captions=files.captions(tmp_path / "texts", "dev", clips))
    lines = [line for line in changes.messages if line.startswith("a: ")]
    assert bool(lines) is reported
    assert all(f"captioned up to window {last}, the video has 2 windows (0 to 1)" in line for line in lines)
    annotations = registry.load(tmp_path / "home", "c").annotations
    assert ("a" in read_captions(annotations, "s000"), "a" in read_labels(annotations, "s000")) == (fits, fits)
    assert "b" in read_captions(annotations, "s000")


def test_a_video_without_media_ends_with_its_last_window(tmp_path):
    texts = files.captions(tmp_path / "texts", "test", {f"{v}___{i:04d}.mp4": None for v in "ab" for i in (0, 1)})
    table = files.spans(tmp_path / "l.csv", [["a", 0, 60, *MARKS], ["b", 0, 6, *MARKS]])
    reported = add(tmp_path, texts, "captions", labels=table).messages
    assert reported[0].startswith("a: annotated up to 60 s, the video ends at 6.000 s; left out")


def test_every_content_is_opened_once_and_not_again(tmp_path, root, monkeypatch):
    files.annotation(tmp_path / "notes/Train_Set/a_left.txt", [1] * FRAMES)
    annotations = annotated(tmp_path, a=FRAMES, b=FRAMES)
    calls: list[tuple[int, int]] = []
    options = {"labels": str(annotations)}
    home = tmp_path / "home"
    registry.register(home, "c", root, "affwild2", options, probing=lambda done, total, _: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    registry.register(home, "c", root, "affwild2", options, probing=lambda *_: pytest.fail("opened again"))
    assert {(f.frames, f.duration_s) for f in registered(tmp_path).values()} == {(FRAMES, 6.0)}


def test_a_file_that_cannot_be_opened_is_not_compared(tmp_path, root):
    files.put(root / "a.mkv", b"no video")
    changes = add(tmp_path, root, "affwild2", labels=annotated(tmp_path, a=7, b=FRAMES))
    assert not [line for line in changes.messages if line.startswith("a: ")]
    assert registered(tmp_path)["a"].labels, "its row of `videos` says why it has no windows"


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.1, 60))
def test_frames_fit_up_to_the_allowed_difference_in_time_and_every_difference_is_reported(annotated, frames, seconds):
    comparison = compare_frames(annotated, Length(frames, seconds))
    assert bool(comparison.message) is (annotated != frames)
    difference_s = abs(annotated - frames) * seconds / frames if frames else float(annotated != frames)
    assert comparison.fits is (difference_s <= 0.2 + 1e-12 if abs(difference_s - 0.2) > 1e-9 else comparison.fits)


def test_unknown_lengths_are_not_compared():
    spans = Annotation(spans=(Span(0, 9, basic=tuple(float(i == 0) for i in range(len(BASIC)))),))
    assert compare_frames(3, Length(None, 5.0)).message == ""
    assert compare_spans(spans, Length(None, None)).message == ""
    assert compare_windows(VideoAnnotations(None, (Caption(9, "m_1", "x"),)), Length(None, None)).message == ""
