"""Comparison of the mappings to compounds on labelled sentences; the default profile follows its rule.

Belongs here: the comparison. Does not belong here: the mappings (`compound`) or the profile.

C-EXPR-DB is available without labels only, so no choice can be made on that corpus. GoEmotions has compound labels:
sentences to which readers gave exactly two Ekman labels that make one of the seven compounds. A classifier (frozen
MiniLM, balanced logistic regression) is trained on sentences with exactly one label, so without compounds, as in the
task itself; a sentence whose text is in both sets leaves training. Then every option maps its probabilities to
compounds.

The rule was fixed before the first run: the default stays PPA as it is, unless an option has a higher macro-F1 over the
seven compounds with a paired 95 % interval above 0; of several such options, the one of highest macro-F1. The strength
of the prior correction is cross-fitted: chosen on one half of the sentences, applied to the other, and vice versa.
Temporal smoothing cannot be compared on sentences: see docs/methods.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cer_pipeline import metrics
from cer_pipeline.branches.sentences.minilm import MiniLM
from cer_pipeline.compound.adjust import corrected, prior
from cer_pipeline.compound.pfsa import pfsa
from cer_pipeline.compound.ppa import PAIRS, ppa
from cer_pipeline.compound.prototypes import train_prototypes
from cer_pipeline.corpora.formats.utterances import Utterance, read_goemotions
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.training.embedding_cache import EmbeddingCache
from cer_pipeline.training.folds import grouped_folds, out_of_fold
from cer_pipeline.training.progress import Progress, quiet

ROWS: Final = 12_000  # single-label sentences that train the classifier; more change its scores by less than a point
STRENGTHS: Final = (0.25, 0.5, 0.75, 1.0)
PLAIN: Final = "PPA"
CROSS_FITTED: Final = "PPA, prior correction chosen on the other half"
COMPOUNDS: Final = range(len(COMPOUND))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def compound_of(labels: Sequence[int]) -> int | None:
    """Return the compound of basic labels that are exactly the two of a pair; None for other labels."""
    return next((k for k, pair in enumerate(PAIRS) if set(labels) == set(pair)), None)


def rows_of(rows: Sequence[Utterance], limit: int = ROWS) -> tuple[list[Utterance], list[tuple[Utterance, int]]]:
    """Return the training rows with one label, and the test rows with the compound of their two labels.

    Args:
        rows: labelled sentences.
        limit: number of training rows at most; the first ones are taken.

    Raises:
        CerError: a compound has no sentence.
    """
    test = [(row, k) for row in rows if (k := compound_of(row.labels)) is not None]
    missing = [name for k, name in enumerate(COMPOUND) if k not in {compound for _, compound in test}]
    if missing:
        raise CerError("no sentence of a compound", ", ".join(missing), "use GoEmotions train and dev")
    held = {row.text.casefold() for row, _ in test}
    train = [row for row in rows if len(row.labels) == 1 and row.text.casefold() not in held]
    return train[:limit], test


def classify(train: Floats, labels: Ints, test: Floats) -> Floats:
    """Return probabilities over `BASIC` [n, 8] of test rows by balanced logistic regression on standardised states."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = train.mean(0), train.std(0) + 1e-9
    model = LogisticRegression(C=0.05, class_weight="balanced", max_iter=300)
    model.fit((train - mean) / spread, labels)
    full = np.zeros((len(test), len(BASIC)))
    full[:, model.classes_] = model.predict_proba((test - mean) / spread)
    return full


def options(train: Floats, labels: Ints, groups: Sequence[str], test: Floats, truth: Ints) -> dict[str, Floats]:
    """Return compound distributions [n, 7] of the test rows by every option.

    Args:
        train: states of the rows with one label [m, d].
        labels: their label, a position in `BASIC` [m].
        groups: their text; equal texts are in one fold.
        test: states of the rows with a compound [n, d].
        truth: their compound [n]; used for the cross-fitted strength alone.
    """
    basic = classify(train, labels, test)
    plain = ppa(basic)
    made = {PLAIN: plain}
    for strength in STRENGTHS:
        made[f"PPA, prior correction {strength:g}"] = corrected(plain, prior(plain), strength)
    made[CROSS_FITTED] = _cross_fitted(plain, truth)
    folds = grouped_folds(labels, groups)
    inner = out_of_fold(lambda a, b: classify(train[a], labels[a], train[b]), folds)
    mean, spread = train.mean(0), train.std(0) + 1e-9
    features = [standard / np.linalg.norm(standard, axis=1, keepdims=True) for standard in
                ((train - mean) / spread, (test - mean) / spread)]  # fmt: skip
    prototypes, temperature = train_prototypes(features[0], labels, inner.argmax(1), folds)
    similar = pfsa(features[1], prototypes, temperature)
    made["PFSA"] = similar
    made["PFSA, prior correction 1"] = corrected(similar, prior(similar), 1.0)
    return made


def _cross_fitted(plain: Floats, truth: Ints) -> Floats:
    """Each half corrected by the best strength of the other; the prior needs no labels and is that of all rows."""
    mean, out = prior(plain), np.empty_like(plain)
    for half in (0, 1):
        rows, other = np.arange(half, len(plain), 2), np.arange(1 - half, len(plain), 2)
        strengths = (0.0, *STRENGTHS)
        scores = [_macro_f1(corrected(plain[other], mean, s), truth[other]) for s in strengths]
        out[rows] = corrected(plain[rows], mean, strengths[int(np.argmax(scores))])
    return out


def _macro_f1(values: Floats, truth: Ints) -> float:
    return float(metrics.macro_f1(metrics.confusion(truth, values.argmax(1), len(COMPOUND)), COMPOUNDS))


def compare(predicted: dict[str, Floats], truth: Ints) -> dict[str, dict[str, Any]]:
    """Return macro-F1 and UAR of every option in percent, [value, low, high], and the difference in macro-F1 to PPA."""
    rows = [str(i) for i in range(len(truth))]
    size = len(COMPOUND)
    out: dict[str, dict[str, Any]] = {}
    for name, values in predicted.items():
        guess = values.argmax(1)
        scores = metrics.bootstraps(
            {"macro_f1": (metrics.macro_f1, COMPOUNDS), "uar": (metrics.uar, COMPOUNDS)}, truth, guess, rows, size=size
        )
        out[name] = {metric: score.percent for metric, score in scores.items()}
        if name != PLAIN:
            plain = predicted[PLAIN].argmax(1)
            difference = metrics.paired_bootstrap(metrics.macro_f1, truth, guess, plain, rows, COMPOUNDS, size=size)
            out[name]["macro_f1_over_ppa"] = difference.percent
    return out


def decide(scores: dict[str, dict[str, Any]]) -> str:
    """Return the option that the rule of this module chooses."""
    better = [name for name, values in scores.items() if name != PLAIN and values["macro_f1_over_ppa"][1] > 0]
    return max(better, key=lambda name: scores[name]["macro_f1"][0], default=PLAIN)


def compare_on_goemotions(goemotions: Path, minilm: Path, out: Path, progress: Progress = quiet) -> dict[str, Any]:
    """Run the comparison on GoEmotions train and dev and write `compound_options.json`.

    Args:
        goemotions: folder of the GoEmotions files.
        minilm: folder of MiniLM.
        out: folder for the result and the cached states.
        progress: gets the step, and how much of it is done.
    """
    rows = [row for split in ("train", "dev") for row in read_goemotions(goemotions, split)]
    train, test = rows_of(rows)
    labels = np.array([row.labels[0] for row in train])
    truth = np.array([k for _, k in test])
    states = encoded([train, [row for row, _ in test]], minilm, out, progress)
    progress("comparing", 0, 1)
    scores = compare(options(states[0], labels, [row.text.casefold() for row in train], states[1], truth), truth)
    counts = Counter(COMPOUND[k] for k in truth)
    result = {"train": len(train), "test": len(test), "compounds": dict(counts), "options": scores}
    result["chosen"] = decide(scores)
    (out / "compound_options.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return result


def encoded(parts: Sequence[Sequence[Utterance]], minilm: Path, out: Path, progress: Progress = quiet) -> list[Floats]:
    """Return the MiniLM vectors of each part [n, 384]; they are cached in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    embed = EmbeddingCache(
        out / "compound_options.states.safetensors", lambda: MiniLM(minilm).encode_all, "minilm", progress
    )
    return [np.asarray(embed([row.text for row in part]), np.float64) for part in parts]
