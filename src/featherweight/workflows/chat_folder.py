"""The shell's `chat`: a conversation with a model."""

from __future__ import annotations

from pathlib import Path

from ..base.events import Listener, silent
from ..base.sampling import Sampling
from ..inference import Conversation, PrefixCache
from ..interchange.source import Source
from .engines import open_engine


def chat_folder(
    model: str | Path,
    sampling: Sampling,
    *,
    system: str | None = None,
    runtime: str = "auto",
    lookup: int = 0,
    cache_dir: Path | None = None,
    listener: Listener = silent,
) -> Conversation:
    """A new conversation. Each call of it adds a turn and yields the text of the answer.

    Args: model, an alias, folder, GGUF file or hub id; sampling, how tokens are chosen; system, the
    system message; runtime as in `open_engine`; lookup, the number of draft tokens of prompt
    lookup; cache_dir, a folder where processed prompts are stored for later runs; listener,
    receives the events of loading. Raises as `open_engine` does.
    """
    cache = None if cache_dir is None else PrefixCache(cache_dir)
    engine, tokenizer = open_engine(Source.find(model, listener), runtime, listener=listener)
    return Conversation(engine, tokenizer, sampling, system, lookup=lookup, cache=cache)
