"""Models in and out: sources, packed folders, the transformers plug-in.

Importing the room imports none of it: `load` and `save` are fetched when they are first asked for, and `hf` registers
with transformers when it is itself imported, and only then.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"load": "sources", "save": "packed"}

__all__ = ["load", "save"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
