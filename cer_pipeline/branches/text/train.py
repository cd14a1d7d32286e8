"""Training of the text head: MiniLM with low-rank changes on GoEmotions, with or without MELD.

Belongs here: targets, batches, the loop, what is chosen on the dev split, and the scores. Does not belong here: the
network (`branches.text.head`) or the files (`corpora.formats.utterances`).

Protocol: train on the train splits, without the sentences that also stand in GoEmotions dev or test; the class offset,
the temperature and the threshold are chosen on GoEmotions dev; GoEmotions test is read once, after that. MELD dev is
scored without the utterances that also stand in MELD train, with what was chosen on GoEmotions dev.

Whether MELD joins is decided without its dev split and without GoEmotions test (`joins`): it does where it raises the
mean of two macro-F1, that of GoEmotions dev and that of MELD train out of fold, its dialogues being halved. For this
decision alone, linear layers are fitted on the states of the head without MELD: whole fits would take an hour more.

A row with several labels trains towards all of them in equal parts. Scores are given under two rules: `single` counts
the rows with exactly one label, each against the class of highest probability; `multi` counts all rows and takes every
class above a threshold (chosen on dev) as predicted, which is the rule of the GoEmotions paper (Demszky et al. 2020).
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
from cer_pipeline.branches.text.head import CLASSES, MAX_TOKENS, AdaptedEncoder, TextHead, pad
from cer_pipeline.corpora.formats.utterances import Utterance, plain, read_goemotions, read_meld, unseen
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
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
"""The file that tells each corpus."""

OFFSETS: Final = tuple(i / 10 for i in range(11))  # share of the log class frequency that is taken off the logits
TEMPERATURES: Final = tuple(round(0.5 + i / 20, 2) for i in range(41))  # 0.5 to 2.5
THRESHOLDS: Final = tuple(round(0.1 + i / 50, 2) for i in range(21))  # 0.1 to 0.5
SAVE_EVERY: Final = 200  # steps; some three minutes on one core
BUCKET: Final = 50  # batches that are sorted by length together: little padding, and still another order every epoch


@dataclass(frozen=True)
class TextSettings:
    """How the text head is trained.

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
    """Target distribution [n, 7] in the order of `CLASSES`: equal parts on a row's labels."""
    values = np.zeros((len(rows), len(CLASSES)), np.float32)
    for i, row in enumerate(rows):
        for label in row.labels:
            values[i, CLASSES.index(label)] = 1 / len(row.labels)
    return values


def batches(lengths: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """Row numbers of one epoch's batches: random, but rows of a batch are of like length, so that little is padding.

    Args:
        lengths: tokens of every row.
        size: rows in a batch.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    found: list[np.ndarray] = []
    for start in range(0, len(order), size * BUCKET):
        bucket = order[start : start + size * BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        found.extend(bucket[i : i + size] for i in range(0, len(bucket), size))
    return [found[i] for i in rng.permutation(len(found))]


def fit(
    rows: Sequence[Utterance],
    encoder: Path,
    state: Path,
    settings: TextSettings,
    progress: Progress = quiet,
) -> AdaptedEncoder:
    """Train on rows; a run that was stopped goes on from `state`. On one thread, so that it repeats to the last bit.

    Args:
        rows: training sentences.
        encoder: folder of MiniLM.
        state: file that the state is kept in, every `SAVE_EVERY` steps.
        settings: how to train.
        progress: told the mean loss and the steps.
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
    """Each row's states below the changed layers, float16 [tokens, 384]: 0.6 GB for GoEmotions."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: list[torch.Tensor] = [torch.empty(0)] * len(ids)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        states = model.lower(*pad([ids[i] for i in part]))
        for i, row in zip(part, states, strict=True):
            found[i] = row[: len(ids[i])].half()
        if start % 6400 == 0:
            progress("states of the lower layers", start, len(order))
    return found


def pack(model: AdaptedEncoder) -> dict[str, np.ndarray]:
    """The trained tensors as they are shipped: float16."""
    return {name: value.detach().numpy().astype(np.float16) for name, value in model.trained().items()}


def features(head: TextHead, rows: Sequence[Utterance], progress: Progress = quiet) -> np.ndarray:
    """States [n, 384] of a head as it is shipped (merged, float32) over sentences, by length in batches."""
    order = np.argsort([len(row.text) for row in rows], kind="stable")
    found = np.empty((len(rows), head.weight.shape[1]), np.float32)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        found[part] = head.batch([rows[int(i)].text for i in part])
        if start % 1280 == 0:
            progress("states of sentences", start, len(order))
    return found


def logits(head: TextHead, texts: Sequence[str]) -> np.ndarray:
    """Logits [n, 7] of a head as it is shipped."""
    states = features(head, [Utterance("", text, ()) for text in texts])
    return states.astype(np.float64) @ head.weight.T + head.bias


def choose(values: np.ndarray, goal: np.ndarray, prior: np.ndarray) -> dict[str, float]:
    """What is chosen on the dev split.

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
    keep = goal.max(-1) == 1
    matrix = metrics.confusion(goal[keep].argmax(-1), values[keep].argmax(-1), len(CLASSES))
    return float(metrics.macro_f1(matrix, range(len(CLASSES))))


def single(values: np.ndarray, goal: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """Scores over the rows with exactly one label: class of the highest value against the label.

    Args:
        values: logits or probabilities [n, 7].
        goal: target distributions [n, 7].
        groups: what the bootstrap draws: rows, or dialogues.
    """
    keep = goal.max(-1) == 1
    every = range(len(CLASSES))
    truth, guess = goal[keep].argmax(-1), values[keep].argmax(-1)
    own = [group for group, used in zip(groups, keep, strict=True) if used]
    found: dict[str, Any] = {"n": int(keep.sum())}
    for name, metric in (("macro_f1", metrics.macro_f1), ("uar", metrics.uar)):
        score = metrics.bootstrap(metric, truth, guess, own, every, size=len(CLASSES))
        found[name] = score.percent
    for name, metric in (("f1", metrics.macro_f1), ("recall", metrics.uar)):
        scores = [metrics.bootstrap(metric, truth, guess, own, [k], size=len(CLASSES)) for k in every]
        found[name] = {BASIC[c]: score.percent for c, score in zip(CLASSES, scores, strict=True)}
    return found


def multi(p: np.ndarray, goal: np.ndarray, threshold: float) -> dict[str, Any]:
    """Scores over all rows: every class with at least `threshold` is predicted, and the highest one always."""
    guess, truth = (p >= threshold) | (p == p.max(-1, keepdims=True)), goal > 0
    f1 = 2 * (guess & truth).sum(0) / np.maximum(guess.sum(0) + truth.sum(0), 1)
    return {"n": len(p), "macro_f1": round(100 * float(f1.mean()), 2), "f1": _by_class(f1)}


def _by_class(values: np.ndarray) -> dict[str, float]:
    return {BASIC[c]: round(100 * float(v), 2) for c, v in zip(CLASSES, values, strict=True)}


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

    A stopped run goes on where it was when it is called again with the same folders and settings. Also written:
    `text_minilm.scores.json` and `text_minilm.predictions.parquet` (split, id, the 8 probabilities) for dev and test.

    Args:
        goemotions: folder of the GoEmotions files.
        encoder: folder of MiniLM.
        out: folder for everything that is written.
        meld: folder of the MELD files; scored on its dev split where given.
        with_meld: whether MELD train is trained on too; None to decide it by folds, where MELD is given.
        settings: how to train.
        progress: told what is going on.

    Returns:
        What stands in the scores file; scores in percent, with intervals as [value, low, high]. Where folds decided,
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
        made = judged(data, bool(with_meld), encoder, folder, settings, progress)
        scores = made.scores
    else:
        both = {name: judged(data, name, encoder, folder, settings, progress) for name in (False, True)}
        decision = joins(data, TextHead(both[False].tensors, both[False].meta, encoder), progress)
        made, other = both[decision["joins"]], both[not decision["joins"]].scores
        held = {name: other[name] for name in data.held()}
        scores = {**made.scores, "decision": decision, "other": held}
    scores = {"settings": asdict(settings), "digests": _digests(goemotions, meld), **scores}
    tables = [_predictions(name, held, made.probabilities[name]) for name, held in data.held().items()]
    pq.write_table(pa.concat_tables(tables), out / f"{NAME}.predictions.parquet")
    (out / f"{NAME}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{NAME}.md").write_text(card(scores), "utf-8")
    save_head(out / f"{NAME}.safetensors", made.tensors, made.meta)
    return scores


@dataclass(frozen=True)
class Data:
    """The sentences of a training.

    Args:
        train: GoEmotions train without what stands in its dev or test.
        dropped: how many rows that took out.
        dev: GoEmotions dev.
        test: GoEmotions test.
        meld_train: MELD train; empty where it is not given.
        meld_dev: MELD dev without the utterances that stand in its train.
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
        told = read_meld(meld, "train") if meld else []
        return cls(
            train, len(every) - len(train), dev, test, told, unseen(read_meld(meld, "dev"), told) if meld else []
        )

    def held(self) -> dict[str, list[Utterance]]:
        """What is scored, by name."""
        found = {"dev": self.dev, "test": self.test, "meld_dev": self.meld_dev}
        return {name: rows for name, rows in found.items() if rows}


def check(rows: Sequence[Utterance]) -> None:
    """Refuse training rows without a class.

    Raises:
        CerError: names the classes.
    """
    absent = [BASIC[c] for c, share in zip(CLASSES, targets(rows).sum(0), strict=True) if not share]
    if absent:
        raise CerError("no training sentence of a class", ", ".join(absent), "add sentences of it")


def dialogue(row: Utterance) -> str:
    """The dialogue of a MELD utterance: dia12_utt3 -> dia12."""
    return row.id.partition("_")[0]


@dataclass(frozen=True)
class ScoredHead:
    """A trained head with what it says about the rows that are scored.

    Args:
        tensors: of its file.
        meta: of its file.
        probabilities: name of the rows -> [n, 7].
        scores: of the same rows, and what was chosen.
    """

    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]
    probabilities: dict[str, np.ndarray]
    scores: dict[str, Any]


def judged(
    data: Data, with_meld: bool, encoder: Path, folder: Path, settings: TextSettings, progress: Progress = quiet
) -> ScoredHead:
    """Train on all training rows, with MELD or without, choose on GoEmotions dev, and score.

    Args:
        data: the sentences.
        with_meld: whether MELD train joins.
        encoder: folder of MiniLM.
        folder: where the state of the fit is kept.
        settings: how to train.
        progress: told what is going on.
    """
    rows = [*data.train, *(data.meld_train if with_meld else [])]
    state = folder / f"{'with' if with_meld else 'without'}_meld.state"
    tensors = pack(fit(rows, encoder, state, settings, progress))
    meta = {**asdict(settings), "branch": NAME, "encoder": "minilm", "temperature": 1.0}
    plain_head = TextHead(tensors, meta, encoder)
    values = {}
    for name, held in data.held().items():
        progress(f"scoring {name}", 0, len(held))
        values[name] = features(plain_head, held).astype(np.float64) @ plain_head.weight.T + plain_head.bias
    prior = targets(rows).mean(0)
    chosen = choose(values["dev"], targets(data.dev), prior)
    # Taking the offset off the bias makes it part of the head.
    tensors["linear.bias"] = (plain_head.bias - chosen["offset"] * np.log(prior)).astype(np.float32)
    meta |= {"temperature": chosen["temperature"], "classes": [BASIC[c] for c in CLASSES], "with_meld": with_meld}
    shift = tensors["linear.bias"] - plain_head.bias
    p = {name: softmax((own + shift) / chosen["temperature"], axis=-1) for name, own in values.items()}
    scores: dict[str, Any] = {
        "chosen": chosen, "rows": len(rows), "with_meld": with_meld, "train_rows_in_dev_or_test": data.dropped,
    }  # fmt: skip
    for name, held in data.held().items():
        goals = targets(held)
        groups = [dialogue(row) if name == "meld_dev" else row.id for row in held]
        scores[name] = {"single": single(p[name], goals, groups)}
        if name != "meld_dev":
            scores[name]["multi"] = multi(p[name], goals, chosen["threshold"])
    return ScoredHead(tensors, meta, p, scores)


def joins(data: Data, head: TextHead, progress: Progress = quiet) -> dict[str, Any]:
    """Whether MELD joins, decided on GoEmotions dev and on MELD train out of fold.

    The dialogues of MELD train are halved. On the states of the head without MELD, a linear layer is fitted to
    GoEmotions train alone, and one to it and each half of MELD. Each half of MELD is judged by the first, and by the
    one that was fitted with the other half; utterances whose text stands in the other half do not count. MELD joins
    where the mean of both macro-F1, GoEmotions dev (mean of both layers) and this, is higher with it.

    Args:
        data: the sentences; only those with one label count here.
        head: trained without MELD.
        progress: told what is going on.
    """
    rows, dev = ([row for row in own if len(row.labels) == 1] for own in (data.train, data.dev))
    x, told, known = (features(head, own, progress) for own in (rows, data.meld_train, dev))
    y, meld_y, dev_y = (targets(own).argmax(1) for own in (rows, data.meld_train, dev))
    half = np.array(meld_half(data.meld_train))
    alone = _linear(x, y)
    kept: list[Utterance] = []
    guess: dict[str, list[np.ndarray]] = {"without": [], "with": []}
    on_dev = {"without": [_macro_f1(dev_y, alone(known))], "with": []}
    for k in range(2):
        other = half != k
        seen = {plain(row.text) for row, own in zip(data.meld_train, other, strict=True) if own}
        held = np.array([i for i in np.flatnonzero(~other) if plain(data.meld_train[i].text) not in seen], np.int64)
        layer = _linear(np.concatenate([x, told[other]]), np.concatenate([y, meld_y[other]]))
        on_dev["with"].append(_macro_f1(dev_y, layer(known)))
        kept += [data.meld_train[i] for i in held]
        for name, judge in (("without", alone), ("with", layer)):
            guess[name].append(np.eye(len(CLASSES))[judge(told[held])])
    groups = [dialogue(row) for row in kept]
    record: dict[str, Any] = {}
    for name, parts in guess.items():
        found = single(np.concatenate(parts), targets(kept), groups)["macro_f1"]
        record[name] = {
            "goemotions_dev": round(float(np.mean(on_dev[name])), 2),
            "meld_train_out_of_fold": found,
        }
    mean = {name: own["goemotions_dev"] + own["meld_train_out_of_fold"][0] for name, own in record.items()}
    return {"joins": bool(mean["with"] > mean["without"]), "utterances": len(kept), **record}


def _linear(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x, y)
    return model.predict


def _macro_f1(truth: np.ndarray, guess: np.ndarray) -> float:
    return 100 * float(metrics.macro_f1(metrics.confusion(truth, guess, len(CLASSES)), range(len(CLASSES))))


def meld_half(rows: Sequence[Utterance]) -> list[int]:
    """0 or 1 for each row, the same for all utterances of a dialogue: drawn from the digest of its name."""
    return [hashlib.sha256(dialogue(row).encode()).digest()[0] % 2 for row in rows]


def _digests(goemotions: Path, meld: Path | None) -> dict[str, str]:
    files = [goemotions / name for name in ("labels.txt", "train.tsv", "dev.tsv", "test.tsv")]
    files += [meld / f"{split}_sent_emo.csv" for split in ("train", "dev")] if meld else []
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _predictions(split: str, rows: Sequence[Utterance], p: np.ndarray) -> pa.Table:
    full = np.zeros((len(p), len(BASIC)))
    full[:, CLASSES] = p
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
    """Entry of `cer train text_minilm`: corpora of the format `utterances`, one of them GoEmotions.

    Option `meld`: decide (by folds, where MELD is among the corpora), with, or without; else fields of `TextSettings`.
    """
    found: dict[str, Path] = {}
    for corpus in request.corpora:
        kinds = [name for name, file in FILES.items() if (corpus.root / file).is_file()]
        if len(kinds) != 1:
            then = f"expected {' or '.join(FILES.values())} in it"
            raise CerError("not the files of GoEmotions or MELD", str(corpus.root), then)
        if kinds[0] in found:
            raise CerError(f"{kinds[0]} is named twice", corpus.name, "name it once")
        found[kinds[0]] = corpus.root
    if "GoEmotions" not in found:
        raise CerError("GoEmotions is not among the corpora", NAME, "its dev split is what settings are chosen on")
    how = choice(request.options, "meld", ("decide", "with", "without"))
    if how != "decide" and "MELD" not in found:
        raise CerError(f"meld={how}, but MELD is not among the corpora", NAME, "name it with --corpora")
    return train_text(
        found["GoEmotions"],
        request.weights.path("minilm"),
        request.out,
        found.get("MELD"),
        {"decide": None, "with": True, "without": False}[how],
        apply(TextSettings(), request.options, also=("meld",)),
        request.progress,
    )
