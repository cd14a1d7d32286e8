"""Low-rank changes of MiniLM for the caption head, trained on sentences with emotion labels.

Belongs here: which sentences. Does not belong here: the training loop (`branches.text.train`) or the use of the changed
states (`branches.scene.train`).

The captions of the training split are too few to change an encoder; which words express which emotion is learned from
GoEmotions and carries over to captions. The changes are trained as those of a text head on GoEmotions alone, and the
changes of such a head can be used as well.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

from cer_pipeline.branches.text.train import TextSettings, fit, pack
from cer_pipeline.corpora.formats.utterances import read_goemotions, unseen
from cer_pipeline.training.progress import Progress, quiet
from cer_pipeline.zoo.head_file import save_head

SETTINGS: Final = TextSettings()  # a lighter one (rank 16, one pass over 16,000) serves whole captions, not sentences


def train_adapter(goemotions: Path, minilm: Path, out: Path, progress: Progress = quiet) -> Path:
    """Train low-rank changes on GoEmotions train, without the sentences of its dev and test: an hour of one core.

    Args:
        goemotions: folder of the GoEmotions files.
        minilm: folder of MiniLM.
        out: file to write; the state of an unfinished run is stored beside it.
        progress: gets the mean loss and the steps.

    Returns:
        `out`, which `branches.scene.train.train_scene_minilm` takes as its `adapter`.

    Raises:
        CerError: a file is missing or a row cannot be read.
    """
    split = {name: read_goemotions(goemotions, name) for name in ("train", "dev", "test")}
    rows = unseen(split["train"], split["dev"] + split["test"])
    model = fit(rows, minilm, out.with_suffix(".state"), SETTINGS, progress)
    trained_on = (
        f"{len(rows)} sentences of GoEmotions train (Apache-2.0), those that stand in its dev or test left out; "
        f"{SETTINGS.epochs} passes"
    )
    save_head(out, pack(model), {**asdict(SETTINGS), "temperature": 1.0, "trained_on": trained_on})
    return out
