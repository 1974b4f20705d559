"""Generation: engines that turn tokens into logits, and what uses them: chat text, streams, prompt
lookup, prefix cache, batches of requests, conversations.

Importing this room imports none of it (the native engine needs no torch): each name is imported
when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

if TYPE_CHECKING:
    from .answer_builder import TextDelta
    from .conversation import Conversation, answer
    from .engine import Engine, Session
    from .generation import Generation, Usage, generate
    from .native.engine import NativeEngine
    from .prefix_cache import PrefixCache
    from .reference import ReferenceEngine
    from .rollouts import engine_rollouts
    from .text.streaming import TextStream
    from .text.tokenizer import ChatTokenizer

_TARGETS = {
    "ChatTokenizer": "text.tokenizer",
    "Conversation": "conversation",
    "Engine": "engine",
    "Generation": "generation",
    "NativeEngine": "native.engine",
    "PrefixCache": "prefix_cache",
    "ReferenceEngine": "reference",
    "Session": "engine",
    "TextDelta": "answer_builder",
    "TextStream": "text.streaming",
    "Usage": "generation",
    "answer": "conversation",
    "engine_rollouts": "rollouts",
    "generate": "generation",
}
__all__ = [
    "ChatTokenizer",
    "Conversation",
    "Engine",
    "Generation",
    "NativeEngine",
    "PrefixCache",
    "ReferenceEngine",
    "Session",
    "TextDelta",
    "TextStream",
    "Usage",
    "answer",
    "engine_rollouts",
    "generate",
]
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
