"""Train MHPF on registered corpora: cross-validation, comparison of systems, and the head with its model card.

Belongs here: the entry of `cer train mhpf`, and the files that it writes. Does not belong here: the training data
(`data`) or the fitting (`fit`).

    cer train mhpf --corpora NAME[,NAME…] [--set method=static] [--set branches=face_static,audio_bilstm]
    cer train mhpf --corpora VOTES --set voice=audio_bilstm --set face=face_static [--set last_actor=1050]

The scores are computed on held-out segments: source videos (speakers of votes) are distributed over outer folds, and
the fusions that predict a fold are trained on the others. The head is trained on all folds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import Array, equal_weights
from cer_pipeline.fusion.mhpf import DYNAMIC, MHPF, STATIC, save_mhpf
from cer_pipeline.fusion.train.data import FusionData, check, read
from cer_pipeline.fusion.train.fit import LIKELIHOOD, PUBLISHED, Settings, train_mhpf
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.markdown import table
from cer_pipeline.metrics import RESAMPLES, bootstraps, confusion, f1, macro_f1, paired_bootstrap, uar
from cer_pipeline.training.folds import random_group_folds
from cer_pipeline.training.model_card import model_card, score_text
from cer_pipeline.training.options import apply, whole
from cer_pipeline.training.trainer import Request

NAME: Final = "mhpf"
FOLDS: Final = 5
PRODUCT_FLOOR: Final = 1e-3  # added before the logarithm, so that one probability of 0 does not exclude a class
MEAN: Final = "mean"
PRODUCT: Final = "product"
SYSTEMS: Final[Mapping[str, Settings]] = {
    "MHPF static, published loss": Settings(STATIC, PUBLISHED, heads=3, balance=1.0, dropout=0.0),
    "MHPF static, likelihood": Settings(STATIC, LIKELIHOOD, heads=3, balance=0.0),
    "MHPF dynamic": Settings(DYNAMIC, LIKELIHOOD),
}
"""Fusions that are always compared; options of the user change the one that becomes the head."""
OPTIONS: Final = ("branches", "voice", "face", "last_actor", "folds")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """The predictions of every system for some held-out segments.

    Args:
        rows: indices of the segments.
        values: system -> distributions (product: scores) [n, 8], NaN without a value.
        head: name of the system with the settings of the head.
    """

    rows: NDArray[np.int64]
    values: Mapping[str, Array]
    head: str


def train(request: Request) -> dict[str, Any]:
    """Entry of `cer train mhpf`.

    Options: `branches` (names with commas; by default all that the corpora have), `voice` and `face` (the branches that
    votes represent), `last_actor` (of votes: later actors are only scored), `folds`, and fields of `fit.Settings`, such
    as `method`.

    Raises:
        CerError: an invalid option, or corpora that cannot be trained on; nothing is written then.
    """
    options = request.options
    base = Settings(STATIC, LIKELIHOOD, heads=3, balance=0.0) if options.get("method") == STATIC else Settings()
    settings = apply(base, options, also=OPTIONS)
    names = tuple(b.strip() for b in options.get("branches", "").split(",") if b.strip())
    renamed = {modality: options[modality] for modality in ("voice", "face") if options.get(modality)}
    last_actor = whole(options, "last_actor", 0) if "last_actor" in options else None
    data = read(request.home, request.corpora, names, renamed, last_actor)
    return train_fusion(data, request.out, settings, whole(options, "folds", FOLDS), request.progress)


def train_fusion(
    data: FusionData, out: Path, settings: Settings | None = None, folds: int = FOLDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Cross-validate, train and write a fusion.

    Files that are written at the end: `mhpf.predictions.parquet` (corpus, segment_id, video_id, fold, label, the 8
    out-of-fold probabilities), `mhpf.scores.json`, `mhpf.md` and `mhpf.safetensors`.

    Args:
        data: probabilities of the branches, and labels.
        out: folder of the files.
        settings: settings of the head.
        folds: outer folds.
        progress: callback with the step, the number of finished units and the number of all units.

    Returns:
        Content of the scores file; scores in percent, [value, low, high].

    Raises:
        CerError: the data cannot be trained on.
    """
    report = progress or (lambda _what, _done, _all: None)
    settings = settings or Settings()
    check(data)
    if len(data.branches) < 2:
        raise CerError(
            "one branch alone cannot be fused", ", ".join(data.branches), "name corpora with several branches"
        )
    served = data.served
    train_rows, held = np.flatnonzero(served & ~data.held), np.flatnonzero(served & data.held)
    if folds < 2:
        raise CerError("there must be at least 2 folds", str(folds), "set folds=5")
    fold = random_group_folds(data.groups[train_rows], folds, settings.seed)
    parts = []
    for i in range(folds):
        report("cross-validation", i, folds)
        parts.append(compare(data, train_rows[fold != i], train_rows[fold == i], settings))
    inner = _joined(parts)
    report("fitting", 0, 1)
    fusion = _fit(data, train_rows, settings)
    scores = {
        "settings": asdict(settings),
        "head": inner.head,
        "branches": dict(data.sources),
        "folds": folds,
        "rows": {"train": len(train_rows), "no branch": int(np.count_nonzero(~served)), "held": len(held)},
        "digest": data.digest(),
        "out_of_fold": scores_of(data, inner),
    }
    if len(held):
        report("scoring held-out speakers", 0, 1)
        scores["held"] = scores_of(data, compare(data, train_rows, held, settings))
    _write(out, data, inner, train_rows, fold, fusion, scores)
    report("done", 1, 1)
    return scores


def compare(data: FusionData, train_rows: NDArray[np.int64], rows: NDArray[np.int64], settings: Settings) -> Comparison:
    """Predictions of the branches, of two untrained fusions, and of the fusions trained on `train_rows`, for `rows`."""
    p, present = data.probabilities[rows], data.present[rows]
    known = np.where(present[..., None], p, 0.0)
    values: dict[str, Array] = {branch: p[:, i] for i, branch in enumerate(data.branches)}
    values[MEAN] = (equal_weights(present, len(BASIC)) * known).sum(axis=1)
    values[PRODUCT] = np.where(present[..., None], np.log(known + PRODUCT_FLOOR), 0.0).sum(axis=1)
    systems = {name: replace(system, seed=settings.seed) for name, system in SYSTEMS.items()}
    head = next((name for name, system in systems.items() if system == settings), f"MHPF {settings.method} as set")
    for name, system in {**systems, head: settings}.items():
        values[name] = _fit(data, train_rows, system).fuse(p, present)[0]
    return Comparison(rows, values, head)


def scores_of(data: FusionData, comparison: Comparison) -> dict[str, Any]:
    """Scores of every system, and the differences of the head to all others, on the segments that both serve."""
    truth, groups = data.classes[comparison.rows], data.groups[comparison.rows]
    over = sorted({int(c) for c in data.classes})
    head = comparison.values[comparison.head].argmax(axis=1)
    out: dict[str, Any] = {}
    for name, values in comparison.values.items():
        serves = np.isfinite(values[:, 0])
        if not serves.any():
            continue
        guess = np.where(serves[:, None], np.nan_to_num(values), 0.0).argmax(axis=1)
        y, g, predicted = truth[serves], groups[serves], guess[serves]
        wanted = {"macro_f1": (macro_f1, over), "uar": (uar, over)}
        cells: dict[str, Any] = {metric: score.percent for metric, score in bootstraps(wanted, y, predicted, g).items()}
        cells |= {"coverage": round(float(serves.mean()), 4), "n": int(serves.sum())}
        if name == comparison.head:
            matrix = confusion(y, predicted)
            cells["f1"] = {BASIC[c]: round(100 * float(f1(matrix, [c])[0]), 2) for c in over}
        else:
            cells["beaten_by"] = paired_bootstrap(macro_f1, y, head[serves], predicted, g, over).percent
        out[name] = cells
    return out


def _fit(data: FusionData, rows: NDArray[np.int64], settings: Settings) -> MHPF:
    groups = data.groups[rows]
    # Every head leaves out one of as many folds of the groups, so there are at most as many heads as groups.
    settings = replace(settings, heads=min(settings.heads, len(set(groups))))
    args = data.probabilities[rows], data.present[rows], data.targets[rows], groups
    return train_mhpf(*args, data.branches, BASIC, settings)


def _joined(parts: list[Comparison]) -> Comparison:
    names = parts[0].values
    values = {name: np.concatenate([p.values[name] for p in parts]) for name in names}
    return Comparison(np.concatenate([p.rows for p in parts]), values, parts[0].head)


def _write(
    out: Path,
    data: FusionData,
    inner: Comparison,
    rows: NDArray[np.int64],
    fold: NDArray[np.int64],
    fusion: MHPF,
    scores: Mapping[str, Any],
) -> None:
    """Write all files of a finished training, the weights last."""
    out.mkdir(parents=True, exist_ok=True)
    order = np.argsort(inner.rows)
    values = inner.values[inner.head][order]
    columns: dict[str, Any] = {
        "corpus": [data.corpora[i] for i in rows],
        "segment_id": [data.segments[i] for i in rows],
        "video_id": [data.videos[i] for i in rows],
        "fold": fold,
        "label": [BASIC[c] for c in data.classes[rows]],
    }
    columns |= {name: values[:, i] for i, name in enumerate(BASIC_COLUMNS)}
    pq.write_table(pa.table(columns), out / f"{NAME}.predictions.parquet")
    (out / f"{NAME}.scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    (out / f"{NAME}.md").write_text(card(fusion, scores), "utf-8")
    save_mhpf(out / f"{NAME}.safetensors", fusion, {"branch": NAME, "trained_on": scores["digest"]})


def card(fusion: MHPF, scores: Mapping[str, Any]) -> str:
    """Return the model card."""
    unknown = [c for c, known in zip(fusion.classes, fusion.known, strict=True) if not known]
    rows = scores["rows"]
    tables = [
        block
        for split, title in (("out_of_fold", "Out of fold:"), ("held", "Speakers held back:"))
        if split in scores
        for block in (title, _systems(scores[split]))
    ]
    return model_card(
        f"mhpf: {fusion.method} fusion of {', '.join(fusion.branches)}",
        """Weights of the branches for every segment and class; they are convex, so every fused value is the sum of
        what its branches add. `cer_pipeline/fusion/mhpf.py` holds the formulas."""
        + (f" Without a training segment, fused with equal weights: {', '.join(unknown)}." if unknown else ""),
        data=[
            f"""{rows["train"]} labelled segments ({rows["no branch"]} more have no branch). The licence of the
            corpora holds for this head too.""",
            *(f"Probabilities of {branch}: {source}" for branch, source in scores["branches"].items()),
        ],
        digests={"probabilities and labels": scores["digest"]},
        settings=scores["settings"],
        protocol=[
            f"""{scores["folds"]} outer folds that keep source videos (speakers of votes) whole; 95 % intervals over
            resampled groups ({RESAMPLES} resamples). A branch is scored on the segments that it serves, and
            `{scores["head"]}` (this head) is compared with it there, in macro-F1."""
        ],
        scores=tables,
    )


def _systems(scores: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ["system", "macro-F1", "UAR", "coverage", "this head is better by"]
    rows = []
    for system, cells in scores.items():
        better = score_text(cells["beaten_by"]) if "beaten_by" in cells else "-"
        share = f"{100 * cells['coverage']:.0f}"
        rows.append([system, score_text(cells["macro_f1"]), score_text(cells["uar"]), share, better])
    return table(columns, rows, columns[1:])
