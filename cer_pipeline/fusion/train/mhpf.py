"""Training of the fusion on registered corpora: cross-validation, comparison, and the head with its card.

Belongs here: the entry of `cer train mhpf`, and what it writes. Does not belong here: what is learned from
(`data`), or how (`fit`).

    cer train mhpf --corpora NAME[,NAME…] [--set method=static] [--set branches=face_static,audio_bilstm]
    cer train mhpf --corpora VOTES --set voice=audio_bilstm --set face=face_static [--set last_actor=1050]

The scores are of segments that were held out: source videos (speakers of votes) are dealt out to outer folds, and each
fold is judged by fusions that were trained on the others. The head is trained on all of them.
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
from cer_pipeline.fusion.train.fit import LIKELIHOOD, PUBLISHED, Settings, grouped_folds, train_mhpf
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.markdown import table
from cer_pipeline.metrics import RESAMPLES, bootstraps, f1, macro_f1, paired_bootstrap, uar
from cer_pipeline.training.model_card import model_card, score_text
from cer_pipeline.training.options import apply, whole
from cer_pipeline.training.trainer import Request

NAME: Final = "mhpf"
FOLDS: Final = 5
PRODUCT_FLOOR: Final = 1e-3  # added before the logarithm, so that one probability of 0 is no veto
MEAN: Final = "mean"
PRODUCT: Final = "product"
SYSTEMS: Final[Mapping[str, Settings]] = {
    "MHPF static, published loss": Settings(STATIC, PUBLISHED, heads=3, balance=1.0, dropout=0.0),
    "MHPF static, likelihood": Settings(STATIC, LIKELIHOOD, heads=3, balance=0.0),
    "MHPF dynamic": Settings(DYNAMIC, LIKELIHOOD),
}
"""Fusions that are always compared; what the user sets changes the one that is shipped."""
OPTIONS: Final = ("branches", "voice", "face", "last_actor", "folds")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Compared:
    """What every system says of some held-out segments.

    Args:
        rows: their positions.
        values: system -> distributions (of the product: scores) [n, 8], NaN where it has none.
        shipped: name of the one whose settings the head has.
    """

    rows: NDArray[np.int64]
    values: Mapping[str, Array]
    shipped: str


def train(request: Request) -> dict[str, Any]:
    """Entry of `cer train mhpf`.

    Options: `branches` (names with commas; all that the corpora have unless given), `voice` and `face` (the branches
    that votes stand for), `last_actor` (of votes: later ones are only for the last report), `folds`, else fields of
    `training.Settings`, such as `method`.

    Raises:
        CerError: a mistake in the options, or corpora that cannot be learned from; nothing is written then.
    """
    options = request.options
    base = Settings(STATIC, LIKELIHOOD, heads=3, balance=0.0) if options.get("method") == STATIC else Settings()
    settings = apply(base, options, also=OPTIONS)
    names = tuple(b.strip() for b in options.get("branches", "").split(",") if b.strip())
    renamed = {modality: options[modality] for modality in ("voice", "face") if options.get(modality)}
    last = whole(options, "last_actor", 0) if "last_actor" in options else None
    data = read(request.home, request.corpora, names, renamed, last)
    return train_fusion(data, request.out, settings, whole(options, "folds", FOLDS), request.progress)


def train_fusion(
    data: FusionData, out: Path, settings: Settings | None = None, folds: int = FOLDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Cross-validate, train and write a fusion.

    Written when all is done: `mhpf.predictions.parquet` (corpus, segment_id, video_id, fold, label, the 8 out-of-fold
    probabilities), `mhpf.scores.json`, `mhpf.md` and `mhpf.safetensors`.

    Args:
        data: what the branches say, and labels.
        out: folder for everything that is written.
        settings: how the head is trained.
        folds: outer folds.
        progress: told what is going on.

    Returns:
        What stands in the scores file; scores in percent, [value, low, high].

    Raises:
        CerError: the data cannot be learned from.
    """
    tell = progress or (lambda _what, _done, _all: None)
    settings = settings or Settings()
    check(data)
    if len(data.branches) < 2:
        raise CerError(
            "one branch alone cannot be fused", ", ".join(data.branches), "name corpora with several branches"
        )
    served = data.served
    mine, held = np.flatnonzero(served & ~data.held), np.flatnonzero(served & data.held)
    if folds < 2:
        raise CerError("there must be at least 2 folds", str(folds), "set folds=5")
    fold = grouped_folds(data.groups[mine], folds, settings.seed)
    parts = []
    for i in range(folds):
        tell("cross-validation", i, folds)
        parts.append(compared(data, mine[fold != i], mine[fold == i], settings))
    inner = _together(parts)
    tell("fitting", 0, 1)
    fusion = _fit(data, mine, settings)
    scores = {
        "settings": asdict(settings),
        "head": inner.shipped,
        "branches": dict(data.sources),
        "folds": folds,
        "rows": {"train": len(mine), "no branch": int(np.count_nonzero(~served)), "held": len(held)},
        "digest": data.digest(),
        "out_of_fold": scored(data, inner),
    }
    if len(held):
        tell("scoring held-out speakers", 0, 1)
        scores["held"] = scored(data, compared(data, mine, held, settings))
    _write(out, data, inner, mine, fold, fusion, scores)
    tell("done", 1, 1)
    return scores


def compared(data: FusionData, train_rows: NDArray[np.int64], rows: NDArray[np.int64], settings: Settings) -> Compared:
    """What the branches, two sums without training, and the fusions trained on some rows say of others."""
    p, present = data.probabilities[rows], data.present[rows]
    known = np.where(present[..., None], p, 0.0)
    values: dict[str, Array] = {branch: p[:, i] for i, branch in enumerate(data.branches)}
    values[MEAN] = (equal_weights(present, len(BASIC)) * known).sum(axis=1)
    values[PRODUCT] = np.where(present[..., None], np.log(known + PRODUCT_FLOOR), 0.0).sum(axis=1)
    systems = {name: replace(own, seed=settings.seed) for name, own in SYSTEMS.items()}
    shipped = next((name for name, own in systems.items() if own == settings), f"MHPF {settings.method} as set")
    for name, own in {**systems, shipped: settings}.items():
        values[name] = _fit(data, train_rows, own).fuse(p, present)[0]
    return Compared(rows, values, shipped)


def scored(data: FusionData, found: Compared) -> dict[str, Any]:
    """Scores of every system, and the differences of the head's to all others, on the segments that both serve."""
    truth, groups = data.classes[found.rows], data.groups[found.rows]
    over = sorted({int(c) for c in data.classes})
    best = found.values[found.shipped].argmax(axis=1)
    out: dict[str, Any] = {}
    for name, values in found.values.items():
        serves = np.isfinite(values[:, 0])
        if not serves.any():
            continue
        guess = np.where(serves[:, None], np.nan_to_num(values), 0.0).argmax(axis=1)
        y, g, mine = truth[serves], groups[serves], guess[serves]
        wanted = {"macro_f1": (macro_f1, over), "uar": (uar, over)}
        cells: dict[str, Any] = {metric: score.percent for metric, score in bootstraps(wanted, y, mine, g).items()}
        cells |= {"coverage": round(float(serves.mean()), 4), "n": int(serves.sum())}
        if name == found.shipped:
            matrix = np.zeros((len(BASIC), len(BASIC)), np.int64)
            np.add.at(matrix, (y, mine), 1)
            cells["f1"] = {BASIC[c]: round(100 * float(f1(matrix, [c])[0]), 2) for c in over}
        else:
            pair = paired_bootstrap(macro_f1, y, best[serves], mine, g, over)
            cells["beaten_by"] = pair.percent
        out[name] = cells
    return out


def _fit(data: FusionData, rows: NDArray[np.int64], settings: Settings) -> MHPF:
    groups = data.groups[rows]
    # A head leaves out a share of the groups: few groups make few heads.
    settings = replace(settings, heads=min(settings.heads, len(set(groups))))
    args = data.probabilities[rows], data.present[rows], data.targets[rows], groups
    return train_mhpf(*args, data.branches, BASIC, settings)


def _together(parts: list[Compared]) -> Compared:
    names = parts[0].values
    values = {name: np.concatenate([p.values[name] for p in parts]) for name in names}
    return Compared(np.concatenate([p.rows for p in parts]), values, parts[0].shipped)


def _write(
    out: Path,
    data: FusionData,
    inner: Compared,
    mine: NDArray[np.int64],
    fold: NDArray[np.int64],
    fusion: MHPF,
    scores: Mapping[str, Any],
) -> None:
    """All files of a finished training, the weights last."""
    out.mkdir(parents=True, exist_ok=True)
    order = np.argsort(inner.rows)
    values = inner.values[inner.shipped][order]
    columns: dict[str, Any] = {
        "corpus": [data.corpora[i] for i in mine],
        "segment_id": [data.segments[i] for i in mine],
        "video_id": [data.videos[i] for i in mine],
        "fold": fold,
        "label": [BASIC[c] for c in data.classes[mine]],
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
