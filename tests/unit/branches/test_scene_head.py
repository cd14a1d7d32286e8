"""The caption head equals a naive version, scores each text alone, and is nearly uniform for unknown texts."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cer_pipeline.branches.scene import caption_head as scene
from cer_pipeline.branches.scene.caption_head import Bag, SceneHead, encoder, grams, parts, sharpness, standard
from cer_pipeline.branches.scene.train import SceneSettings, choose_sharpness, fit, out_of_fold_scores, read_adapter
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, TRAINED_CLASSES
from cer_pipeline.zoo.head_file import load_head, save_head

SIZE = 6
WORDS = ["calm", "shout", "grimace", "tremble", "smile", "weep", "gasp"]  # one for each class


def embed(texts):
    """A stand-in for the encoder: six numbers that depend on the text alone."""
    return np.array([[math.sin(sum(map(ord, t)) * (k + 1) / 7) for k in range(SIZE)] for t in texts], np.float32)


def corpus(n=140, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.array([TRAINED_CLASSES[i % 7] for i in range(n)])
    shown = [WORDS[t] if rng.random() < 0.8 else WORDS[rng.integers(7)] for t in targets]
    views = [
        [f"The face in shot {i % 11} shows a {w}; light {rng.integers(9)}." for i, w in enumerate(shown)]
        for _ in range(3)
    ]
    return views, targets, [f"clip{i // 2}" for i in range(n)]


SETTINGS = SceneSettings(least=2, folds=4, seeds=(0,))


def head_of(texts, targets):
    return SceneHead(*fit(texts, embed(texts), targets, SETTINGS))


def test_grams_are_words_and_pairs_inside_a_sentence_and_negation_reaches_to_its_end():
    assert grams("Wide eyes. No sign of fear; a smile!") == [
        "wide", "eyes", "wide eyes", "no", "not_sign", "not_of", "not_fear",
        "no not_sign", "not_sign not_of", "not_of not_fear", "smile",
    ]  # fmt: skip
    assert "not_fear" not in grams("Notable fear is seen.")
    assert grams("") == grams("1 2 3 !") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["smile", "frown", "zebra", "no", "wide eyes.", "the"]), max_size=20))
def test_the_bag_is_sublinear_tf_idf_over_the_length_of_all_grams(words):
    text = " ".join(words)
    idf = {"smile": 1.5, "frown": 2.0, "smile frown": 2.5, "not_smile": 3.0}
    bag = Bag({g: i for i, g in enumerate(idf)}, np.array(list(idf.values())), 4.0)
    counts = Counter(grams(text))
    raw = {g: (1 + math.log(n)) * idf.get(g, 4.0) for g, n in counts.items()}
    length = math.sqrt(sum(v * v for v in raw.values()))
    columns, values = bag.vector(text)
    got = {list(idf)[c]: v for c, v in zip(columns, values, strict=True)}
    assert got == pytest.approx({g: v / length for g, v in raw.items() if g in idf})
    assert sum(v * v for v in got.values()) <= 1 + 1e-9


def test_the_dual_ridge_is_the_weighted_ridge_of_the_textbook():
    views, targets, _ = corpus(70)
    texts, chosen = views[0], SceneSettings(least=2, share=0.3, ridge=2.0)
    tensors, meta = fit(texts, embed(texts), targets, chosen)
    head = SceneHead(tensors, meta)
    features = np.zeros((70, len(tensors["idf"]) + SIZE))
    for i, text in enumerate(texts):
        columns, values = head.bag.vector(text)
        features[i, columns] = math.sqrt(0.7) * values
    features[:, -SIZE:] = math.sqrt(0.3) * standard(embed(texts).astype(float), head.mean, head.spread)
    counts = Counter(targets.tolist())
    d = np.diag([70 / 7 / counts[t] for t in targets])
    goal = np.array([[float(c == t) - 1 / 7 for c in TRAINED_CLASSES] for t in targets])
    w = np.linalg.solve(features.T @ d @ features + 2.0 * np.eye(features.shape[1]), features.T @ d @ goal)
    np.testing.assert_allclose(head.scores(texts, embed(texts)), features @ w, atol=2e-3)  # float16 weights


def test_probabilities_are_distributions_without_other_and_learn_the_words():
    views, targets, _ = corpus()
    head = head_of(views[0], targets)
    p = head.probabilities(views[1], embed)
    assert p.shape == (140, 8)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
    assert (p[:, BASIC.index("Other")] == 0).all()
    assert (p.argmax(1) == targets).mean() > 0.7


def test_a_text_has_the_same_bytes_alone_and_among_others():
    views, targets, _ = corpus()
    head = head_of(views[0], targets)
    together = head.probabilities(views[0], embed)
    alone = np.concatenate([head.probabilities([text], embed) for text in views[0]])
    assert together.tobytes() == alone.tobytes()
    assert head.probabilities(views[0][::-1], embed)[::-1].tobytes() == together.tobytes()


def test_a_head_gives_the_same_scores_after_it_was_written(tmp_path):
    views, targets, _ = corpus()
    tensors, meta = fit(views[0], embed(views[0]), targets, SETTINGS)
    save_head(tmp_path / "h.safetensors", tensors, meta)
    before, after = SceneHead(tensors, meta), SceneHead.load(tmp_path / "h.safetensors")
    assert before.probabilities(views[1], embed).tobytes() == after.probabilities(views[1], embed).tobytes()


def test_views_are_averaged_and_one_view_is_the_text_alone():
    views, targets, _ = corpus()
    tensors, meta = fit(views[0], embed(views[0]), targets, SETTINGS)
    head = SceneHead(tensors, meta | {"scale": 3.0, "repeat": 0.5})
    np.testing.assert_array_equal(head.fused([views[0]], embed), head.probabilities(views[0], embed))
    scores = [head.scores(v, embed(v)) for v in views[:2]]
    naive = softmax(3.0 * 2 / 1.5 * (scores[0] + scores[1]) / 2, axis=-1)
    np.testing.assert_allclose(head.fused(views[:2], embed)[:, list(TRAINED_CLASSES)], naive, atol=1e-12)


def test_a_view_without_a_text_is_left_out_and_a_segment_without_any_is_refused():
    views, targets, _ = corpus()
    head = head_of(views[0], targets)
    gap = [None, *views[1][1:]]
    both = head.fused([views[0], gap], embed)
    np.testing.assert_array_equal(both[0], head.probabilities(views[0][:1], embed)[0])
    np.testing.assert_array_equal(both[1:], head.fused([views[0], views[1]], embed)[1:])
    with pytest.raises(ValueError, match="row 0 has no text"):
        head.fused([gap, gap], embed)


@given(st.integers(1, 20), st.floats(0.1, 10), st.floats(0, 1))
def test_more_views_sharpen_but_never_more_than_their_number(count, scale, repeat):
    factor = sharpness(np.array([1, count]), scale, repeat)
    assert factor[0] == pytest.approx(scale)
    assert scale * (1 - 1e-9) <= factor[1] <= scale * count * (1 + 1e-9)


def test_an_unknown_text_moves_the_bag_by_nothing_and_empty_text_is_served():
    views, targets, _ = corpus()
    head = head_of(views[0], targets)
    assert (head.bag.vector("Zebras quietly cross the river.")[1] ** 2).sum() < 0.2
    assert (head.bag.vector(views[0][0])[1] ** 2).sum() > 0.8
    np.testing.assert_allclose(head.probabilities(["", "qqq"], embed).sum(1), 1)


def test_scores_out_of_fold_are_those_of_a_head_without_the_clip():
    views, targets, videos = corpus()
    states = [embed(v) for v in views]
    values = out_of_fold_scores(views, states, targets, videos, SETTINGS, 0)
    assert values.shape == (140, 3, 7)
    assert np.isfinite(values).all()
    in_sample = SceneHead(
        *fit([*views[0], *views[1], *views[2]], np.concatenate(states), np.tile(targets, 3), SETTINGS)
    )
    assert not np.allclose(values[:, 0], in_sample.scores(views[0], states[0]))
    holes = [[None if i in (0, 5) else t for i, t in enumerate(views[0])], views[1], views[2]]
    with_holes = out_of_fold_scores(holes, states, targets, videos, SETTINGS, 0)
    assert np.isnan(with_holes[[0, 5], 0]).all()
    assert np.isfinite(np.delete(with_holes[:, 0], [0, 5], 0)).all()


def test_sharpening_recovers_the_scale_and_gives_copies_no_weight():
    rng = np.random.default_rng(0)
    targets = np.array([TRAINED_CLASSES[i % 7] for i in range(700)])
    own = rng.normal(size=(700, 1, 7)) + 1.5 * np.eye(7)[targets][:, None]
    copies = np.repeat(own, 4, 1)
    scale, repeat = choose_sharpness([copies], targets)
    assert scale == pytest.approx(1.5, abs=0.25)  # two normals of deviation 1 and distance 1.5: log odds 1.5 x
    assert repeat > 0.95
    independent = rng.normal(size=(700, 4, 7)) + 1.5 * np.eye(7)[targets][:, None]
    assert choose_sharpness([independent], targets)[1] < 0.15


def test_a_class_without_rows_and_a_file_without_changes_are_refused(tmp_path):
    views, targets, _ = corpus()
    rows = [i for i, t in enumerate(targets) if BASIC[t] != "Fear"]
    with pytest.raises(CerError, match="0 rows of the class Fear"):
        head_of([views[0][i] for i in rows], targets[rows])
    save_head(tmp_path / "plain.safetensors", {"w": np.ones(3)}, {})
    with pytest.raises(CerError, match="holds no low-rank changes"):
        read_adapter(tmp_path / "plain.safetensors")


def test_the_head_itself_needs_neither_torch_nor_scikit_learn():
    code = (
        "import sys, numpy as np; from cer_pipeline.branches.scene.caption_head import SceneHead\n"
        "t = dict(grams=np.frombuffer(b'a', np.uint8), idf=np.ones(1), bag=np.ones((1, 7)), mean=np.zeros(2),"
        " spread=np.ones(2), state=np.ones((2, 7)))\n"
        "SceneHead(t, dict(unknown=1.0, scale=1.0, repeat=1.0)).probabilities(['x'], lambda x: np.ones((len(x), 2)))\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_shipped_head_is_small_whole_and_read():
    path = Path(scene.__file__).parent.parent.parent / "zoo" / "shipped" / "scene_minilm.safetensors"
    tensors, meta = load_head(path)
    assert path.stat().st_size < 2_000_000
    assert path.with_suffix(".md").is_file()
    assert meta["classes"] == [BASIC[c] for c in TRAINED_CLASSES]
    head = SceneHead(tensors, meta)
    assert head.bag_weights.shape == (len(head.bag.columns), 7)
    assert head.state_weights.shape == (384, 7)
    assert 0 <= meta["repeat"] <= 1
    assert head.prototypes is not None
    np.testing.assert_allclose(np.linalg.norm(head.prototypes, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_the_shipped_head_classifies_a_sentence_of_every_emotion(weights):
    path = Path(scene.__file__).parent.parent.parent / "zoo" / "shipped" / "scene_minilm.safetensors"
    tensors, meta = load_head(path)
    texts = [
        "The person looks angry, with furrowed brows, a clenched jaw and a hard stare.",
        "The person looks happy, with a broad smile and bright eyes.",
        "The person looks sad, with a downcast gaze, drooping mouth and tears.",
        "The person looks afraid, with wide eyes, raised brows and a tense mouth.",
        "Zebras cross the river.",
    ]
    p = scene.SceneHead(tensors, meta).probabilities(texts, scene.encoder(tensors, meta, weights.path("minilm")))
    assert [BASIC[i] for i in p[:4].argmax(1)] == ["Anger", "Happiness", "Sadness", "Fear"]
    assert p[4].max() < 0.4


def test_a_text_is_split_into_sentences_without_marks_of_lists():
    text = "**Face:**\n- The man frowns; his jaw is set.\n- He shouts!  Is he angry?"
    assert parts(text) == ["Face:", "The man frowns;", "his jaw is set.", "He shouts!", "Is he angry?"]
    assert parts("one clause") == ["one clause"]
    assert parts("") == [""] and parts(" - * ") == [" - * "]


@pytest.mark.slow
def test_the_state_of_a_text_is_the_mean_over_its_sentences_whatever_the_other_texts(weights):
    tensors, meta = load_head(weights.path("head_scene_minilm"))
    folder = weights.path("minilm")
    whole, split = (encoder(tensors, meta | {"sentences": on}, folder, threads=2) for on in (False, True))
    texts = ["The man frowns. His jaw is set; he shouts.", "She smiles.", "He weeps. " * 4]
    got = split(texts)
    for text, state in zip(texts, got, strict=True):
        np.testing.assert_allclose(state, whole(parts(text)).mean(0), atol=1e-5)
        assert split([text])[0].tobytes() == state.tobytes()
    assert got[1].tobytes() == whole([texts[1]])[0].tobytes()
    assert np.abs(got[0] - whole([texts[0]])[0]).max() > 1e-3
