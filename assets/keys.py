"""Asset keys: the key of a table and the key of a trained head.

Belongs here: the mapping from names of the library to asset keys. Does not belong here: any asset.
"""

from __future__ import annotations

import dagster as dg

PREFIX = "models"
"""First part of the key of every trained head."""


def asset_key(table: str) -> dg.AssetKey:
    """Return the key of a table's asset: `probabilities/face_static` -> probabilities > face_static."""
    return dg.AssetKey(table.split("/"))


def model_key(branch: str) -> dg.AssetKey:
    """Return the key of a trained head's asset: `scene_minilm` -> models > scene_minilm."""
    return dg.AssetKey([PREFIX, branch])
