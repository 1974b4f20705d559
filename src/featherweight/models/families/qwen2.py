"""Qwen 2 and 2.5: Llama with biases on q, k and v, which no configuration key switches off."""

from __future__ import annotations

from .base import PRE_NORMS, Family, GGUFRules

QWEN2 = Family(
    model_type="qwen2",
    gguf=GGUFRules("qwen2"),
    norms=PRE_NORMS,
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    },
    biases=("query", "key", "value"),
    has_head_dim=False,
)
