"""Generation: engines that turn tokens into logits, and conversations on top of them.

Importing this room imports none of it (the native engine needs no torch): each name is fetched when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversation import Conversation, answer
    from .engine import Engine, Sequence

_HOMES = {
    "Conversation": "conversation",
    "Engine": "engine",
    "Sequence": "engine",
    "answer": "conversation",
}
__all__ = ["Conversation", "Engine", "Sequence", "answer"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
