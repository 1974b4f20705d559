"""Generation: engines that turn tokens into logits, and conversations on top of them.

Importing this room imports none of it (the native engine needs no torch): each name is fetched when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversation import Conversation, answer
    from .described import Unsupported
    from .engine import Engine, Sequence
    from .generation import Generation, Piece, Usage, generate
    from .reference import Reference
    from .runtime import Runtime
    from .sampling import Choice, Sampler, Sampling
    from .streaming import TextStream
    from .text import Text

_HOMES = {
    "Choice": "sampling",
    "Conversation": "conversation",
    "Engine": "engine",
    "Generation": "generation",
    "Piece": "generation",
    "Reference": "reference",
    "Runtime": "runtime",
    "Sampler": "sampling",
    "Sampling": "sampling",
    "Sequence": "engine",
    "Text": "text",
    "TextStream": "streaming",
    "Unsupported": "described",
    "Usage": "generation",
    "answer": "conversation",
    "generate": "generation",
}
__all__ = [
    "Choice",
    "Conversation",
    "Engine",
    "Generation",
    "Piece",
    "Reference",
    "Runtime",
    "Sampler",
    "Sampling",
    "Sequence",
    "Text",
    "TextStream",
    "Unsupported",
    "Usage",
    "answer",
    "generate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
