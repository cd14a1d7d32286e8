"""The model card of a temporal head, and the picture of its curves.

Belongs here: turning scores and curves into text and a picture. Does not belong here: computing them (`train`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cer_pipeline.branches.face.specs import (
    CLIP_MAMBA,
    CLIP_TRANSFORMER,
    EXPRESSION_MAMBA,
    EXPRESSION_TRANSFORMER,
    MAMBA,
    TRANSFORMER,
)
from cer_pipeline.training.model_card import class_table, model_card, score_table


def picture(branch: str, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Loss and score on the validation videos by epoch, one line a fit: PNG."""
    from cer_pipeline import chart_style as style

    with style.settings():
        figure = style.figure(900, 380)
        for place, key, title in ((121, "loss", "training loss"), (122, "score", "validation videos, percent")):
            axes = figure.add_subplot(place)
            axes.set_title(f"{branch}: {title}")
            axes.set_xlabel("epoch")
            for name, records in curves.items():
                values = [record[key] for record in records]
                strong = name == "all"
                axes.plot(range(1, len(values) + 1), values, linewidth=2.2 if strong else 1, label=name)
            axes.grid(color=style.LINE)
        figure.axes[-1].legend(frameon=False, fontsize=8)
        figure.tight_layout()
        return style.png(figure)


_MAMBA: Final = "Selective state space (Mamba)"
_TITLES: Final = {
    TRANSFORMER: "Transformer",
    MAMBA: _MAMBA,
    EXPRESSION_TRANSFORMER: "Transformer",
    EXPRESSION_MAMBA: _MAMBA,
    CLIP_TRANSFORMER: "Transformer",
    CLIP_MAMBA: _MAMBA,
}
_STEPS: Final = {
    EXPRESSION_TRANSFORMER: "512 features of EmoAffectNet",
    EXPRESSION_MAMBA: "512 features of EmoAffectNet",
    CLIP_TRANSFORMER: "512 features of CLIP ViT-B/32",
    CLIP_MAMBA: "512 features of CLIP ViT-B/32",
}


def card(branch: str, scores: Mapping[str, Any]) -> str:
    """Return the model card of a trained temporal head."""
    settings = scores["settings"]
    counts = ", ".join(f"{name} ({n} windows)" for name, n in scores["corpora"].items())
    protocol = [
        f"""{settings["folds"]} folds by source video. In each fit a part of the training videos is held back to
        choose the epoch; the held-out videos choose nothing. The temperature of a fold comes from the other folds.""",
        f"Temperature {scores['temperature']}, part of the last layer. Epochs {scores['epochs']}.",
    ]
    if scores["trials"]:
        protocol += [f"{scores['trials']} trials within each fold, by folds of its own training videos."]
        protocol += [
            f"Chosen, {name}: {', '.join(f'{k} {v}' for k, v in chosen.items())}."
            for name, chosen in scores["chosen"].items()
        ]
    overall = [
        (f"macro-F1, {len(scores['f1'])} classes", scores["macro_f1"]),
        ("UAR", scores["uar"]),
        ("calibration error (ECE)", scores["ece"]),
    ]
    return model_card(
        branch,
        f"""{_TITLES[branch]} over the samples of a window
        ({_STEPS.get(branch, "blendshapes, expression logits, head pose")}) to 8 basic emotions.""",
        data=[
            f"""{counts}; {scores["windows"]} labelled windows of {scores["videos"]} source videos. The terms of
            these corpora bind the head too.""",
        ],
        digests={"names, features and labels": scores["digest"]},
        settings=settings,
        protocol=protocol,
        scores=[
            "Out of fold; 95 % intervals over resampled source videos.",
            score_table(["score", "value"], overall),
            class_table(scores["f1"], scores["recall"]),
        ],
    )
