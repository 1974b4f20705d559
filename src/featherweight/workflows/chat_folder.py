"""The shell's `chat`: open a conversation with a model folder."""

from __future__ import annotations

import torch

from ..base.events import Event, Listener, silent
from ..inference import Conversation
from ..interchange import sources


def chat_folder(
    model: str,
    *,
    system: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.7,
    top_p: float = 0.95,
    seed: int = 0,
    listener: Listener = silent,
) -> Conversation:
    """Each call of the answer adds a turn and yields pieces of the reply. Raises UsageError for bad sampling values."""
    listener(Event("loading", 0, 1))
    loaded, tokenizer = sources.load(model, dtype=torch.float32)
    listener(Event("loading", 1, 1))
    return Conversation(loaded, tokenizer, system, max_new_tokens, temperature, top_p, seed)
