"""What transformers' models expect of the cache of earlier tokens."""

from __future__ import annotations

import inspect
from typing import Any

# Types of layers that keep keys and values of every token.
ATTENTION_TYPES = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


def is_recurrent(model: Any) -> bool:
    """Whether some layer has a state instead of keys and values of every token."""
    layer_types = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
    return getattr(model, "_is_stateful", False) or not ATTENTION_TYPES.issuperset(layer_types)


def cache_argument(model: Any) -> str:
    """The name of the argument of `model` that takes the cache. transformers is renaming it, and
    warns about the old name.
    """
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def takes_positions(model: Any) -> bool:
    """Whether the positions of tokens can be given, as texts with padding before them need."""
    return "position_ids" in inspect.signature(model.forward).parameters
