"""Low-rank changes of MiniLM for the scene head, from sentences with emotion labels.

Belongs here: which sentences and how few steps. Does not belong here: the loop (`training.text`) or what is made of the
changed states (`training.scene`).

Captions of the training split are too few to change an encoder; a general sense of which words tell which emotion
carries over. A trained text head serves as well: this is the quick way to the same kind of file.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

from cer_pipeline.corpora.utterances import read_goemotions
from cer_pipeline.heads.io import save_head
from cer_pipeline.training.checkpoint import Progress, quiet
from cer_pipeline.training.text import TextSettings, fit, pack

ROWS: Final = 16_000  # four minutes of one core; transfer to captions was the same from 6,400 sentences on
SETTINGS: Final = TextSettings(rank=16, alpha=32.0, layers=3, epochs=1)


def train_adapter(goemotions: Path, minilm: Path, out: Path, progress: Progress = quiet) -> Path:
    """Train low-rank changes on the first `ROWS` sentences of GoEmotions train, one pass.

    Args:
        goemotions: folder of the GoEmotions files.
        minilm: folder of MiniLM.
        out: file to write; the state of an unfinished run lies beside it.
        progress: told the mean loss and the steps.

    Returns:
        `out`, which `training.scene.train_scene_minilm` takes as its `adapter`.

    Raises:
        CerError: a file is missing or a row cannot be read.
    """
    rows = read_goemotions(goemotions, "train")[:ROWS]
    model = fit(rows, minilm, out.with_suffix(".state"), SETTINGS, progress)
    trained_on = f"the first {len(rows)} sentences of GoEmotions train (Apache-2.0), {SETTINGS.epochs} pass"
    save_head(out, pack(model), {**asdict(SETTINGS), "temperature": 1.0, "trained_on": trained_on})
    return out
