"""The model zoo: every external weight, its licence, source and digest, and its verified files on this machine.

Belongs here: entries (TOML files in this folder), the store of verified files, fetching, pins, trained heads.
Does not belong here: loading a model or reading its output (`perception`, `branches`).
"""

from cer_pipeline.zoo.commands import absent_models, commands_for
from cer_pipeline.zoo.entries import Entry, File, Hub, Shipped, Source, Wheel, Wheels, load_entries
from cer_pipeline.zoo.pins import default_pins
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
    pin,
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
    "absent_models",
    "commands_for",
    "default_cache",
    "default_pins",
    "ids_of",
    "list_models",
    "load_entries",
    "open_zoo",
    "pin",
]
