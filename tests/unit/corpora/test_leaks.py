"""Clips and copies in two splits are found, belong to the more held-out one, and leave training."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.corpora.leaks import (
    EXCLUDE,
    KEEP,
    REFUSE,
    Member,
    check_name,
    check_training,
    class_word,
    find,
    separate,
    unique_ids,
)
from cer_pipeline.corpora.scan import ScannedVideo
from cer_pipeline.errors import CerError


def member(
    video: str, split: str | None, source: str = "", contents: tuple[str, ...] = (), corpus: str = "c"
) -> Member:
    return Member(corpus, video, split, source or video, contents)


@pytest.mark.parametrize("name", ["Angry/001", "x_HAPPY-2", "clip sad", "surprised.1", "a/neutral"])
def test_a_class_word_in_a_name_is_found(name):
    assert class_word(name)
    with pytest.raises(CerError, match=r"contains the class word.*rename"):
        check_name(name)


@pytest.mark.parametrize("name", ["sadler", "angerona", "10-60-1280x720_right", "000149120", "undisgusted", "fearless"])
def test_a_class_word_inside_another_word_is_ignored(name):
    assert class_word(name) is None
    check_name(name)


def test_a_shared_source_clip_and_an_exact_copy_belong_to_the_more_held_out_split():
    members = [
        member("a", "train", "s1"),
        member("b", "dev", "s1"),
        member("c", "test", "s1"),
        member("d", "train", contents=("x", "y")),
        member("e", "dev", contents=("y",)),
        member("f", "train", contents=("z",)),
        member("g", None, contents=("y",)),
    ]
    assert [leak.member.video_id for leak in find(members)] == ["a", "b", "d"]
    excluded, messages = separate(members, EXCLUDE)
    assert excluded["a"] == "left out of train: the source clip also stands in test"
    assert excluded["b"] == "left out of dev: the source clip also stands in test"
    assert excluded["d"] == "left out of train: an exact copy of it stands in dev"
    assert messages == [
        "3 videos are left out of their split, first a (train): the source clip also stands in test (c)"
    ]


def test_leaks_are_refused_or_kept_as_the_mode_says():
    members = [member("a", "train", "s"), member("b", "dev", "s")]
    with pytest.raises(CerError, match=r"1 videos are also in a split that is held out: a \(train\)") as caught:
        separate(members, REFUSE)
    assert "\n" not in caught.value.line()
    excluded, messages = separate(members, KEEP)
    assert (excluded, len(messages)) == ({}, 1)
    with pytest.raises(CerError, match="exclude, refuse, keep"):
        separate(members, "ignore")


MEMBERS = st.lists(
    st.builds(
        lambda i, split, source, contents: member(f"v{i}", split, source, tuple(contents)),
        st.integers(0, 10**6),
        st.sampled_from(["train", "dev", "test", None]),
        st.sampled_from(["", "s1", "s2"]),
        st.lists(st.sampled_from("xyz"), max_size=2),
    ),
    max_size=12,
    unique_by=lambda m: m.video_id,
)


@settings(deadline=None)
@given(MEMBERS)
def test_no_leak_remains_after_exclusion_in_any_order(members):
    excluded, _ = separate(members, EXCLUDE)
    rest = [m for m in members if m.video_id not in excluded]
    assert find(rest) == []
    assert separate(members[::-1], EXCLUDE)[0] == excluded
    for m in rest:
        if m.split != "train":
            continue
        held = [o for o in rest if o.split in ("dev", "test")]
        assert all(m.source != o.source and not set(m.contents) & set(o.contents) for o in held)


def test_sources_are_compared_in_one_corpus_and_contents_across_corpora():
    here, there = member("01", "train", contents=("x",)), member("01", "test", corpus="d")
    assert find([here, there]) == []
    copy = member("99", "test", contents=("x",), corpus="d")
    assert [leak.line() for leak in find([here, copy])] == ["01 (train): an exact copy of it stands in test of d (99)"]


def test_one_clip_in_two_splits_gets_two_ids_and_keeps_its_source():
    files = [
        ScannedVideo("a.avi", "a", "train"),
        ScannedVideo("b.avi", "a", "dev"),
        ScannedVideo("c.avi", "c", "train"),
    ]
    renamed = unique_ids(files)
    assert [(f.video_id, f.source) for f in renamed] == [("a@train", "a"), ("a@dev", "a"), ("c", "c")]
    with pytest.raises(CerError, match=r"two files of one split are the video a: a\.avi and b\.avi"):
        unique_ids([ScannedVideo("a.avi", "a", "train"), ScannedVideo("b.avi", "a", "train")])


def test_a_training_on_held_out_rows_is_refused():
    train, test = member("a", "train", contents=("x",)), member("b", "test")
    check_training([train], lambda: [train, test])
    with pytest.raises(CerError, match="a row of the split test is in training: b of c"):
        check_training([train, test], lambda: [train, test])
    with pytest.raises(CerError, match="a row of the split none is in training"):
        check_training([member("x", None)], list)
    copy = member("z", "dev", contents=("x",), corpus="d")
    with pytest.raises(CerError, match=r"1 training videos are held out elsewhere.*dev of d"):
        check_training([train], lambda: [train, test, copy])
