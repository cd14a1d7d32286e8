"""Labels of windows and frames: the sentinel enters no mean, time stamps decide, gaps have no label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.corpora.annotations import NOT_ANNOTATED, Annotation, Caption, Span, VideoAnnotations
from cer_pipeline.corpora.labels.stages import frame_shares, shares, span_frame_shares, span_shares, spans_at
from cer_pipeline.labels import BASIC, COMPOUND


def compound(*names: str) -> tuple[float, ...]:
    return tuple(float(name in names) / len(names) for name in COMPOUND)


def naive(values: list[int], times: list[float], start: float, end: float) -> tuple[list[float] | None, float]:
    """Counts with plain loops."""
    valid, frames = [0] * len(BASIC), 0
    for i, time in enumerate(times):
        if start <= time < end:
            frames += 1
            if i < len(values) and values[i] != -1:
                valid[values[i]] += 1
    if not sum(valid):
        return None, 0.0
    return [n / sum(valid) for n in valid], sum(valid) / frames


@settings(deadline=None)
@given(
    st.lists(st.integers(-1, 7), max_size=40),
    st.lists(st.floats(0.001, 0.5), max_size=40),
    st.integers(0, 3),
)
def test_the_label_of_a_window_is_the_mean_over_its_annotated_frames(values, steps, index):
    times = np.cumsum([0.0, *steps])
    label, share = frame_shares(values, times, 2.0 * index, 2.0 * index + 4)
    expected, expected_share = naive(values, times.tolist(), 2.0 * index, 2.0 * index + 4)
    assert share == pytest.approx(expected_share)
    if expected is None:
        assert label is None
    else:
        assert label is not None
        np.testing.assert_allclose(label, expected, rtol=0, atol=1e-12)


def test_a_sentinel_enters_no_mean():
    values = [4] * 19 + [3] * 60 + [NOT_ANNOTATED] * 41
    label, share = frame_shares(values, np.arange(120) / 30, 0, 4)
    assert label is not None
    assert label[BASIC.index("Happiness")] == pytest.approx(19 / 79)
    assert label.sum() == pytest.approx(1)
    assert share == pytest.approx(79 / 120)


def test_frames_belong_to_a_window_by_their_time_stamps():
    uneven = np.array([0.0, 0.1, 0.2, 3.9, 4.0, 4.1])
    label, share = frame_shares([0, 0, 0, 1, 2, 2], uneven, 0, 4)
    assert label is not None
    np.testing.assert_array_equal(label[:3], [0.75, 0.25, 0])
    assert share == 1


def test_annotations_without_a_frame_are_ignored_and_frames_without_one_are_not_annotated():
    label, share = frame_shares([1, 1, 5, 5, 5], np.array([0.0, 1.0]), 0, 4)
    assert label is not None
    assert label[BASIC.index("Anger")] == 1
    _, share = frame_shares([1], np.array([0.0, 1.0, 2.0, 3.0]), 0, 4)
    assert share == 0.25


def test_a_window_without_annotated_frames_has_no_label():
    assert frame_shares([NOT_ANNOTATED] * 10, np.arange(10) / 5, 0, 4) == (None, 0.0)
    assert frame_shares([1] * 10, np.arange(10) / 5, 8, 12) == (None, 0.0)


SPANS = (Span(0, 3, compound=compound("Sadly Angry")), Span(2, 6, compound=compound("Sadly Fearful", "Sadly Angry")))


def test_overlapping_time_spans_share_their_time():
    _, label = spans_at(SPANS, 2.5)
    assert label is not None
    np.testing.assert_allclose(label[-2:], [0.25, 0.75])
    assert spans_at(SPANS, 6.0) == (None, None), "the end of a span is exclusive"


def test_a_window_is_cut_where_time_spans_begin_and_end():
    _, label, share = span_shares(SPANS, 0, 4)
    assert label is not None
    fearful, angry = (1 * 0.25 + 1 * 0.5) / 4, (2 * 1 + 1 * 0.75 + 1 * 0.5) / 4
    np.testing.assert_allclose(label[-2:], [fearful, angry])
    assert share == 1
    _, _, share = span_shares(SPANS, 4, 8)
    assert share == 0.5
    assert span_shares(SPANS, 8, 12) == (None, None, 0.0)


def test_the_mean_over_many_frames_is_the_mean_over_time():
    times = np.arange(0, 8, 1 / 500)
    for start in (0.0, 2.0, 4.0):
        _, exact, covered = span_shares(SPANS, start, start + 4)
        _, label, share = span_frame_shares(SPANS, times, start, start + 4)
        assert exact is not None
        assert label is not None
        np.testing.assert_allclose(label, exact, atol=2e-3)
        assert share == pytest.approx(covered, abs=2e-3)


def test_the_label_of_a_clip_holds_in_every_window_and_that_of_a_window_in_it_alone():
    segment = {"segment": 3, "start_s": 6.0, "end_s": 10.0}
    clip = Annotation(clip=tuple(float(name == "Fear") for name in BASIC))
    basic, compounds, share = shares(clip, segment, np.empty(0))
    assert basic is not None
    assert (BASIC[int(basic.argmax())], compounds, share) == ("Fear", None, 1.0)
    window = Annotation(windows={3: (0.5, 0.5, 0, 0, 0, 0, 0, 0)})
    basic, _, _ = shares(window, segment, np.empty(0))
    assert basic is not None
    assert basic.tolist()[:2] == [0.5, 0.5]
    assert shares(window, segment | {"segment": 4}, np.empty(0)) == (None, None, 0.0)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotation(clip=(0.0, 1.0, 0, 0, 0, 0, 0, 0)),
        Annotation(windows={0: (1.0, 0, 0, 0, 0, 0, 0, 0), 12: (0.25, 0.75, 0, 0, 0, 0, 0, 0)}),
        Annotation(frames=(0, -1, 7)),
        Annotation(spans=SPANS),
    ],
)
def test_an_annotation_is_restored_from_its_json(annotation):
    assert Annotation.from_json(annotation.to_json()) == annotation
    assert Annotation.from_json(annotation.to_json()).classes == annotation.classes


def test_the_digest_of_a_text_ignores_case_and_blanks():
    annotations = VideoAnnotations(
        None, (Caption(0, "m_1", "A  Smile."), Caption(1, "m_1", "a smile."), Caption(2, "m_1", None))
    )
    assert len(annotations.text_digests) == 1
