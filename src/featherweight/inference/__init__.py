"""Generation: engines that turn tokens into logits, and conversations on top of them.

Importing this room imports none of it (the native engine needs no torch): each name is imported
when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

if TYPE_CHECKING:
    from .conversation import Conversation, answer
    from .engine import Engine, Session
    from .generation import Generation, Piece, Usage, generate
    from .native.engine import NativeEngine
    from .reference import ReferenceEngine
    from .sampling import Choice, Sampler, Sampling
    from .text.streaming import TextStream
    from .text.tokenizer import ChatTokenizer

_TARGETS = {
    "ChatTokenizer": "text.tokenizer",
    "Choice": "sampling",
    "Conversation": "conversation",
    "Engine": "engine",
    "Generation": "generation",
    "NativeEngine": "native.engine",
    "Piece": "generation",
    "ReferenceEngine": "reference",
    "Sampler": "sampling",
    "Sampling": "sampling",
    "Session": "engine",
    "TextStream": "text.streaming",
    "Usage": "generation",
    "answer": "conversation",
    "generate": "generation",
}
__all__ = [
    "ChatTokenizer",
    "Choice",
    "Conversation",
    "Engine",
    "Generation",
    "NativeEngine",
    "Piece",
    "ReferenceEngine",
    "Sampler",
    "Sampling",
    "Session",
    "TextStream",
    "Usage",
    "answer",
    "generate",
]
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
