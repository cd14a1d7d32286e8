"""Training of the text head: MiniLM with low-rank changes on GoEmotions, with or without MELD.

Belongs here: targets, batches, the loss, the choices on the dev split, and the scores. Does not belong here: the
network (`branches.text.head`), the loop (`training.loop`) or the files (`corpora.formats.utterances`).

Protocol: train on the train splits, without the sentences that are also in GoEmotions dev or test; the class offset,
the temperature and the threshold are chosen on GoEmotions dev; GoEmotions test is scored once, after that. MELD dev is
scored without the utterances that are also in MELD train, with the choices made on GoEmotions dev.

Whether MELD is trained on is decided without its dev split and without GoEmotions test (`decide_meld`): it is where it
raises the mean of two macro-F1, that of GoEmotions dev and that of MELD train out of fold, with its dialogues halved.
For this decision alone, linear layers are fitted on the states of the head without MELD: whole fits would take an hour
more.

A row with several labels is trained towards all of them in equal parts. Scores are given under two rules: `single`
counts the rows with exactly one label, each against the class of highest probability; `multi` counts all rows and takes
every class above a threshold (chosen on dev) as predicted, which is the rule of the GoEmotions paper (Demszky et al.
2020).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import softmax

from cer_pipeline import metrics
from cer_pipeline.branches.sentences.minilm import load_tokenizer
from cer_pipeline.branches.text.head import MAX_TOKENS, AdaptedEncoder, TextHead, pad
from cer_pipeline.corpora.formats.utterances import Utterance, plain, read_goemotions, read_meld, unseen
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, TRAINED_CLASSES
from cer_pipeline.markdown import paragraph, table
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training import loop
from cer_pipeline.training.checkpoint import Checkpoint
from cer_pipeline.training.loop import Loop
from cer_pipeline.training.model_card import class_table, model_card, score_text
from cer_pipeline.training.options import apply, choice
from cer_pipeline.training.progress import Progress, quiet
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import save_head

NAME: Final = "text_minilm"
FILES: Final = {"GoEmotions": "train.tsv", "MELD": "train_sent_emo.csv"}
"""File by which each corpus is recognised."""

OFFSETS: Final = tuple(i / 10 for i in range(11))  # share of the log class frequency that is taken off the logits
TEMPERATURES: Final = tuple(round(0.5 + i / 20, 2) for i in range(41))  # 0.5 to 2.5
THRESHOLDS: Final = tuple(round(0.1 + i / 50, 2) for i in range(21))  # 0.1 to 0.5
SAVE_EVERY: Final = 200  # steps; some three minutes on one core
BUCKET: Final = 50  # batches that are sorted by length together: little padding, and another order in every epoch


@dataclass(frozen=True)
class TextSettings:
    """Settings of the training.

    Args:
        rank: rank of the low-rank changes.
        alpha: their scale: a change counts alpha / rank.
        layers: layers that are changed, from the top.
        dropout: before the linear layer.
        rate: peak learning rate of AdamW.
        decay: weight decay.
        warmup: share of the steps with a rising rate; then it falls linearly to 0.
        batch: sentences in a step.
        epochs: passes over the training rows.
        clip: largest norm of the gradient.
        seed: of initial values, order and dropout.
    """

    rank: int = 32
    alpha: float = 64.0
    layers: int = 3
    dropout: float = 0.1
    rate: float = 1e-3
    decay: float = 0.01
    warmup: float = 0.06
    batch: int = 32
    epochs: int = 2
    clip: float = 1.0
    seed: int = 0


def targets(rows: Sequence[Utterance]) -> np.ndarray:
    """Return target distributions [n, 7] in the order of `TRAINED_CLASSES`; labels of a row get equal parts."""
    values = np.zeros((len(rows), len(TRAINED_CLASSES)), np.float32)
    for i, row in enumerate(rows):
        for label in row.labels:
            values[i, TRAINED_CLASSES.index(label)] = 1 / len(row.labels)
    return values


def batches(lengths: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """Return the row numbers of the batches of one epoch, in random order; rows of a batch have similar lengths.

    Args:
        lengths: tokens of every row.
        size: rows in a batch.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    made: list[np.ndarray] = []
    for start in range(0, len(order), size * BUCKET):
        bucket = order[start : start + size * BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        made.extend(bucket[i : i + size] for i in range(0, len(bucket), size))
    return [made[i] for i in rng.permutation(len(made))]


def fit(
    rows: Sequence[Utterance],
    encoder: Path,
    state: Path,
    settings: TextSettings,
    progress: Progress = quiet,
) -> AdaptedEncoder:
    """Train on rows, on one thread, so that a repeated run has the same bits. A stopped run resumes from `state`.

    Args:
        rows: training sentences.
        encoder: folder of MiniLM.
        state: file in which the state is saved every `SAVE_EVERY` steps.
        settings: how to train.
        progress: gets the mean loss and the steps.
    """
    with one_thread():
        return _fit(rows, encoder, state, settings, progress)


def _fit(
    rows: Sequence[Utterance],
    encoder: Path,
    state: Path,
    settings: TextSettings,
    progress: Progress,
) -> AdaptedEncoder:
    torch.manual_seed(settings.seed)
    model = AdaptedEncoder(encoder, settings.rank, settings.alpha, settings.layers, settings.dropout)
    model.dropout.train()
    ids = [e.ids for e in load_tokenizer(encoder, MAX_TOKENS).encode_batch([row.text for row in rows])]
    lengths = np.array([len(i) for i in ids])
    goal = torch.from_numpy(targets(rows))
    parameters = model.trained()
    optimiser = torch.optim.AdamW(parameters.values(), lr=settings.rate, weight_decay=settings.decay)
    steps = len(batches(lengths, settings.batch, 0)) * settings.epochs
    content = "\n".join(f"{row.id} {row.labels} {row.text}" for row in rows)
    run = {**asdict(settings), "rows": hashlib.sha256(content.encode()).hexdigest()}
    below: list[torch.Tensor] = []

    def order(epoch: int) -> list[np.ndarray]:
        if not below:
            below.extend(_below(model, ids, progress))
        return batches(lengths, settings.batch, settings.seed * 1000 + epoch)

    def loss(batch: np.ndarray, _: int) -> torch.Tensor:
        mask = pad([ids[i] for i in batch])[1]
        states = torch.zeros(*mask.shape, below[0].shape[1])
        for row, i in enumerate(batch):
            states[row, : lengths[i]] = below[i].float()
        return -(goal[torch.from_numpy(batch)] * model.upper(states, mask).log_softmax(-1)).sum(-1).mean()

    loop.train(
        parameters,
        optimiser,
        Loop(settings.epochs, settings.clip, settings.seed, save_every=SAVE_EVERY),
        order,
        loss,
        loop.warmup_linear(optimiser, steps, settings.warmup),
        checkpoint=Checkpoint(state, run),
        progress=progress,
    )
    return model


def _below(model: AdaptedEncoder, ids: Sequence[Sequence[int]], progress: Progress) -> list[torch.Tensor]:
    """States of each row below the changed layers, float16 [tokens, 384]: 0.6 GB for GoEmotions."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    below: list[torch.Tensor] = [torch.empty(0)] * len(ids)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        states = model.lower(*pad([ids[i] for i in part]))
        for i, row in zip(part, states, strict=True):
            below[i] = row[: len(ids[i])].half()
        if start % 6400 == 0:
            progress("states of the lower layers", start, len(order))
    return below


def pack(model: AdaptedEncoder) -> dict[str, np.ndarray]:
    """Return the trained tensors as they are shipped: float16."""
    return {name: value.detach().numpy().astype(np.float16) for name, value in model.trained().items()}


def features(head: TextHead, rows: Sequence[Utterance], progress: Progress = quiet) -> np.ndarray:
    """Return states [n, 384] of sentences by a head as it is shipped (merged, float32)."""
    order = np.argsort([len(row.text) for row in rows], kind="stable")
    states = np.empty((len(rows), head.weight.shape[1]), np.float32)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        states[part] = head.batch([rows[int(i)].text for i in part])
        if start % 1280 == 0:
            progress("states of sentences", start, len(order))
    return states


def choose(values: np.ndarray, goal: np.ndarray, prior: np.ndarray) -> dict[str, float]:
    """Choose temperature, offset and threshold on the dev split.

    Args:
        values: logits [n, 7] of the dev rows.
        goal: their target distributions [n, 7].
        prior: class frequencies of the training rows [7].

    Returns:
        `temperature`: of least negative log-likelihood; `offset`: share of log prior taken off the logits, of highest
        macro-F1 (single rule); `threshold`: of highest macro-F1 (multi rule).
    """
    losses = [-(goal * np.log(softmax(values / t, axis=-1) + 1e-12)).sum(-1).mean() for t in TEMPERATURES]
    offsets = [_single_f1(values - o * np.log(prior), goal) for o in OFFSETS]
    offset = OFFSETS[int(np.argmax(offsets))]
    temperature = TEMPERATURES[int(np.argmin(losses))]
    p = softmax((values - offset * np.log(prior)) / temperature, axis=-1)
    thresholds = [multi(p, goal, t)["macro_f1"] for t in THRESHOLDS]
    return {"temperature": temperature, "offset": offset, "threshold": THRESHOLDS[int(np.argmax(thresholds))]}


def _single_f1(values: np.ndarray, goal: np.ndarray) -> float:
    one = goal.max(-1) == 1
    matrix = metrics.confusion(goal[one].argmax(-1), values[one].argmax(-1), len(TRAINED_CLASSES))
    return float(metrics.macro_f1(matrix, range(len(TRAINED_CLASSES))))


def single(values: np.ndarray, goal: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """Return scores over the rows with exactly one label: class of the highest value against the label.

    Args:
        values: logits or probabilities [n, 7].
        goal: target distributions [n, 7].
        groups: group of each row that the bootstrap draws as a whole: the row, or its dialogue.
    """
    one = goal.max(-1) == 1
    names = {k: BASIC[c] for k, c in enumerate(TRAINED_CLASSES)}
    truth, guess = goal[one].argmax(-1), values[one].argmax(-1)
    scores = metrics.card_scores(truth, guess, np.asarray(groups)[one], names, size=len(names))
    return {"n": int(one.sum()), **scores}


def multi(p: np.ndarray, goal: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return scores over all rows: every class with at least `threshold` is predicted, and always the highest."""
    guess, truth = (p >= threshold) | (p == p.max(-1, keepdims=True)), goal > 0
    f1 = 2 * (guess & truth).sum(0) / np.maximum(guess.sum(0) + truth.sum(0), 1)
    return {"n": len(p), "macro_f1": round(100 * float(f1.mean()), 2), "f1": _by_class(f1)}


def _by_class(values: np.ndarray) -> dict[str, float]:
    return {BASIC[c]: round(100 * float(v), 2) for c, v in zip(TRAINED_CLASSES, values, strict=True)}


def train_text(
    goemotions: Path,
    encoder: Path,
    out: Path,
    meld: Path | None = None,
    with_meld: bool | None = None,
    settings: TextSettings | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Train the text head, choose on dev, score on test, and write `text_minilm.safetensors` and its model card.

    A stopped run resumes when it is called again with the same folders and settings. Also written:
    `text_minilm.scores.json` and `text_minilm.predictions.parquet` (split, id, the 8 probabilities) for dev and test.

    Args:
        goemotions: folder of the GoEmotions files.
        encoder: folder of MiniLM.
        out: folder for everything that is written.
        meld: folder of the MELD files; scored on its dev split where given.
        with_meld: whether MELD train is trained on too; None to decide it by folds, where MELD is given.
        settings: how to train.
        progress: gets the step, and how much of it is done.

    Returns:
        The content of the scores file; scores in percent, with intervals as [value, low, high]. Where folds decided,
        `other` holds the scores of the head that was not chosen.

    Raises:
        CerError: a file is missing or a row cannot be read, or MELD is to be trained on but not given.
    """
    settings = settings or TextSettings()
    if with_meld and meld is None:
        raise CerError("MELD is to be trained on, but no folder is given", then="name the folder of MELD")
    data = Data.read(goemotions, meld)
    check([*data.train, *(data.meld_train if with_meld else [])])
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "fits"
    if meld is None or with_meld is not None:
        made = fit_and_score(data, bool(with_meld), encoder, folder, settings, progress)
        scores = made.scores
    else:
        both = {name: fit_and_score(data, name, encoder, folder, settings, progress) for name in (False, True)}
        decision = decide_meld(data, TextHead(both[False].tensors, both[False].meta, encoder), progress)
        made, other = both[decision["joins"]], both[not decision["joins"]].scores
        other_scores = {name: other[name] for name in data.scored()}
        scores = {**made.scores, "decision": decision, "other": other_scores}
    scores = {"settings": asdict(settings), "digests": _digests(goemotions, meld), **scores}
    tables = [_predictions(name, rows, made.probabilities[name]) for name, rows in data.scored().items()]
    pq.write_table(pa.concat_tables(tables), out / f"{NAME}.predictions.parquet")
    (out / f"{NAME}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{NAME}.md").write_text(card(scores), "utf-8")
    save_head(out / f"{NAME}.safetensors", made.tensors, made.meta)
    return scores


@dataclass(frozen=True)
class Data:
    """The sentences of a training.

    Args:
        train: GoEmotions train without the sentences of its dev and test.
        dropped: number of rows that were left out.
        dev: GoEmotions dev.
        test: GoEmotions test.
        meld_train: MELD train; empty where it is not given.
        meld_dev: MELD dev without the utterances of its train.
    """

    train: list[Utterance]
    dropped: int
    dev: list[Utterance]
    test: list[Utterance]
    meld_train: list[Utterance]
    meld_dev: list[Utterance]

    @classmethod
    def read(cls, goemotions: Path, meld: Path | None) -> Data:
        """Read both corpora.

        Raises:
            CerError: a file is missing or a row cannot be read.
        """
        every, dev, test = (read_goemotions(goemotions, name) for name in ("train", "dev", "test"))
        train = unseen(every, dev + test)
        meld_train = read_meld(meld, "train") if meld else []
        meld_dev = unseen(read_meld(meld, "dev"), meld_train) if meld else []
        return cls(train, len(every) - len(train), dev, test, meld_train, meld_dev)

    def scored(self) -> dict[str, list[Utterance]]:
        """The rows that are scored, by name."""
        splits = {"dev": self.dev, "test": self.test, "meld_dev": self.meld_dev}
        return {name: rows for name, rows in splits.items() if rows}


def check(rows: Sequence[Utterance]) -> None:
    """Refuse training rows without a class.

    Raises:
        CerError: names the classes.
    """
    absent = [BASIC[c] for c, share in zip(TRAINED_CLASSES, targets(rows).sum(0), strict=True) if not share]
    if absent:
        raise CerError("no training sentence of a class", ", ".join(absent), "add sentences of it")


def dialogue(row: Utterance) -> str:
    """Return the dialogue of a MELD utterance: dia12_utt3 -> dia12."""
    return row.id.partition("_")[0]


@dataclass(frozen=True)
class ScoredHead:
    """A trained head with its predictions and scores.

    Args:
        tensors: of its file.
        meta: of its file.
        probabilities: name of the scored rows -> [n, 7].
        scores: of the same rows, and the choices on dev.
    """

    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]
    probabilities: dict[str, np.ndarray]
    scores: dict[str, Any]


def fit_and_score(
    data: Data, with_meld: bool, encoder: Path, folder: Path, settings: TextSettings, progress: Progress = quiet
) -> ScoredHead:
    """Train on all training rows, with MELD or without it, choose on GoEmotions dev, and score.

    Args:
        data: the sentences.
        with_meld: whether MELD train is trained on.
        encoder: folder of MiniLM.
        folder: folder for the state of the fit.
        settings: how to train.
        progress: gets the step, and how much of it is done.
    """
    rows = [*data.train, *(data.meld_train if with_meld else [])]
    state = folder / f"{'with' if with_meld else 'without'}_meld.state"
    tensors = pack(fit(rows, encoder, state, settings, progress))
    meta = {**asdict(settings), "branch": NAME, "encoder": "minilm", "temperature": 1.0}
    plain_head = TextHead(tensors, meta, encoder)
    values = {}
    for name, split in data.scored().items():
        progress(f"scoring {name}", 0, len(split))
        values[name] = plain_head.logits(features(plain_head, split))
    prior = targets(rows).mean(0)
    chosen = choose(values["dev"], targets(data.dev), prior)
    # Taking the offset off the bias makes it part of the head.
    tensors["linear.bias"] = (plain_head.bias - chosen["offset"] * np.log(prior)).astype(np.float32)
    meta |= {
        "temperature": chosen["temperature"],
        "classes": [BASIC[c] for c in TRAINED_CLASSES],
        "with_meld": with_meld,
    }
    shift = tensors["linear.bias"] - plain_head.bias
    p = {name: softmax((logits + shift) / chosen["temperature"], axis=-1) for name, logits in values.items()}
    scores: dict[str, Any] = {
        "chosen": chosen, "rows": len(rows), "with_meld": with_meld, "train_rows_in_dev_or_test": data.dropped,
    }  # fmt: skip
    for name, split in data.scored().items():
        goals = targets(split)
        groups = [dialogue(row) if name == "meld_dev" else row.id for row in split]
        scores[name] = {"single": single(p[name], goals, groups)}
        if name != "meld_dev":
            scores[name]["multi"] = multi(p[name], goals, chosen["threshold"])
    return ScoredHead(tensors, meta, p, scores)


def decide_meld(data: Data, head: TextHead, progress: Progress = quiet) -> dict[str, Any]:
    """Decide whether MELD is trained on, by GoEmotions dev and by MELD train out of fold.

    The dialogues of MELD train are halved. On the states of the head without MELD, one linear layer is fitted to
    GoEmotions train alone, and one to GoEmotions train and each half of MELD. Each half of MELD is classified by the
    first, and by the one that was fitted with the other half; utterances whose text is in the other half do not count.
    MELD is trained on where the mean of two macro-F1 is higher with it: GoEmotions dev (mean of both layers), and MELD
    train.

    Args:
        data: the sentences; only those with one label count here.
        head: trained without MELD.
        progress: gets the step, and how much of it is done.
    """
    meld = data.meld_train
    rows, dev = ([row for row in split if len(row.labels) == 1] for split in (data.train, data.dev))
    x, meld_x, dev_x = (features(head, split, progress) for split in (rows, meld, dev))
    y, meld_y, dev_y = (targets(split).argmax(1) for split in (rows, meld, dev))
    half = np.array(meld_half(meld))
    without = _linear(x, y)
    classified: list[Utterance] = []
    guess: dict[str, list[np.ndarray]] = {"without": [], "with": []}
    on_dev = {"without": [_macro_f1(dev_y, without(dev_x))], "with": []}
    for k in range(2):
        train = half != k
        texts = {plain(row.text) for row, used in zip(meld, train, strict=True) if used}
        test = np.array([i for i in np.flatnonzero(~train) if plain(meld[i].text) not in texts], np.int64)
        layer = _linear(np.concatenate([x, meld_x[train]]), np.concatenate([y, meld_y[train]]))
        on_dev["with"].append(_macro_f1(dev_y, layer(dev_x)))
        classified += [meld[i] for i in test]
        for name, predict in (("without", without), ("with", layer)):
            guess[name].append(np.eye(len(TRAINED_CLASSES))[predict(meld_x[test])])
    groups = [dialogue(row) for row in classified]
    record: dict[str, Any] = {
        name: {
            "goemotions_dev": round(float(np.mean(on_dev[name])), 2),
            "meld_train_out_of_fold": single(np.concatenate(parts), targets(classified), groups)["macro_f1"],
        }
        for name, parts in guess.items()
    }
    total = {name: f1["goemotions_dev"] + f1["meld_train_out_of_fold"][0] for name, f1 in record.items()}
    return {"joins": bool(total["with"] > total["without"]), "utterances": len(classified), **record}


def _linear(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x, y)
    return model.predict


def _macro_f1(truth: np.ndarray, guess: np.ndarray) -> float:
    return 100 * float(
        metrics.macro_f1(metrics.confusion(truth, guess, len(TRAINED_CLASSES)), range(len(TRAINED_CLASSES)))
    )


def meld_half(rows: Sequence[Utterance]) -> list[int]:
    """Return 0 or 1 for each row, from the digest of its dialogue: the same for all utterances of a dialogue."""
    return [hashlib.sha256(dialogue(row).encode()).digest()[0] % 2 for row in rows]


def _digests(goemotions: Path, meld: Path | None) -> dict[str, str]:
    files = [goemotions / name for name in ("labels.txt", "train.tsv", "dev.tsv", "test.tsv")]
    files += [meld / f"{split}_sent_emo.csv" for split in ("train", "dev")] if meld else []
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _predictions(split: str, rows: Sequence[Utterance], p: np.ndarray) -> pa.Table:
    full = np.zeros((len(p), len(BASIC)))
    full[:, TRAINED_CLASSES] = p
    columns = {"split": [split] * len(rows), "id": [row.id for row in rows]}
    return pa.table(columns | {name: full[:, i] for i, name in enumerate(BASIC_COLUMNS)})


def card(scores: dict[str, Any]) -> str:
    """Return the model card of a trained text head."""
    test = scores["test"]["single"]
    data = "GoEmotions (Apache-2.0)" + (" and MELD (repository under GPL-3.0)" if scores["with_meld"] else "")
    return model_card(
        NAME,
        """Low-rank changes of the upper layers of all-MiniLM-L6-v2 and a linear layer: a sentence to 7 basic
        emotions. "Other" is never trained and gets probability 0.""",
        data=[
            f"""{data}, {scores["rows"]} sentences, with the authors' mapping to Ekman's emotions.
            {scores["train_rows_in_dev_or_test"]} training sentences that are also in dev or test were left out.""",
            "Encoder: all-MiniLM-L6-v2 (Apache-2.0), not contained.",
        ],
        digests=scores["digests"],
        settings=scores["settings"],
        protocol=[
            f"""Chosen on GoEmotions dev: {", ".join(f"{k} {v}" for k, v in scores["chosen"].items())}. The offset
            is the share of the log class frequency that is taken off the logits, for macro-F1.""",
            """A row with several labels is trained towards all in equal parts. `single` scores rows with one label
            against the likeliest class; `multi` scores all rows, every class above the threshold being predicted.""",
            "95 % intervals resample rows (GoEmotions) or dialogues (MELD).",
        ],
        scores=[
            _score_rows(scores),
            *(_meld_decision(scores) if "decision" in scores else []),
            class_table(test["f1"], test["recall"], "class, GoEmotions test, single"),
        ],
        limits="""GoEmotions are written comments of one web forum, in English, rated by readers. Spoken windows of
        4 s are shorter, lack the written marks of emotion, and contain the mistakes of the speech recogniser.""",
    )


def _score_rows(scores: Mapping[str, Any]) -> str:
    rows = []
    for name, title in (("dev", "GoEmotions dev"), ("test", "GoEmotions test"), ("meld_dev", "MELD dev, unseen")):
        for rule, values in scores.get(name, {}).items():
            uar = score_text(values["uar"]) if "uar" in values else ""
            rows.append([title, rule, values["n"], score_text(values["macro_f1"]), uar])
    return table(["data", "rule", "n", "macro-F1", "UAR"], rows, ["n", "macro-F1", "UAR"])


def _meld_decision(scores: Mapping[str, Any]) -> list[str]:
    """The values that decided about MELD, and the scores of the head that was not chosen."""
    decision, other = scores["decision"], "without" if scores["with_meld"] else "with"
    means = (f"{how} MELD {decision[how]['goemotions_dev']} and {score_text(decision[how]['meld_train_out_of_fold'])}"
             for how in ("without", "with"))  # fmt: skip
    return [
        paragraph(
            f"""MELD {"joined" if decision["joins"] else "did not join"} by a rule set before any head with MELD was
            scored: macro-F1 on GoEmotions dev and on MELD train out of fold (dialogues halved,
            {decision["utterances"]} utterances), of linear layers on the states of the head without MELD, are
            {", ".join(means)}; the higher mean wins."""
        ),
        f"The head that was not chosen, {other} MELD:",
        _score_rows(scores["other"]),
    ]


def train(request: Request) -> dict[str, Any]:
    """Train on corpora of the format `utterances`, one of them GoEmotions (`cer train text_minilm`).

    Option `meld`: decide (by folds, where MELD is among the corpora), with, or without; else fields of `TextSettings`.
    """
    folders: dict[str, Path] = {}
    for corpus in request.corpora:
        kinds = [name for name, file in FILES.items() if (corpus.root / file).is_file()]
        if len(kinds) != 1:
            then = f"expected {' or '.join(FILES.values())} in it"
            raise CerError("not the files of GoEmotions or MELD", str(corpus.root), then)
        if kinds[0] in folders:
            raise CerError(f"{kinds[0]} is named twice", corpus.name, "name it once")
        folders[kinds[0]] = corpus.root
    if "GoEmotions" not in folders:
        raise CerError("GoEmotions is not among the corpora", NAME, "its dev split is what settings are chosen on")
    how = choice(request.options, "meld", ("decide", "with", "without"))
    if how != "decide" and "MELD" not in folders:
        raise CerError(f"meld={how}, but MELD is not among the corpora", NAME, "name it with --corpora")
    return train_text(
        folders["GoEmotions"],
        request.weights.path("minilm"),
        request.out,
        folders.get("MELD"),
        {"decide": None, "with": True, "without": False}[how],
        apply(TextSettings(), request.options, also=("meld",)),
        request.progress,
    )
