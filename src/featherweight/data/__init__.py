"""Text: what curvature is measured on (calibration) and what results are measured on (evaluation), never the same.

`text(name)` reads a shipped text, `windows` cuts it the way the judge does, `calibration` mixes shipped sources into
sequences of exactly one length; `calibration_from_files`, `calibration_from_text` and `calibration_from_model` do so
with a user's own files, a string, or what the model itself writes. `sources` and `mixes` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration_set import (
        Calibration,
        blend,
        calibration,
        calibration_from_documents,
        calibration_from_files,
        calibration_from_text,
    )
    from .generated import calibration_from_model
    from .mixes import MIXES, SHIPPED
    from .sources import SOURCES, Source, text
    from .tokens import windows

_HOMES = {
    "Calibration": "calibration_set",
    "blend": "calibration_set",
    "calibration": "calibration_set",
    "calibration_from_documents": "calibration_set",
    "calibration_from_files": "calibration_set",
    "calibration_from_text": "calibration_set",
    "calibration_from_model": "generated",
    "MIXES": "mixes",
    "SHIPPED": "mixes",
    "SOURCES": "sources",
    "Source": "sources",
    "text": "sources",
    "windows": "tokens",
}

__all__ = [
    "MIXES",
    "SHIPPED",
    "SOURCES",
    "Calibration",
    "Source",
    "blend",
    "calibration",
    "calibration_from_documents",
    "calibration_from_files",
    "calibration_from_model",
    "calibration_from_text",
    "text",
    "windows",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that the shell can list sources and mixes without waiting for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
