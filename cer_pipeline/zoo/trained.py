"""Heads that were trained on this machine, published by digest below the home folder.

Belongs here: the folder layout, publishing, retiring a head. Does not belong here: training (`training`) or the tensors
of a head (the modules of its branch).

Layout: `heads/<branch>/<first 12 digits of the digest>/<branch>.*` (weights, card, scores, curves), and
`heads/<branch>/current.json` that names the one in use. A published folder never changes, so every prediction that
names a digest can be traced to its head.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cer_pipeline.errors import CerError
from cer_pipeline.store.files import commit_bytes, commit_tree
from cer_pipeline.zoo.entries import Entry, head_entry

CURRENT: Final = "current.json"
WEIGHTS: Final = "safetensors"
DIGITS: Final = 12


@dataclass(frozen=True)
class TrainedHead:
    """A published head: its branch, SHA-256, and folder."""

    branch: str
    sha256: str
    folder: Path

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / f"{self.branch}.{WEIGHTS}"


def publish(heads: Path, branch: str, made: Path) -> TrainedHead:
    """Copy the files `<branch>.*` of a finished training to the published heads, and use that head from now on.

    The folder appears whole and the switch is one rename: after a crash the earlier head is in use.

    Args:
        heads: folder of all trained heads.
        branch: the branch of the head.
        made: folder with `<branch>.safetensors`, its card `<branch>.md` and `<branch>.scores.json`.

    Raises:
        CerError: the weights, the card or the scores are missing.
    """
    for ending in (WEIGHTS, "md", "scores.json"):
        if not (made / f"{branch}.{ending}").is_file():
            raise CerError(f"the training left no {branch}.{ending}", str(made), "train again; nothing was published")
    data = (made / f"{branch}.{WEIGHTS}").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    folder = heads / branch / sha256[:DIGITS]
    if not folder.is_dir():
        paths = [p for p in made.glob(f"{branch}.*") if p.is_file() and not p.name.endswith(".state")]
        commit_tree(folder, lambda new: [shutil.copy2(path, new) for path in paths])
    record = {"sha256": sha256, "folder": folder.name}
    commit_bytes(heads / branch / CURRENT, (json.dumps(record, indent=1) + "\n").encode())
    return TrainedHead(branch, sha256, folder)


def trained_heads(heads: Path) -> dict[str, Entry]:
    """Entries `head_<branch>` of the trained heads in use.

    Raises:
        CerError: a record cannot be read.
    """
    current = [read_current(heads, path.parent.name) for path in sorted(heads.glob(f"*/{CURRENT}"))]
    entries = [
        head_entry(head.branch, head.weights, head.sha256, f"see {head.branch}.md beside it")
        for head in current
        if head is not None and head.weights.is_file()
    ]
    return {entry.id: entry for entry in entries}


def read_current(heads: Path, branch: str) -> TrainedHead | None:
    """The trained head in use of a branch; None where none was trained on this machine.

    Raises:
        CerError: its record cannot be read.
    """
    path = heads / branch / CURRENT
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text("utf-8"))
        return TrainedHead(branch, record["sha256"], heads / branch / record["folder"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CerError(
            f"the record of a trained head cannot be read ({error})", str(path), f"run `cer train {branch}` again"
        ) from None


def retire(heads: Path, branch: str) -> None:
    """Use the shipped head of a branch again in place of its trained one, whose files stay.

    Raises:
        CerError: none is in use.
    """
    path = heads / branch / CURRENT
    if not path.is_file():
        raise CerError("no head of this branch was trained on this machine", branch, "see `cer models list`")
    path.unlink()
