"""The model card of the scene head.

Belongs here: the text of the card. Does not belong here: any score (`branches.scene.train`).
"""

from __future__ import annotations

import json
from typing import Any

from cer_pipeline import metrics
from cer_pipeline.branches.scene.caption_scores import FUSED
from cer_pipeline.corpora.formats.caption_files import Overlap
from cer_pipeline.training.model_card import class_table, model_card, score_table


def card(scores: dict[str, Any], adapter: dict[str, Any], shared: Overlap) -> str:
    """Return the model card.

    Args:
        scores: what `branches.scene.train.train_scene_minilm` returns.
        adapter: metadata of the low-rank changes of the encoder.
        shared: the source clips and texts that train shares with dev.
    """
    dev, inner, rows, settings = scores["dev"], scores["out_of_fold"], scores["rows"], scores["settings"]
    by_system = (
        (
            system, values["macro_f1"], values["uar"], values["union"]["macro_f1"], values["union"]["uar"],
            values["ece"], values["log_loss"], inner[system]["macro_f1"], inner[system]["uar"],
        )
        for system, values in dev.items()
    )  # fmt: skip
    columns = [
        "texts", "macro-F1 dev", "UAR dev", "union F1", "union UAR", "ECE", "log loss", "macro-F1 folds", "UAR folds",
    ]  # fmt: skip
    return model_card(
        "scene_minilm: a caption -> 8 basic emotions",
        f"""A balanced ridge regression on a bag of words (with negation) and on the states of MiniLM with low-rank
        changes over {"sentences" if settings["sentences"] else "texts"};
        `cer_pipeline/branches/scene/caption_head.py` defines how texts are scored and views combined. "Other" is
        never trained and gets probability 0.""",
        data=[
            f"""Captions of AFEW by Qwen2.5-VL (3B, 7B, 32B; prompts 1 and 2), from the repository of the paper's
            authors (MIT): {rows["train"]} training and {rows["dev"]} dev segments. AFEW itself needs a signed
            agreement with its owners, and the captions describe its clips: check whether your use is covered.""",
            f"""Low-rank changes of the encoder: rank {adapter["rank"]}, upper {adapter["layers"]} layers, trained
            on {adapter.get("trained_on", "what the card of the text head names")}.""",
            "all-MiniLM-L6-v2: Apache-2.0, not contained.",
        ],
        digests={**scores["data"], "scene_minilm.safetensors": scores["head_sha256"]},
        settings=settings,
        protocol=[
            f"""{len(shared.videos)} source clips are in train and in dev ({", ".join(shared.videos)}); their
            {len(shared.rows)} training segments are left out.""",
            f"""Chosen on the training split alone, on folds grouped by source clip: the default settings over ten
            seeds (one row a segment, the mean over its views), the sharpening and the scores under `folds` over
            {settings["folds"]} folds and the seeds {", ".join(map(str, settings["seeds"]))}.""",
            f"Sharpening `{json.dumps(scores['sharpening'])}`.",
            f"""Dev is scored by the finished head: segment level, 7 classes, 95 % intervals over resampled source
            clips ({metrics.RESAMPLES} resamples). `union` is the paper's rule: the mean over classes labelled or
            predicted.""",
            "Clips of one film may lie in several training folds, because the captions do not name the film.",
            """`cer train scene_minilm --corpora CAPTIONS` repeats the training with the low-rank changes of the
            head in use; with a corpus of GoEmotions beside it they are trained anew (an hour of one core). Encoding
            the captions takes ten minutes of one core.""",
        ],
        scores=[
            score_table(columns, by_system),
            f"By class on dev, {FUSED}:",
            class_table(dev[FUSED]["f1"], dev[FUSED]["recall"]),
        ],
        limits="""Trained on captions that name emotions (film scenes, actors, English). For a text of facial
        actions that names no emotion the distribution is nearly flat and its top class often wrong; such texts go
        to the action-unit caption head (`branches.scene.au_head`).""",
    )
