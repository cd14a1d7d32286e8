"""`pyarrow.compute` for code that is type-checked.

Its functions are made when it is imported, so no type checker can see them; here they are told to be of any type.
"""

from __future__ import annotations

import importlib
from typing import Any

pc: Any = importlib.import_module("pyarrow.compute")
