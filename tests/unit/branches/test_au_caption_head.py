"""The action-unit caption head: its texts describe facial actions in the phrases of captions and name no emotion."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.branches.scene.au_head import KIND, AUHead
from cer_pipeline.branches.scene.au_phrases import CAPTION_PHRASES, NO_ACTION, caption_phrases
from cer_pipeline.branches.scene.train_au import action_clauses, fit
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.perception.captions.rule_based.text import ACTIONS
from cer_pipeline.zoo.head_file import save_head


def test_a_rule_based_text_loses_the_setting_and_keeps_every_action():
    text = (
        "One person is visible in a close-up. The teeth show, the lip corners are pulled up and back, and the cheeks "
        "are raised. Over the window the brows rise. A voice speaks part of the time; it is slow, with pauses. The "
        "picture is dark and reddish."
    )
    assert caption_phrases(text) == (
        "The teeth are visible, there is a broad smile, and the cheeks are lifted. Over the window the eyebrows rise. "
        "A voice speaks part of the time; it is slow, with pauses."
    )


def test_a_text_without_an_action_becomes_a_relaxed_face():
    assert caption_phrases("One person is visible. The picture is of medium brightness.") == NO_ACTION
    assert caption_phrases("") == NO_ACTION


@pytest.mark.parametrize("action", [*ACTIONS])
def test_every_action_is_described_in_the_phrases_of_captions(action):
    """No phrase is left that captions do not use."""
    for phrase in (ACTIONS[action].state.format(""), ACTIONS[action].state.format("slightly "), ACTIONS[action].onset):
        plain = caption_phrases(f"{phrase[0].upper()}{phrase[1:]}.")
        assert plain != NO_ACTION
        assert not re.search(r"\bbrows\b|lip corners?\b|opened wide", plain), plain


def test_longer_phrases_are_replaced_before_those_that_they_contain():
    phrases = list(CAPTION_PHRASES)
    for i, phrase in enumerate(phrases):
        assert not any(re.search(rf"\b{re.escape(earlier)}\b", phrase) for earlier in phrases[:i]), phrase


def test_clauses_that_name_an_emotion_are_left_out_of_captions():
    caption = (
        "The man appears angry, with furrowed brows and a clenched jaw, suggesting intense frustration. His tone is "
        "calm. The lighting is dim. He wears a blue coat, and his lips are pressed together."
    )
    assert action_clauses(caption) == "With furrowed brows. A clenched jaw. His lips are pressed together."
    assert action_clauses("She feels happy. The room is bright.") == ""


WORDS = ["angry", "a happy smile", "his mouth is open", "her eyes look sad", "the sky", "lips pressed", "in shock"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_no_word_for_an_emotion_is_left_whatever_the_order(parts):
    left = action_clauses(", ".join(parts) + ".")
    assert not re.search("angry|happy|sad|shock|sky", left)
    assert ("His mouth is open" in left) == ("his mouth is open" in parts)


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.choice(TRAINED_CLASSES, n)
    return rng.normal(size=(n, 384)) + np.eye(384)[targets] * 8, targets


def test_the_head_learns_and_equals_a_naive_softmax():
    vectors, targets = rows(300)
    head = AUHead(fit(vectors, targets, np.ones(300), 0.1), {"kind": KIND})
    p = head.probabilities(vectors)
    assert p.shape == (300, len(BASIC))
    assert (p.argmax(1) == targets).mean() > 0.9
    assert np.allclose(p.sum(1), 1) and (p[:, BASIC.index("Other")] == 0).all()
    x = (vectors[3] - head.mean) / head.spread
    raw = [
        np.exp(sum(a * b for a, b in zip(x, w, strict=True)) + c) for w, c in zip(head.weight, head.bias, strict=True)
    ]
    assert p[3, list(TRAINED_CLASSES)] == pytest.approx(np.array(raw) / sum(raw), abs=1e-9)
    assert (head.probabilities(vectors[3]) == p[3]).all()  # the same bits, alone or among others


def test_classes_have_the_same_weight_whatever_their_frequency():
    """From vectors of noise, every class is as likely as the others, also one with three rows of hundreds."""
    rng = np.random.default_rng(0)
    targets = np.concatenate([rng.choice([c for c in TRAINED_CLASSES if c != 2], 400), [2] * 3])
    vectors = rng.normal(size=(len(targets), 384))
    head = AUHead(fit(vectors, targets, np.ones(len(targets)), 1e-6), {"kind": KIND})
    assert head.probabilities(rng.normal(size=(50, 384))).mean(0)[list(TRAINED_CLASSES)] == pytest.approx(
        1 / 7, abs=0.01
    )


def test_another_kind_of_head_is_refused(tmp_path):
    save_head(tmp_path / "h.safetensors", {"mean": np.zeros(2)}, {"kind": "mhpf"})
    with pytest.raises(CerError, match="not an action-unit caption head"):
        AUHead.load(tmp_path / "h.safetensors")
