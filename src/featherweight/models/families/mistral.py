"""Mistral (arXiv:2310.06825): Llama with a sliding window in all layers, or none.

GGUF stores it as Llama, and runtimes of such files have no window.
"""

from __future__ import annotations

from .base import PRE_NORMS, Family
from .llama import LLAMA

MISTRAL = Family(
    model_type="mistral",
    gguf=LLAMA.gguf,
    norms=PRE_NORMS,
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
    has_window=True,
)
