"""Training of the two audio heads on RAVDESS: variants of the clips, folds by actor, members, temperature.

Belongs here: the loop, the choice on inner folds, out-of-fold probabilities and scores. Does not belong here: the
networks (`branches.audio.heads`), losses (`losses`), variants (`augment`) or the encoder
(`branches.audio.whisper_encoder`).

Protocol: 5 folds of 4 actors each. For each outer fold a candidate of `CANDIDATES` is chosen by the UAR on the next
fold, trained on the other three; then `members` networks are trained on all four and predict the outer fold, on the
clips themselves. The actors of an outer fold therefore influence no choice. The shipped head is trained on all actors
with the candidate that was best on average over the inner folds.

A head is more confident about the two sentences of its training clips than about other sentences. Temperatures are
therefore computed from predictions on actors, sentences and recording conditions outside the training clips
(`predict_new_sentences`).

Everything is seeded and runs on one thread: the same data give the same scores. Each encoded variant and each trained
network is a file, so a stopped run goes on with the next one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import softmax

from cer_pipeline import metrics
from cer_pipeline.branches.audio.augment import WINDOW, trimmed, variant
from cer_pipeline.branches.audio.heads import KINDS, AudioHead, ReBiLSTM, Uncertainty, spread
from cer_pipeline.branches.audio.specs import STATE_SIZE, STEPS_PER_WINDOW
from cer_pipeline.corpora.formats.ravdess import Clip, read_ravdess
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, TRAINED_CLASSES
from cer_pipeline.sound_file import SAMPLE_RATE_HZ, SoundFileError, read_sound_file
from cer_pipeline.torch_threads import one_thread
from cer_pipeline.training import loop, losses
from cer_pipeline.training.loop import Loop
from cer_pipeline.training.model_card import class_table, model_card, score_table
from cer_pipeline.training.options import apply
from cer_pipeline.training.progress import Progress, quiet
from cer_pipeline.training.trainer import Request
from cer_pipeline.zoo.head_file import load_head, save_head

FOLDS: Final = 5
TEMPERATURES: Final = tuple(round(0.1 + i / 20, 2) for i in range(99))  # 0.1 (means of 0 to 1 are mild) to 5.0
WARMUP: Final = 0.1  # share of the steps with a rising rate; then a cosine to 0
SMOOTHED_SHARE: Final = 0.25
"""Published: about the first quarter of the epochs trains with smoothed targets and a divergence of 0.01."""


@dataclass(frozen=True)
class AudioSettings:
    """How an audio head is trained.

    Args:
        width: see `branches.audio.heads`.
        dropout: see `branches.audio.heads`.
        rate: peak learning rate of AdamW.
        decay: weight decay.
        batch: clips in a step.
        epochs: passes over the clips; each time a clip is one of its variants, drawn anew.
        clip: largest norm of the gradient.
        divergence: weight of the divergence of the uncertainty loss after warming up.
        variants: random variants of every clip, beside the clip itself.
        members: networks whose probabilities are averaged.
    """

    width: int = 64
    dropout: float = 0.3
    rate: float = 2e-3
    decay: float = 0.01
    batch: int = 64
    epochs: int = 25
    clip: float = 1.0
    divergence: float = 0.5
    variants: int = 3
    members: int = 3


CANDIDATES: Final[Mapping[str, tuple[dict[str, Any], ...]]] = {
    "audio_bilstm": ({"epochs": 25}, {"epochs": 40}),
    "audio_uncertainty": ({"epochs": 25, "divergence": 0.5}, {"epochs": 40, "divergence": 2.0}),
}
"""Branch -> the settings that inner folds choose from."""


@dataclass(frozen=True)
class Corpus:
    """Encoded clips.

    Args:
        states: [variants, n, 20, 384]; variant 0 is the clip itself, without the silence at its ends.
        steps: [variants, n] steps that a variant fills.
        labels: [n] positions in `TRAINED_CLASSES`.
        actors: [n].
        names: [n].
        digest: SHA-256 over the names and contents of the clips.
    """

    states: torch.Tensor
    steps: torch.Tensor
    labels: np.ndarray
    actors: np.ndarray
    names: list[str]
    digest: str

    @property
    def statements(self) -> np.ndarray:
        """[n]: number of the spoken sentence, the fifth number of a name."""
        return np.array([name.split("-")[4] for name in self.names])

    @property
    def degraded(self) -> int:
        """The variant that represents other recording conditions; the clip itself where there is none."""
        return min(1, len(self.states) - 1)


def encode(clips: Sequence[Clip], encoder: Path, folder: Path, variants: int, progress: Progress = quiet) -> Corpus:
    """States of all clips and their variants; those that lie in the folder already are read.

    Args:
        clips: recordings.
        encoder: folder of Whisper.
        folder: folder of the files of states.
        variants: random variants beside the clip itself.
        progress: called with the state of the training.
    """
    from cer_pipeline.branches.audio.whisper_encoder import LAYERS, WhisperStates

    identity = [str(LAYERS), hashlib.sha256((encoder / "model.bin").read_bytes()).hexdigest()]
    identity += [f"{clip.sha256}  {clip.actor}  {clip.name}" for clip in clips]
    known = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    network: WhisperStates | None = None
    states, steps = [], []
    for k in range(variants + 1):
        path = folder / f"variant_{k}.safetensors"
        if path.is_file():
            tensors, meta = load_head(path)
            if meta["clips"] == known:
                states.append(tensors["states"])
                steps.append(tensors["steps"])
                continue
        network = network or WhisperStates(encoder)
        values, counts = (
            np.zeros((len(clips), STEPS_PER_WINDOW, STATE_SIZE), np.float32),
            np.zeros(len(clips), np.int64),
        )
        for i, clip in enumerate(clips):
            if i % 100 == 0:
                progress(f"states of variant {k}", i, len(clips))
            sound = _read(clip)
            cut = trimmed(sound)[:WINDOW] if k == 0 else variant(sound, np.random.default_rng([k, i]))
            encoded = network(cut)
            values[i, : len(encoded)], counts[i] = encoded, len(encoded)
        save_head(path, {"states": values, "steps": counts}, {"clips": known})
        states.append(values)
        steps.append(counts)
    return Corpus(
        torch.from_numpy(np.stack(states)),
        torch.from_numpy(np.stack(steps)),
        np.array([TRAINED_CLASSES.index(clip.label) for clip in clips]),
        np.array([clip.actor for clip in clips]),
        [clip.name for clip in clips],
        hashlib.sha256("\n".join(f"{clip.sha256}  {clip.name}" for clip in clips).encode()).hexdigest(),
    )


def _read(clip: Clip) -> np.ndarray:
    try:
        sound, rate = read_sound_file(clip.path)
    except (SoundFileError, OSError):
        raise CerError("the clip cannot be read as sound", str(clip.path), "fetch it again") from None
    if rate != SAMPLE_RATE_HZ:
        raise CerError(f"the clip has {rate} Hz", str(clip.path), "convert the clips to 16 kHz")
    return sound.mean(1)


def fit(corpus: Corpus, rows: np.ndarray, branch: str, settings: AudioSettings, seed: int) -> ReBiLSTM | Uncertainty:
    """Train one network.

    Args:
        corpus: all clips.
        rows: [m] the clips to train on.
        branch: key of `branches.audio.heads.KINDS`.
        settings: how.
        seed: of initial values, order, variants and dropout.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = KINDS[branch](width=settings.width, dropout=settings.dropout)
    valid = corpus.states[:, rows][torch.arange(STEPS_PER_WINDOW) < corpus.steps[:, rows, None]]
    network.entry.mean.copy_(valid.mean(0))
    network.entry.scale.copy_(valid.std(0))
    targets = torch.eye(len(TRAINED_CLASSES))[torch.from_numpy(corpus.labels)]
    weights = losses.class_weights(targets[rows])
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    per_epoch = -(-len(rows) // settings.batch)

    def batches(_: int) -> list[np.ndarray]:
        return np.array_split(rng.permutation(rows), per_epoch)

    def loss(batch: np.ndarray, epoch: int) -> torch.Tensor:
        drawn = rng.integers(0, len(corpus.states), len(batch))
        out = network(corpus.states[drawn, batch], corpus.steps[drawn, batch])
        return _loss(out, targets[batch], weights, settings.divergence, epoch < SMOOTHED_SHARE * settings.epochs)

    schedule = loop.warmup_cosine(optimiser, per_epoch * settings.epochs, WARMUP)
    parameters = dict(network.named_parameters())
    loop.train(parameters, optimiser, Loop(settings.epochs, settings.clip), batches, loss, schedule)
    return network.eval()


def _loss(out: Any, targets: torch.Tensor, weights: torch.Tensor, divergence: float, warming_up: bool) -> torch.Tensor:
    if isinstance(out, torch.Tensor):
        return losses.soft_focal(out, targets, weights)
    means, log_variances = out
    if warming_up:
        return losses.uncertainty(means, log_variances, losses.smoothed(targets, 0.2), weights, 0.01)
    return losses.uncertainty(means, log_variances, targets, weights, divergence)


@torch.inference_mode()
def outputs(network: ReBiLSTM | Uncertainty, corpus: Corpus, rows: np.ndarray, version: int = 0) -> np.ndarray:
    """Logits (or means) [m, 7] of a trained network on one variant of some clips."""
    out = network(corpus.states[version, rows], corpus.steps[version, rows])
    return (out[0] if isinstance(out, tuple) else out).double().numpy()


class FitCache:
    """Trained networks as files, so that a stopped run resumes.

    Args:
        corpus: all clips.
        branch: which network.
        folder: folder of the files.
    """

    def __init__(self, corpus: Corpus, branch: str, folder: Path) -> None:
        self.corpus, self.branch, self.folder = corpus, branch, folder

    def get(self, rows: np.ndarray, settings: AudioSettings, seed: int) -> ReBiLSTM | Uncertainty:
        """The network of these rows, settings and seed: read, or trained and written."""
        identity = {**asdict(settings), "seed": seed, "branch": self.branch, "data": self.corpus.digest}
        identity["rows"] = [self.corpus.names[i] for i in rows]
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{self.branch}.{name}.safetensors"
        if not path.is_file():
            network = fit(self.corpus, rows, self.branch, settings, seed)
            save_head(path, {k: v.detach().numpy() for k, v in network.state_dict().items()}, identity)
        network = KINDS[self.branch](width=settings.width, dropout=settings.dropout)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in load_head(path)[0].items()})
        return network.eval()


def folds_of(actors: np.ndarray) -> np.ndarray:
    """[n] fold of each clip: every fifth actor, so that women and men (even and odd numbers) are in every fold."""
    return (actors - 1) % FOLDS


def choose(fits: FitCache, settings: AudioSettings, outer: int, progress: Progress = quiet) -> list[float]:
    """UAR of each candidate on the fold after `outer`, trained on the other three.

    Args:
        fits: of a branch.
        settings: what the candidates leave as it is.
        outer: fold whose actors are not used.
        progress: called with the state of the training.
    """
    corpus, inner = fits.corpus, (outer + 1) % FOLDS
    fold = folds_of(corpus.actors)
    train, held = np.flatnonzero((fold != outer) & (fold != inner)), np.flatnonzero(fold == inner)
    scores = []
    for i, candidate in enumerate(CANDIDATES[fits.branch]):
        progress(f"{fits.branch}: candidate {i} within fold {outer}", outer, FOLDS)
        network = fits.get(train, replace(settings, **candidate), seed=0)
        scores.append(_uar(corpus.labels[held], outputs(network, corpus, held).argmax(-1)))
    return scores


def predict_new_sentences(fits: FitCache, settings: Sequence[AudioSettings], progress: Progress = quiet) -> np.ndarray:
    """Outputs [n, 7] of single networks on a variant of clips whose actor and sentence are not in their training.

    Where all clips have one sentence, only the actor is new.

    Args:
        fits: of a branch.
        settings: for each fold of actors.
        progress: called with the state of the training.
    """
    corpus = fits.corpus
    fold, sentences = folds_of(corpus.actors), corpus.statements
    predicted = np.zeros((len(fold), len(TRAINED_CLASSES)))
    for outer, of_fold in enumerate(settings):
        for statement in sorted(set(sentences)):
            progress(f"{fits.branch}: sentence {statement} held out, fold {outer}", outer, FOLDS)
            other = sentences != statement if len(set(sentences)) > 1 else np.ones(len(sentences), bool)
            network = fits.get(np.flatnonzero((fold != outer) & other), of_fold, seed=0)
            held = np.flatnonzero((fold == outer) & (sentences == statement))
            predicted[held] = outputs(network, corpus, held, version=corpus.degraded)
    return predicted


def _uar(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(metrics.uar(metrics.confusion(truth, guess, len(TRAINED_CLASSES)), range(len(TRAINED_CLASSES))))


def averaged(members: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """Outputs [n, 7] of each member -> mean of their softmax at a temperature [n, 7]."""
    return np.mean([softmax(member / temperature, axis=-1) for member in members], axis=0)


def best_temperature(members: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The temperature at which the averaged probabilities of the labels are likeliest, classes weighing the same."""
    counts = np.bincount(labels, minlength=len(TRAINED_CLASSES))
    weights = 1 / counts[labels]
    at = np.arange(len(labels))
    return min(TEMPERATURES, key=lambda t: -(weights * np.log(averaged(members, t)[at, labels] + 1e-12)).sum())


def train_audio(
    data_dir: Path,
    encoder: Path,
    out_dir: Path,
    settings: AudioSettings | None = None,
    branches: Sequence[str] = tuple(KINDS),
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Train, score and write both audio heads.

    For each branch: `BRANCH.safetensors`, its card `BRANCH.md`, `BRANCH.scores.json`, and `BRANCH.predictions.parquet`
    (id, actor, fold, label, the 8 out-of-fold probabilities). A stopped run goes on when called again.

    Args:
        data_dir: RAVDESS, folders `Actor_NN`.
        encoder: folder of Whisper tiny.en.
        out_dir: folder for everything that is written.
        settings: how to train.
        branches: keys of `branches.audio.heads.KINDS`.
        progress: called with the state of the training.

    Returns:
        Branch -> what stands in its scores file; scores in percent, [value, low, high].

    Raises:
        CerError: no clips, a clip that cannot be read, or too few actors for the folds.
    """
    settings = settings or AudioSettings()
    clips = read_ravdess(data_dir)
    fold = folds_of(np.array([clip.actor for clip in clips]))
    labels = np.array([clip.label for clip in clips])
    for k in range(FOLDS):
        absent = [BASIC[c] for c in TRAINED_CLASSES if not (labels[fold == k] == c).any()]
        if absent:
            who = f"{', '.join(absent)} by actors {k + 1}, {k + 1 + FOLDS}, ..."
            raise CerError("a fold has no clip of a class", who, "add the clips of these actors")
    corpus = encode(clips, encoder, out_dir / "states", settings.variants, progress)
    with one_thread():
        return {
            branch: _train(FitCache(corpus, branch, out_dir / "fits"), settings, out_dir, progress)
            for branch in branches
        }


def _train(fits: FitCache, settings: AudioSettings, out: Path, progress: Progress) -> dict[str, Any]:
    branch, corpus = fits.branch, fits.corpus
    fold = folds_of(corpus.actors)
    inner = [choose(fits, settings, outer, progress) for outer in range(FOLDS)]
    chosen = [int(np.argmax(scores)) for scores in inner]
    # Out-of-fold outputs of each member, on the clip itself and on a variant of it.
    clean, degraded = (np.zeros((settings.members, len(fold), len(TRAINED_CLASSES))) for _ in range(2))
    for outer in range(FOLDS):
        chosen_settings = replace(settings, **CANDIDATES[branch][chosen[outer]])
        held = np.flatnonzero(fold == outer)
        for seed in range(settings.members):
            progress(f"{branch}: member {seed} for fold {outer}", outer, FOLDS)
            network = fits.get(np.flatnonzero(fold != outer), chosen_settings, seed)
            clean[seed, held] = outputs(network, corpus, held)
            degraded[seed, held] = outputs(network, corpus, held, version=corpus.degraded)
    on_new_sentences = predict_new_sentences(
        fits, [replace(settings, **CANDIDATES[branch][k]) for k in chosen], progress
    )
    p = np.zeros(clean.shape[1:])
    for outer in range(FOLDS):  # each fold at the temperature of the others
        others = fold != outer
        at = best_temperature([on_new_sentences[others]], corpus.labels[others])
        p[~others] = averaged(list(clean[:, ~others]), at)
    temperature = best_temperature([on_new_sentences], corpus.labels)

    final = int(np.argmax(np.mean(inner, axis=0)))
    chosen_settings = replace(settings, **CANDIDATES[branch][final])
    tensors: dict[str, np.ndarray] = {}
    for seed in range(settings.members):
        progress(f"{branch}: member {seed} on all actors", seed, settings.members)
        network = fits.get(np.arange(len(fold)), chosen_settings, seed)
        for name, value in network.state_dict().items():
            tensors[f"{seed}/{name}"] = value.numpy().astype(np.float16)
    meta = {
        "branch": branch,
        "members": settings.members,
        "width": chosen_settings.width,
        "temperature": temperature,
        "encoder": "whisper_tiny_en",
        "settings": asdict(chosen_settings),
        "classes": [BASIC[c] for c in TRAINED_CLASSES],
    }
    save_head(out / f"{branch}.safetensors", tensors, meta)
    AudioHead.load(out / f"{branch}.safetensors")

    scores = {
        "settings": asdict(chosen_settings),
        "candidates": list(CANDIDATES[branch]),
        "chosen": chosen,
        "inner_uar": [[round(100 * v, 2) for v in row] for row in inner],
        "temperature": temperature,
        "clips": len(fold),
        "digest": corpus.digest,
        **_scores(p, corpus),
    }
    scores["member_uar"] = [round(100 * _uar(corpus.labels, member.argmax(-1)), 2) for member in clean]
    scores["unheard_uar"] = round(100 * _uar(corpus.labels, on_new_sentences.argmax(-1)), 2)
    scores["rough_uar"] = round(100 * _uar(corpus.labels, averaged(list(degraded), temperature).argmax(-1)), 2)
    columns: dict[str, Any] = {"id": corpus.names, "actor": corpus.actors, "fold": fold}
    columns["label"] = [BASIC[TRAINED_CLASSES[label]] for label in corpus.labels]
    full = spread(p)
    columns |= {name: full[:, i] for i, name in enumerate(BASIC_COLUMNS)}
    pq.write_table(pa.table(columns), out / f"{branch}.predictions.parquet")
    (out / f"{branch}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{branch}.md").write_text(card(branch, scores), "utf-8")
    return scores


def _scores(p: np.ndarray, corpus: Corpus) -> dict[str, Any]:
    names, guess = {k: BASIC[c] for k, c in enumerate(TRAINED_CLASSES)}, p.argmax(-1)
    return {
        **metrics.card_scores(corpus.labels, guess, corpus.actors, names, size=len(names)),
        "confusion": metrics.confusion(corpus.labels, guess, len(names)).tolist(),
        "ece": round(100 * float(metrics.expected_calibration_error(p, corpus.labels)), 2),
    }


_TITLES: Final = {
    "audio_bilstm": "Residual BiLSTM with attentive statistics pooling",
    "audio_uncertainty": "Attention within thirds, class-wise means and log-variances",
}


def card(branch: str, scores: dict[str, Any]) -> str:
    """Return the model card of a trained audio head."""
    settings = scores["settings"]
    return model_card(
        branch,
        f"""{_TITLES[branch]}, over the states of two blocks of the Whisper tiny.en encoder (MIT): the sound of a
        window to 7 basic emotions. "Other" is never trained and gets probability 0.""",
        data=[
            f"""RAVDESS speech (Livingstone & Russo 2018), actors 1 to 20, CC BY-NC-SA 4.0: the head too may be used
            for non-commercial purposes only. {scores["clips"]} recordings; a recording that occurs twice counts
            once. Calm counts as Neutral.""",
            f"""Every clip and {settings["variants"]} random variants of it (speed, spectral tilt, echo, noise,
            silence at its ends), all at one level: in the wild the level of a recording says nothing about the
            emotion.""",
        ],
        digests={"names and contents": scores["digest"]},
        settings=settings,
        protocol=[
            """5 folds of 4 actors. Within each, a candidate is chosen on one fold of the training actors; the
            held-out actors choose nothing. The temperature of a fold comes from the other folds: from networks
            whose training clips had neither the actor nor the sentence, on a variant of each clip. It is therefore
            milder than one from clean acted speech.""",
            f"Candidates {scores['candidates']}; chosen by fold {scores['chosen']}.",
            f"Shipped temperature {scores['temperature']}, {settings['members']} members.",
        ],
        scores=[
            "Out of fold; 95 % intervals over resampled actors.",
            score_table(
                ["score", "value"],
                [
                    ("UAR, 7 classes", scores["uar"]),
                    ("macro-F1", scores["macro_f1"]),
                    ("calibration error (ECE)", scores["ece"]),
                    ("UAR on a random variant of each clip", scores["rough_uar"]),
                    ("UAR of one network on a variant, actor and sentence not in training", scores["unheard_uar"]),
                    *((f"UAR of member {i} alone", value) for i, value in enumerate(scores["member_uar"])),
                ],
            ),
            class_table(scores["f1"], scores["recall"]),
        ],
        limits="""20 North American actors say two sentences in a studio, with emotions that they were asked to
        show. The training data has no other words, no spontaneous speech, no music or second voice, and no other
        language. On speech in the wild expect much lower scores than these.""",
    )


def train(request: Request) -> dict[str, Any]:
    """Entry of `cer train audio_bilstm` and `audio_uncertainty`: one corpus of the format `ravdess`.

    Options: fields of `AudioSettings`, but for those of the candidates, which are chosen by inner folds.
    """
    if len(request.corpora) != 1:
        names = ", ".join(corpus.name for corpus in request.corpora)
        raise CerError(f"{request.branch} is trained on one corpus of recordings", names, "name one")
    settings = apply(AudioSettings(), request.options)
    tried = sorted({name for candidate in CANDIDATES[request.branch] for name in candidate} & set(request.options))
    if tried:
        raise CerError("inner folds choose this option", ", ".join(tried), "leave it out")
    folder, encoder = request.corpora[0].root, request.weights.path("whisper_tiny_en")
    return train_audio(folder, encoder, request.out, settings, [request.branch], request.progress)[request.branch]
