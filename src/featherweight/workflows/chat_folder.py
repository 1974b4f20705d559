"""The shell's `chat`: open a conversation with a model folder."""

from __future__ import annotations

from pathlib import Path

from ..base.events import Listener, silent
from ..inference import Conversation, Sampling
from ..inference.prefix_cache import PrefixCache
from .engines import open_engine


def chat_folder(
    model: str,
    sampling: Sampling,
    *,
    system: str | None = None,
    runtime: str = "auto",
    lookup: int = 0,
    cache_dir: Path | None = None,
    listener: Listener = silent,
) -> Conversation:
    """Each call of the answer adds a turn and yields pieces of the reply.

    `cache_dir`: where prompts are remembered.
    """
    cache = None if cache_dir is None else PrefixCache(cache_dir)
    engine, text = open_engine(model, runtime, listener=listener)
    return Conversation(engine, text, sampling, system, lookup=lookup, cache=cache)
