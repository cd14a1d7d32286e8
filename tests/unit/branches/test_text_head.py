"""The text head: low-rank changes, what is chosen on dev, resuming. With a tiny random encoder."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from cer_pipeline import tables
from cer_pipeline.branches.sentences.minilm import load_network
from cer_pipeline.branches.text import branch as text
from cer_pipeline.branches.text import train as training
from cer_pipeline.branches.text.head import AdaptedEncoder, TextHead, mean_pool, pad
from cer_pipeline.corpora.corpus import Corpus
from cer_pipeline.corpora.formats.utterances import Utterance
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, TRAINED_CLASSES
from cer_pipeline.profiles import load_profile
from cer_pipeline.stage import StageContext
from cer_pipeline.store.home import Home
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import save_head
from tests.helpers.memory_inputs import MemoryInputs, segment
from tests.helpers.memory_inputs import rows as rows_of

TEXTS = ["i am so happy today", "leave me alone", "what", "he died and i cry", "so what today", "happy"]
SETTINGS = training.TextSettings(rank=2, alpha=4.0, layers=1, batch=4, epochs=2, rate=0.05)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like MiniLM's, with 2 random layers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers.models.bert import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(" ".join(TEXTS).split()))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=384, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def rows(n: int = 12) -> list[Utterance]:
    """Sentences with one label, and one with two."""
    made = [Utterance(str(i), TEXTS[i % len(TEXTS)], (TRAINED_CLASSES[i % len(TEXTS)],)) for i in range(n)]
    return [*made, Utterance("two", TEXTS[0], (TRAINED_CLASSES[0], TRAINED_CLASSES[1]))]


def meta() -> dict:
    """Metadata of the file of a head."""
    return {**asdict(SETTINGS), "temperature": 1.0}


def test_untrained_changes_leave_the_encoder_as_it_is(encoder: Path) -> None:
    head = TextHead(training.pack(AdaptedEncoder(encoder, 2, 4.0, 1, 0.0)), meta(), encoder)
    plain = load_network(encoder)
    tokens, mask = pad([head.tokenizer.encode(TEXTS[0]).ids])
    with torch.inference_mode():
        expected = mean_pool(plain(input_ids=tokens, attention_mask=mask).last_hidden_state, mask)[0].numpy()
    assert head.features(TEXTS[0]) == pytest.approx(expected, abs=1e-6)


def test_the_merged_head_equals_the_network_in_training(encoder: Path) -> None:
    torch.manual_seed(0)
    model = AdaptedEncoder(encoder, 2, 4.0, 1, 0.0)
    for name, value in model.trained().items():
        torch.nn.init.normal_(value, std=0.3)
        value.data = value.data.half().float()  # what float16 can hold
        assert name
    head = TextHead(training.pack(model), meta(), encoder)
    tokens, mask = pad([head.tokenizer.encode(text).ids for text in TEXTS])
    with torch.inference_mode():
        expected = model.upper(model.lower(tokens, mask), mask).double().softmax(-1).numpy()
    p = head.probabilities(head.batch(TEXTS))
    assert p[:, list(TRAINED_CLASSES)] == pytest.approx(expected, abs=1e-5)
    assert (p[:, BASIC.index("Other")] == 0).all()
    assert p.sum(-1) == pytest.approx(1, abs=1e-12)


def test_a_text_alone_and_in_a_batch_give_the_same(encoder: Path) -> None:
    head = TextHead(training.pack(AdaptedEncoder(encoder, 2, 4.0, 1, 0.0)), meta(), encoder)
    together = head.batch(TEXTS)
    for sentence, row in zip(TEXTS, together, strict=True):
        assert head.features(sentence) == pytest.approx(row, abs=1e-5)
        assert np.array_equal(head.features(sentence), head.features(sentence))


def test_training_fits_the_labels_and_changes_upper_layers_only(encoder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    settings = replace(SETTINGS, epochs=30, rate=5e-3)
    model = training.fit(rows(), encoder, tmp_path / "s", settings, lambda what, done, total: messages.append(what))
    head = TextHead(training.pack(model), meta(), encoder)
    values = head.logits(head.batch(TEXTS))
    assert values.argmax(-1).tolist() == [0, 1, 2, 3, 4, 5]
    assert all(".1." in name or name.startswith("linear") for name in model.trained())
    assert messages


def test_a_resumed_run_gives_the_same_tensors_as_an_uninterrupted_one(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 3)
    whole = training.pack(training.fit(rows(), encoder, tmp_path / "a", SETTINGS))

    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("loss") and done == 3:
            raise Stop

    with pytest.raises(Stop):
        training.fit(rows(), encoder, tmp_path / "b", SETTINGS, stop)
    resumed = training.pack(training.fit(rows(), encoder, tmp_path / "b", SETTINGS))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_targets_share_a_row_between_its_labels() -> None:
    goal = training.targets(rows())
    assert goal.sum(-1) == pytest.approx(1)
    assert goal[-1].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0]


def test_batches_hold_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    found = training.batches(lengths, 16, seed=1)
    assert sorted(np.concatenate(found).tolist()) == list(range(1000))
    padded = sum(len(b) * lengths[b].max() for b in found)
    assert padded < 1.1 * lengths.sum()


def test_the_temperature_corrects_overconfident_logits_and_the_offset_a_learned_prior() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(4000, 7)) * 1.5
    p = softmax(honest, axis=-1)
    labels = (p.cumsum(1) > rng.uniform(size=(len(p), 1))).argmax(1)
    even = np.full(7, 1 / 7)
    chosen = training.choose(2 * honest, np.eye(7)[labels], even)
    assert chosen["temperature"] == pytest.approx(2, abs=0.15)
    prior = np.array([0.6, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
    clear = 3 * np.eye(7)[labels] + rng.normal(size=honest.shape)
    assert training.choose(clear + np.log(prior), np.eye(7)[labels], prior)["offset"] >= 0.6


def test_multi_counts_every_class_above_the_threshold() -> None:
    p = np.array([[0.5, 0.3, 0.2, 0, 0, 0, 0], [0.2, 0.7, 0.1, 0, 0, 0, 0]])
    goal = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]])
    found = training.multi(p, goal, 0.25)
    assert found["f1"]["Neutral"] == 100
    assert found["f1"]["Anger"] == 100
    assert training.multi(p, goal, 0.6)["f1"]["Anger"] == pytest.approx(100 * 2 / 3, abs=0.01)


def write_corpora(folder: Path) -> tuple[Path, Path]:
    """GoEmotions and MELD of a few rows."""
    names = [BASIC[c] for c in TRAINED_CLASSES]
    (folder / "labels.txt").write_text("neutral\nanger\ndisgust\nfear\njoy\nsadness\nsurprise\n")
    for split in ("train", "dev", "test"):
        texts = [f"{text} {split}" for text in (*TEXTS, "and fear", "so happy")]
        texts[0] = texts[0].replace("train", "dev")  # stands in two splits
        lines = [f"{text}\t{i % len(names)}\tid{i}" for i, text in enumerate(texts)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    for split in ("train", "dev"):
        body = "".join(f'{i},"{t} {split}",A,joy,x,{i},0\n' for i, t in enumerate(TEXTS))
        (folder / f"{split}_sent_emo.csv").write_text("n,Utterance,S,Emotion,T,Dialogue_ID,Utterance_ID\n" + body)
    return folder, folder


def test_train_text_writes_a_head_its_card_and_predictions(encoder: Path, tmp_path: Path) -> None:
    corpora, meld = write_corpora(tmp_path)
    scores = training.train_text(corpora, encoder, tmp_path / "out", meld, with_meld=True, settings=SETTINGS)
    assert scores["rows"] == 7 + 6
    assert scores["train_rows_in_dev_or_test"] == 1
    assert scores["test"]["single"]["n"] == 8
    out = tmp_path / "out"
    assert json.loads((out / "text_minilm.scores.json").read_text()) == scores
    assert "GPL-3.0" in (out / "text_minilm.md").read_text()
    head = TextHead.read(out / "text_minilm.safetensors", encoder)
    assert head.probabilities(head.features("happy")).sum() == pytest.approx(1, abs=1e-12)
    import pyarrow.parquet as pq

    table = pq.read_table(out / "text_minilm.predictions.parquet")
    assert table.num_rows == 22
    last = table.slice(21).to_pylist()[0]
    p = head.probabilities(head.features(f"{TEXTS[-1]} dev"))  # the table holds the predictions of the file
    assert [last[name] for name in BASIC_COLUMNS] == pytest.approx(p.tolist(), abs=1e-5)
    first = (out / "text_minilm.safetensors").read_bytes()
    training.train_text(corpora, encoder, tmp_path / "again", meld, with_meld=True, settings=SETTINGS)
    assert (tmp_path / "again" / "text_minilm.safetensors").read_bytes() == first


def test_a_class_without_a_sentence_is_named_before_training(encoder: Path, tmp_path: Path) -> None:
    corpora, _ = write_corpora(tmp_path)
    train = corpora / "train.tsv"
    train.write_text("\n".join(line for line in train.read_text().splitlines() if "\t3\t" not in line))
    with pytest.raises(CerError, match="no training sentence of a class: Fear"):
        training.train_text(corpora, encoder, tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trained", [True, False])
def test_the_branch_uses_the_trained_head_where_it_is_present(encoder: Path, tmp_path: Path, trained: bool) -> None:
    head = tmp_path / "text_minilm.safetensors"
    torch.manual_seed(3)
    model = AdaptedEncoder(encoder, 2, 4.0, 1, 0.0)
    for value in model.trained().values():
        torch.nn.init.normal_(value, std=0.2)
    save_head(head, training.pack(model), meta())

    class Weights:
        def path(self, model: str) -> Path:
            return head if model == text.TEXT_HEAD else encoder

        def digest(self, model: str) -> str | None:
            return "1" if trained or model != text.TEXT_HEAD else None

    transcripts = [segment("v", 0) | {"text": TEXTS[0]}, segment("v", 1) | {"status": "no_speech", "reason": "none"}]
    inputs = MemoryInputs({"transcripts": rows_of(tables.TRANSCRIPTS, transcripts)})
    context = StageContext(load_profile(), Weights(), inputs)
    spec = text.TEXT_MINILM
    embedded = text.EmbedText(context)(spec.features.plan(inputs, context.profile))
    inputs.tables[spec.features.name] = embedded
    predicted = text.PredictText(context)(spec.probabilities.plan(inputs, context.profile)).to_pylist()
    assert text.TEXT_HEAD in spec.features.optional_models
    assert [row["status"] for row in predicted] == ["ok", "no_speech"]
    assert predicted[0]["model"] == (text.TEXT_HEAD if trained else "prompts")
    if trained:
        alone = TextHead.read(head, encoder)
        expected = alone.probabilities(alone.features(TEXTS[0]))
        assert [predicted[0][c] for c in BASIC_COLUMNS] == pytest.approx(expected.tolist(), abs=1e-9)


def test_training_on_meld_without_a_folder_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(CerError, match="no folder is given"):
        training.train_text(tmp_path, encoder, tmp_path / "out", None, with_meld=True)


def write_dialogues(folder: Path, utterances: int = 3, dialogues: int = 8) -> None:
    """MELD train of some dialogues; every text but one is said once."""
    names = ("neutral", "anger", "joy")
    lines = [
        f"0,{'again' if u == 0 and d < 2 else f'so {d} {u}'},A,{names[u % 3]},x,{d},{u}\n"
        for d in range(dialogues)
        for u in range(utterances)
    ]
    (folder / "train_sent_emo.csv").write_text("n,Utterance,S,Emotion,T,Dialogue_ID,Utterance_ID\n" + "".join(lines))


def test_folds_of_dialogues_decide_whether_meld_is_trained_on(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora, meld = write_corpora(tmp_path)
    write_dialogues(meld)
    counts: list[int] = []
    fit = training._linear

    def watching(x: np.ndarray, y: np.ndarray):
        counts.append(len(x))
        return fit(x, y)

    monkeypatch.setattr(training, "_linear", watching)
    scores = training.train_text(corpora, encoder, tmp_path / "out", meld, settings=SETTINGS)
    utterances = training.read_meld(meld, "train")
    halves = training.meld_half(utterances)
    assert {len({h for row, h in zip(utterances, halves, strict=True) if training.dialogue(row) == f"dia{d}"})
            for d in range(8)} == {1}  # fmt: skip
    sizes = [halves.count(k) for k in (0, 1)]
    assert counts == [7, 7 + sizes[1], 7 + sizes[0]]
    found = scores["decision"]
    mean = {k: (found[k]["goemotions_dev"] + found[k]["meld_train_out_of_fold"][0]) / 2 for k in ("with", "without")}
    assert found["joins"] == (mean["with"] > mean["without"]) == scores["with_meld"]
    shared = len({half for row, half in zip(utterances, halves, strict=True) if row.text == "again"}) > 1
    assert found["utterances"] == (22 if shared else 24)  # a text of both halves does not count
    assert set(scores["other"]) == {"dev", "test", "meld_dev"}
    card = (tmp_path / "out" / "text_minilm.md").read_text()
    assert "by a rule set before" in card
    assert ("GPL-3.0" in card.partition("Encoder")[0]) == scores["with_meld"]


def test_the_entry_finds_its_corpora_by_their_files(encoder: Path, tmp_path: Path) -> None:
    for name in ("goemotions", "meld", "neither"):
        (tmp_path / name).mkdir()
    write_corpora(tmp_path / "goemotions")
    (tmp_path / "goemotions" / "train_sent_emo.csv").rename(tmp_path / "meld" / "train_sent_emo.csv")
    (tmp_path / "goemotions" / "dev_sent_emo.csv").rename(tmp_path / "meld" / "dev_sent_emo.csv")

    class Weights:
        def path(self, model: str) -> Path:
            return encoder

        def digest(self, model: str) -> str | None:
            return None

    def request(names: str, options: dict[str, str]) -> Request:
        corpora = tuple(Corpus(name, "utterances", tmp_path / name, 1, ()) for name in names.split(","))
        return Request("text_minilm", Home(tmp_path), corpora, Weights(), tmp_path / "out", options, lambda *_: None)

    few = {"rank": "2", "layers": "1", "epochs": "1"}
    scores = training.train(request("meld,goemotions", {**few, "meld": "with"}))
    assert scores["with_meld"]
    assert scores["settings"]["rank"] == 2
    for names, options, what in (
        ("neither", {}, "not the files of GoEmotions or MELD"),
        ("meld", {}, "GoEmotions is not among the corpora"),
        ("goemotions,goemotions", {}, "GoEmotions is named twice"),
        ("goemotions", {"meld": "with"}, "meld=with, but MELD is not among the corpora"),
        ("goemotions,meld", {"meld": "maybe"}, "meld cannot be this: maybe"),
    ):
        with pytest.raises(CerError, match=what):
            training.train(request(names, options))
