"""Qwen 3, dense: Llama with a norm on each head of q and k."""

from __future__ import annotations

from .base import HEAD_NORMS, PRE_NORMS, Family, GGUFRules

QWEN3 = Family(
    model_type="qwen3",
    gguf=GGUFRules("qwen3"),
    norms=PRE_NORMS,
    defaults={
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    },
    head_norms=HEAD_NORMS,
    bias_flags={"attention_bias": "query"},
)
