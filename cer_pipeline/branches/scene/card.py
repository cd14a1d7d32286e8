"""The model card of the scene head.

Belongs here: its words. Does not belong here: any number (they come with the scores).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cer_pipeline import metrics
from cer_pipeline.branches.scene.caption_scores import FUSED
from cer_pipeline.corpora.formats.caption_files import Overlap


def card(scores: dict[str, Any], adapter: dict[str, Any], shared: Overlap) -> str:
    """The model card.

    Args:
        scores: what `branches.scene.train.train_scene_minilm` returns.
        adapter: meta of the low-rank changes.
        shared: what train shares with dev.
    """
    dev, inner = scores["dev"], scores["out_of_fold"]
    rows, settings = scores["rows"], scores["settings"]
    lines = [
        "# scene_minilm: what a caption says -> 8 basic emotions",
        "",
        "A balanced ridge regression on a bag of words (with negation) and on the states of MiniLM with low-rank",
        f"changes over {_what(settings)}; `cer_pipeline/branches/scene/caption_head.py` says how texts are scored",
        "and views joined.",
        '"Other" is never trained and gets probability 0.',
        "",
        "## Data and licence",
        "",
        "- Captions of AFEW by Qwen2.5-VL (3B, 7B, 32B; prompts 1 and 2), from the repository of the paper's authors",
        f"  (MIT): {rows['train']} training and {rows['dev']} dev segments. AFEW itself needs a signed agreement with",
        "  its owners, and the captions describe its clips: check whether your use is covered.",
        f"- Low-rank changes of the encoder: rank {adapter['rank']}, upper {adapter['layers']} layers, trained on",
        f"  {adapter.get('trained_on', 'what the card of the text head names')}.",
        "- all-MiniLM-L6-v2: Apache-2.0, not contained.",
        "",
        "SHA-256 of the caption files:",
        "",
        *(f"- `{name}` {digest}" for name, digest in scores["data"].items()),
        "",
        "## Protocol",
        "",
        f"- {len(shared.videos)} source clips stand in train and in dev ({', '.join(shared.videos)}); their",
        f"  {len(shared.rows)} training segments are left out.",
        "- Chosen on the training split alone, on folds grouped by source clip: the default settings over ten seeds",
        "  (one row a segment, the mean over its views), the sharpening and the figures under `folds` over",
        f"  {settings['folds']} folds and the seeds {', '.join(map(str, settings['seeds']))}.",
        f"- Settings `{json.dumps(settings)}`, sharpening `{json.dumps(scores['sharpening'])}`.",
        "- Dev is scored by the finished head: segment level, 7 classes, 95 % intervals over resampled source clips",
        f"  ({metrics.RESAMPLES} resamples). `union` is the paper's rule: the mean over classes labelled or predicted.",
        "- Clips of one film may lie in several training folds, because the captions do not name the film.",
        "",
        "## Scores, percent",
        "",
        "| texts | macro-F1 dev | UAR dev | union F1, UAR | ECE | log loss | macro-F1 folds | UAR folds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system, s in dev.items():
        lines.append(
            f"| {system} | {_interval(s['macro_f1'])} | {_interval(s['uar'])} | {s['union']['macro_f1']}, "
            f"{s['union']['uar']} | {s['ece']} | {s['log_loss']} "
            f"| {inner[system]['macro_f1']:.2f} | {inner[system]['uar']:.2f} |"
        )
    lines += ["", f"F1 and recall by class on dev, {FUSED}:", "", "| class | F1 | recall |", "|---|---|---|"]
    lines += [f"| {c} | {dev[FUSED]['f1'][c]} | {dev[FUSED]['recall'][c]} |" for c in dev[FUSED]["f1"]]
    lines += [
        "",
        "## Repeat",
        "",
        "```sh",
        "cer corpus add afew_captions captions/AFEW --format captions",
        "cer train scene_minilm --corpora afew_captions",
        "```",
        "",
        "takes the low-rank changes from the head in use; with `--corpora afew_captions,goemotions` they are trained",
        "anew (an hour of one core). Without kept states the encoder takes ten minutes of one core. In Python:",
        "`training.scene.train_scene_minilm(captions, minilm, head_with_the_changes, out)`.",
        "",
        "## Limits",
        "",
        "Trained on captions that judge what they see (film scenes, actors, English). A text of plain facial actions",
        "without a judgement is out of its domain: the distribution is then nearly flat and its top class often wrong,",
        "so such texts go to the head of signs (`branches.scene.au_head`).",
        "",
        f"SHA-256 of the head: {scores['head_sha256']}",
        "",
    ]
    return "\n".join(lines)


def _what(settings: dict[str, Any]) -> str:
    return "sentences" if settings.get("sentences") else "texts"


def _interval(score: Sequence[float]) -> str:
    return f"{score[0]} [{score[1]}, {score[2]}]"
