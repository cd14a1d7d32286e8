"""Every external weight: what it is, where it comes from, whether it is on this machine, and that it is what it says.

Belongs here: entries (plain data in the TOML files beside this one), the store of verified files, fetching.
Does not belong here: loading a model or reading its output (`perception`, `branches`).
"""

from cer_pipeline.zoo.entries import Entry, File, Hub, Shipped, Source, Wheel, Wheels, load_entries
from cer_pipeline.zoo.weights import (
    MEDIA,
    ModelRow,
    Progress,
    Pulled,
    State,
    Verdict,
    Zoo,
    default_cache,
    ids_of,
    list_models,
    open_zoo,
    pull,
    verify,
)

__all__ = [
    "MEDIA",
    "Entry",
    "File",
    "Hub",
    "ModelRow",
    "Progress",
    "Pulled",
    "Shipped",
    "Source",
    "State",
    "Verdict",
    "Wheel",
    "Wheels",
    "Zoo",
    "default_cache",
    "ids_of",
    "list_models",
    "load_entries",
    "open_zoo",
    "pull",
    "verify",
]
